"""The history page: this browser's runs, to load again or to lay side by side."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from refusal_core.errors import RefusalError
from refusal_core.studio import compare
from refusal_core.studio.form import Form
from refusal_core.studio.jobs import GLUE, QUICK, Values, guarded, session_of
from refusal_core.studio.layout import card, message, parts, status
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench.history import History
from refusal_core.workbench.values import RunCard
from refusal_core.workbench.workbench import Workbench

CHOSEN = ("history-load", "history-left", "history-right", "history-delete")  # work on the chosen run
FILLED = (
    "model", "prompt", "seed", "vid-orig", "vid-edit", "vid-orig-verdict", "vid-edit-verdict", "status",
)  # fmt: skip


def build(workbench: Workbench, history: History, form: Form) -> tuple[Callable[..., Values], list[Any]]:
    """Lay out the page; return what refreshes it and its outputs."""
    with card("history-card"):
        _laid_out()
    part, ids, chosen, owner = parts(), gr.State([]), gr.State(""), form["owner"]
    buttons = [part[name] for name in CHOSEN]
    outputs = [ids, chosen, *buttons, *(part[f"history{name}"] for name in ("", "-none", "-chosen"))]

    def refresh(owner: str, request: gr.Request) -> Values:
        cards = _cards(history, owner)
        pictures = [(served(workbench, request, c.run, c.thumbnail), _caption(c)) for c in cards]
        return {
            part["history"]: gr.Gallery(value=pictures, visible=bool(cards), selected_index=None),
            part["history-none"]: gr.HTML(visible=not cards),
            part["history-chosen"]: gr.HTML(message("history_chosen"), visible=bool(cards)),
            ids: [c.run for c in cards],
            chosen: "",
            **{button: gr.Button(interactive=False) for button in buttons},
        }

    def remove(run: str, owner: str, request: gr.Request) -> Values:
        history.delete(owner, run)
        return refresh(owner, request)

    def remove_all(owner: str, request: gr.Request) -> Values:
        history.delete(owner)
        return refresh(owner, request)

    part["history-delete"].click(remove, [chosen, owner], outputs, **GLUE)
    part["history-clear"].click(remove_all, owner, outputs, **GLUE)
    _join_run(workbench, history, form, [ids, chosen])
    return refresh, outputs


def served(workbench: Workbench, request: gr.Request, run: str, path: Path) -> str:
    """Return a copy in the session's folder: files are served from there alone, and go with it."""
    target = workbench.session_folder(session_of(request)) / f"{run}-{path.name}"
    if not target.exists():
        shutil.copyfile(path, target)
    return str(target)


def _join_run(workbench: Workbench, history: History, form: Form, shown: list[Any]) -> None:
    """Join what is done with one run; ``shown`` are the runs' ids, and the one that is chosen."""
    part, (ids, chosen), owner = parts(), shown, form["owner"]
    buttons = [part[name] for name in CHOSEN]

    @guarded
    def choose(known: list[str], owner: str, event: gr.SelectData) -> Values:
        run = known[event.index]
        caption = f"<p>{escaped(_caption(history.run(owner, run)))}</p>"
        on = {button: gr.Button(interactive=True) for button in buttons}
        return {chosen: run, part["history-chosen"]: caption, **on}

    @guarded
    def video(run: str, owner: str, request: gr.Request) -> gr.Video:
        card = history.run(owner, run)
        path = served(workbench, request, run, card.unlearned.path)
        return gr.Video(value=path, label=card.title[:80], visible=True)

    @guarded
    def fill(run: str, owner: str, request: gr.Request) -> Values:
        """Fill the workbench's form, and its panes, with a run."""
        card = history.run(owner, run)
        return {
            **form.filled(card.request),
            form["model"]: card.request.model,
            form["prompt"]: card.original.prompt,
            form["seed"]: card.original.seed,
            form["vid-orig"]: served(workbench, request, run, card.original.path),
            form["vid-edit"]: served(workbench, request, run, card.unlearned.path),
            form["vid-orig-verdict"]: compare.verdict(card.original),
            form["vid-edit-verdict"]: compare.verdict(card.unlearned),
            form["status"]: status("done", "finished", card.subtitle),
        }

    part["history"].select(choose, [ids, owner], [chosen, part["history-chosen"], *buttons], **QUICK)
    part["history-left"].click(video, [chosen, owner], part["history-a"], **QUICK)
    part["history-right"].click(video, [chosen, owner], part["history-b"], **QUICK)
    filled = [*form.filled_parts, *form.parts_of(*FILLED)]
    part["history-load"].click(fill, [chosen, owner], filled, **QUICK)


def _laid_out() -> None:
    gr.HTML(f"<p>{TEXT['history_lead']}</p>", elem_classes="rs-sub")
    gr.HTML(message("history_none"), elem_id="history-none")
    gr.Gallery(
        show_label=False, label="runs", columns=4, object_fit="contain", allow_preview=False, buttons=[],
        interactive=False, visible=False, elem_id="history", elem_classes="rs-history",
    )  # fmt: skip
    gr.HTML(message("history_chosen"), elem_id="history-chosen", visible=False)
    with gr.Row():
        for name in CHOSEN:
            first = name == CHOSEN[0]
            gr.Button(
                TEXT[name.replace("-", "_")], variant="primary" if first else "secondary", interactive=False,
                elem_id=name, scale=2 if first else None,
            )  # fmt: skip
        gr.Button(TEXT["history_clear"], elem_id="history-clear")
    with gr.Row():
        for elem_id in ("history-a", "history-b"):
            gr.Video(
                label=elem_id, interactive=False, loop=True, autoplay=True, buttons=[], visible=False,
                elem_id=elem_id,
            )  # fmt: skip


def _cards(history: History, owner: str) -> tuple[RunCard, ...]:
    try:
        return history.runs(owner)
    except RefusalError:  # the browser has given no id yet
        return ()


def _caption(card: RunCard) -> str:
    return f"{card.title} · {card.subtitle}"
