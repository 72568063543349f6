"""The history page: this browser's runs, to load again or to lay side by side."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from refusal_core.errors import RefusalError
from refusal_core.studio import compare
from refusal_core.studio.form import Form, Values
from refusal_core.studio.frame import card, message, status
from refusal_core.studio.jobs import GLUE, QUICK, session_of, shown
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench import History, RunCard, Workbench, summary_of


@dataclass(frozen=True, slots=True)
class Page:
    """The components of the page."""

    empty: gr.HTML
    runs: gr.Gallery
    line: gr.HTML
    load: gr.Button
    left: gr.Button
    right: gr.Button
    delete: gr.Button
    clear: gr.Button
    first: gr.Video
    second: gr.Video
    ids: gr.State
    chosen: gr.State

    @property
    def buttons(self) -> tuple[gr.Button, ...]:
        """Those that work on the chosen run."""
        return self.load, self.left, self.right, self.delete

    @property
    def outputs(self) -> list[Any]:
        """What a handler may change."""
        return [self.runs, self.empty, self.line, self.ids, self.chosen, *self.buttons]


def build(workbench: Workbench, history: History, form: Form) -> tuple[Callable[..., Values], list[Any]]:
    """Lay out the page; return what refreshes it and its outputs."""
    with card("history-card"):
        page = _laid_out()

    def refresh(owner: str, request: gr.Request) -> Values:
        cards = _cards(history, owner)
        folder = workbench.session_folder(session_of(request))
        value = [(str(_copied(c.thumbnail, folder, f"{c.run}.png")), _caption(c)) for c in cards]
        return {
            page.runs: gr.Gallery(value=value, visible=bool(cards), selected_index=None),
            page.empty: gr.HTML(visible=not cards),
            page.line: gr.HTML(message("history_chosen"), visible=bool(cards)),
            page.ids: [c.run for c in cards],
            page.chosen: "",
            **{button: gr.Button(interactive=False) for button in page.buttons},
        }

    def remove(run: str, owner: str, request: gr.Request) -> Values:
        history.delete(owner, run)
        return refresh(owner, request)

    def remove_all(owner: str, request: gr.Request) -> Values:
        history.delete(owner)
        return refresh(owner, request)

    page.delete.click(remove, [page.chosen, form.owner], page.outputs, **GLUE)
    page.clear.click(remove_all, form.owner, page.outputs, **GLUE)
    _join_choice(workbench, history, form, page)
    _join_load(workbench, history, form, page.load, page.chosen)
    return refresh, page.outputs


def _laid_out() -> Page:
    gr.HTML(f"<p>{TEXT['history_lead']}</p>", elem_classes="rs-sub")
    empty = gr.HTML(message("history_none"), elem_id="history-none")
    runs = gr.Gallery(
        show_label=False, label="runs", columns=4, object_fit="contain", allow_preview=False, buttons=[],
        interactive=False, visible=False, elem_id="history", elem_classes="rs-history",
    )  # fmt: skip
    line = gr.HTML(message("history_chosen"), elem_id="history-chosen", visible=False)
    with gr.Row():
        load = gr.Button(
            TEXT["history_load"], variant="primary", interactive=False, elem_id="history-load", scale=2
        )
        left = gr.Button(TEXT["history_left"], interactive=False, elem_id="history-left")
        right = gr.Button(TEXT["history_right"], interactive=False, elem_id="history-right")
        delete = gr.Button(TEXT["history_delete"], interactive=False, elem_id="history-delete")
        clear = gr.Button(TEXT["history_clear"], elem_id="history-clear")
    with gr.Row():
        first, second = _pane("history-a"), _pane("history-b")
    return Page(
        empty, runs, line, load, left, right, delete, clear, first, second, gr.State([]), gr.State("")
    )


def _join_choice(workbench: Workbench, history: History, form: Form, page: Page) -> None:
    def choose(known: list[str], owner: str, event: gr.SelectData) -> Values:
        run = known[event.index]
        found = _run(history, owner, run)
        on = {button: gr.Button(interactive=True) for button in page.buttons}
        return {page.chosen: run, page.line: f"<p>{escaped(_caption(found))}</p>", **on}

    def video(run: str, owner: str, request: gr.Request) -> gr.Video:
        found = _run(history, owner, run)
        folder = workbench.session_folder(session_of(request))
        path = _copied(found.unlearned.path, folder, f"{run}-unlearned.mp4")
        return gr.Video(value=str(path), label=found.title[:80], visible=True)

    page.runs.select(choose, [page.ids, form.owner], page.outputs, **QUICK)
    page.left.click(video, [page.chosen, form.owner], page.first, **QUICK)
    page.right.click(video, [page.chosen, form.owner], page.second, **QUICK)


def _run(history: History, owner: str, run: str) -> RunCard:
    try:
        return history.run(owner, run)
    except RefusalError as e:
        raise shown(e) from e


def _join_load(workbench: Workbench, history: History, form: Form, load: gr.Button, chosen: gr.State) -> None:
    """Fill the workbench's form, and its panes, with a run."""
    one, two, three = form.one, form.two, form.three

    def fill(run: str, owner: str, request: gr.Request) -> dict[Any, Any]:
        card = _run(history, owner, run)
        folder = workbench.session_folder(session_of(request))
        paths = {
            name: str(_copied(clip.path, folder, f"{run}-{name}.mp4"))
            for name, clip in (("original", card.original), ("unlearned", card.unlearned))
        }
        r = card.request
        low, _, high = r.layers.partition("-")
        last = high or (low if low.isdecimal() else str(workbench.layer_count(r.model) - 1))
        return {
            one.model: r.model, one.preset: r.preset, one.pairs: [list(p) for p in r.pairs],
            one.also: [name for name, _ in r.also], one.strengths: ", ".join(f"{s:g}" for _, s in r.also),
            two.method: r.method, two.sites: list(r.sites), two.first: int(low) if low.isdecimal() else 0,
            two.last: int(last), two.rank: r.rank, two.strength: r.strength, two.anchor: r.anchor,
            two.alpha: r.alpha, two.relative: r.relative, two.center: r.center, two.shrinkage: r.shrinkage,
            two.pool: r.pool, two.timesteps: r.timesteps, two.trajectory: r.trajectory,
            three.prompt: card.original.prompt, three.seed: card.original.seed,
            three.original: paths["original"], three.unlearned: paths["unlearned"],
            three.original_verdict: compare.verdict(card.original),
            three.unlearned_verdict: compare.verdict(card.unlearned),
            three.status: status("done", "finished", summary_of(r)),
        }  # fmt: skip

    outputs = [
        one.model, one.preset, one.pairs, one.also, one.strengths, *two.settings, three.prompt, three.seed,
        three.original, three.unlearned, three.original_verdict, three.unlearned_verdict, three.status,
    ]  # fmt: skip
    load.click(fill, [chosen, form.owner], outputs, **QUICK)


def _pane(elem_id: str) -> gr.Video:
    return gr.Video(
        label=elem_id, interactive=False, loop=True, autoplay=True, buttons=[], visible=False, elem_id=elem_id
    )


def _cards(history: History, owner: str) -> tuple[RunCard, ...]:
    try:
        return history.runs(owner)
    except RefusalError:  # the browser has given no id yet
        return ()


def _caption(card: RunCard) -> str:
    return f"{card.title} · {card.subtitle}"


def _copied(path: Any, folder: Any, name: str) -> Any:
    """Return a copy in the session's folder: files are served from there alone, and go with the session."""
    target = folder / name
    if not target.exists():
        shutil.copyfile(path, target)
    return target
