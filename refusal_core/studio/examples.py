"""What a fresh page opens on: a finished comparison, and a card for each that comes with the project."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from refusal_core.studio import compare
from refusal_core.studio.form import Form
from refusal_core.studio.history import served
from refusal_core.studio.jobs import QUICK, Values, guarded
from refusal_core.studio.layout import status
from refusal_core.studio.opening import from_link, linked_parts
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench.values import RunCard

PICK = """
element.addEventListener('click', e => {
  const card = e.target.closest('button[data-card]');
  if (card) trigger('pick', {place: +card.dataset.card});
});
"""


def build(cards: Sequence[RunCard]) -> None:
    """Lay out the cards under the result; each shows a frame of the original and the unlearned video."""
    rows = "".join(_card(place, card) for place, card in enumerate(cards))
    gr.HTML(
        f"<p>{TEXT['cards']}</p><div class='rs-cards'>{rows}</div>",
        js_on_load=PICK, elem_id="cards", visible=bool(cards),
    )  # fmt: skip


def _card(place: int, card: RunCard) -> str:
    picture = base64.b64encode(card.thumbnail.read_bytes()).decode()
    return (
        f"<button type='button' data-card='{place}'>"
        f"<img src='data:image/png;base64,{picture}' width='128' height='64' alt=''>"
        f"<b>{escaped(card.title.partition(' (')[0])}</b><span>{escaped(card.subtitle)}</span></button>"
    )


def join(form: Form, cards: Sequence[RunCard]) -> None:
    """Let a click on a card show its comparison, with the form as it was when that was made."""
    names = (
        "prompt", "seed", "vid-orig", "vid-edit", "vid-orig-verdict", "vid-edit-verdict", "save-both",
        "save-edit", "status", "model",
    )  # fmt: skip

    @guarded
    def pick(request: gr.Request, event: gr.EventData) -> Values:
        card = cards[int(event.place)]
        return {
            **form.filled(card.request),
            form["model"]: card.request.model,
            form["prompt"]: card.original.prompt,
            form["seed"]: card.original.seed,
            form["vid-orig"]: served(form.workbench, request, card.run, card.original.path),
            form["vid-edit"]: served(form.workbench, request, card.run, card.unlearned.path),
            form["vid-orig-verdict"]: compare.verdict(card.original),
            form["vid-edit-verdict"]: compare.verdict(card.unlearned),
            form["save-both"]: gr.DownloadButton(interactive=False),
            form["save-edit"]: gr.DownloadButton(interactive=False),
            form["status"]: status("done", "example_shown"),
        }

    form["cards"].pick(pick, None, [*form.filled_parts, *form.parts_of(*names)], **QUICK)


def opening(form: Form, shown: RunCard | None) -> tuple[Callable[..., Values], list[Any]]:
    """Return what a fresh page shows, and the parts that it changes: a link's form, else an example's videos.

    They are each visitor's own copies: the page itself, which everyone can read, names no file.
    """
    panes = form.parts_of("vid-orig", "vid-edit")

    @guarded
    def show(request: gr.Request) -> Values:
        if (linked := from_link(form, request)) is not None:
            return linked
        if shown is None:
            return {}
        paths = (video.path for video in (shown.original, shown.unlearned))
        copies = [served(form.workbench, request, shown.run, path) for path in paths]
        return dict(zip(panes, copies, strict=True))

    return show, [*panes, *linked_parts(form)]
