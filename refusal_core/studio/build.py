"""The page: a rail of what is asked for, the result beside it, the other pages, and what joins them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import gradio as gr

from refusal_core.studio import (
    compare,
    concept,
    edit,
    endpoints,
    evaluate,
    examples,
    export,
    gpu,
    handlers,
    history,
    opening,
    player,
    review,
    strip,
    sweep,
    texts,
)
from refusal_core.studio.form import Form
from refusal_core.studio.inputs import Studio
from refusal_core.studio.jobs import GLUE, Runner, Stops, session_of
from refusal_core.studio.layout import card, parts
from refusal_core.studio.limits import PRIVATE, Limits
from refusal_core.studio.texts import TEXT
from refusal_core.studio.theme import css, theme
from refusal_core.workbench.examples import load_examples
from refusal_core.workbench.history import History
from refusal_core.workbench.values import Preset
from refusal_core.workbench.workbench import Workbench

FIRST = "fire"
# The browser's own id: whoever has it sees this browser's runs, so it is long, random and never shown.
OWNER = """() => {
  let id = localStorage.getItem('rs-owner') || '';
  if (!/^[0-9a-f]{32}$/.test(id)) {
    id = [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, '0')).join('');
    localStorage.setItem('rs-owner', id);
  }
  return id;
}"""


def launch_kwargs(limits: Limits = PRIVATE) -> dict[str, Any]:
    """Return how the app is always launched: look and security in one place."""
    return {
        "theme": theme(),
        "css": css(),
        "share": False,
        "show_error": False,
        "allowed_paths": [],
        "max_file_size": "64mb",  # a review pack; each loader has a limit of its own
        "enable_monitoring": False,
        "run_history": False,  # on by default, it would store every prompt in the browser
        "strict_cors": True,
        "ssr_mode": False,
        "pwa": False,
        "footer_links": ["api"],
        "state_session_capacity": limits.sessions,
        "mcp_server": find_spec("mcp") is not None,  # tools for agents; with the extra mcp
    }


def build_app(workbench: Workbench, runs: History | None = None, limits: Limits = PRIVATE) -> gr.Blocks:
    """Return the app for a workbench; launch it with ``launch_kwargs()``."""
    runner, kept = Runner(workbench, Stops(limits)), runs or History()
    facts, first = workbench.facts(), _first(workbench)
    start, cards = workbench.request(first.concept.name), load_examples(workbench)
    shown = next((card for card in cards if card.original.prompt == first.prompt), None)
    gpu.set_up(workbench)
    page = {
        "title": texts.TITLE,
        "analytics_enabled": False,
        "delete_cache": (1800, 7200),
        "fill_width": True,
    }
    with Studio(workbench, **page) as app:
        endpoints.add(runner)  # first: the pages' handlers would take their names
        gr.Textbox(visible=False, label="owner", elem_id="owner")
        with gr.Row(elem_id="head"):
            gr.HTML(f"<h1>{texts.TITLE}</h1><p>{TEXT['lead']}</p>", elem_classes="rs-head")
            strip.build(facts.title, start)
        with gr.Tabs(elem_id="pages", overflow_behavior="wrap"):
            with gr.Tab(TEXT["tab_workbench"], id="workbench"):
                with gr.Row(elem_id="columns"):
                    with gr.Column(min_width=300, elem_id="left"):
                        concept.build(workbench, first)
                        compare.ask(facts, first.prompt)
                        edit.build(facts, start.recipe.values(), lambda: concept.others(workbench, first))
                    with gr.Column(min_width=300, elem_id="right"):
                        compare.build(shown, lambda: examples.build(cards))
                        with card("more-card"):
                            compare.more()
                            opening.build()
            form = Form(workbench, parts())
            refresh, outputs = _pages(runner, kept, form)
        gr.HTML(f"<p>{TEXT['safety']}</p>", elem_classes="rs-foot")
        concept.join_rows(workbench, form.parts)
        compared = handlers.join(runner, kept, form)
        examples.join(form, cards)
        strip.join(form)
        compared.then(refresh, form["owner"], outputs, **GLUE)  # the history page may be open already
        # In the browser alone: by way of the server it came after a quick first click, whose run was lost.
        app.load(None, None, form["owner"], js=OWNER).then(refresh, form["owner"], outputs, **GLUE)
        show, panes = examples.opening(form, shown)
        # Beside the queue, too: else the videos of a first quick comparison could be replaced by these.
        app.load(show, None, panes, **GLUE)
        app.load(None, js=player.SCRIPT)
        app.unload(_forgetting(runner))
    # Not open: a program could start jobs beside the queue, as many at once as it likes.
    app.queue(max_size=limits.queue, default_concurrency_limit=4, api_open=False)
    return app


def _pages(runner: Runner, runs: History, form: Form) -> tuple[Any, Any]:
    """Lay out the other pages; return what refreshes the history and its outputs."""
    with gr.Tab(TEXT["tab_sweep"], id="sweep"):
        sweep.build(runner, form)
    with gr.Tab(TEXT["tab_evaluate"], id="evaluate"):
        evaluate.build(runner, form)
    with gr.Tab(TEXT["tab_review"], id="review"):
        review.build(runner, form)
    with gr.Tab(TEXT["tab_export"], id="export"):
        export.build(runner, form)
    with gr.Tab(TEXT["tab_history"], id="history") as page:
        refresh, outputs = history.build(runner.workbench, runs, form)
    page.select(refresh, form["owner"], outputs, **GLUE)
    return refresh, outputs


def _first(workbench: Workbench) -> Preset:
    """Return the preset that is there on a fresh page."""
    presets = workbench.presets()
    return next((preset for preset in presets if preset.concept.name == FIRST), presets[0])


def _forgetting(runner: Runner) -> Callable[[gr.Request], None]:
    def forget(request: gr.Request) -> None:
        runner.stops.forget(session_of(request))
        runner.workbench.forget(session_of(request))

    return forget
