"""The frame of the page: cards, headings with their state, the status line."""

from __future__ import annotations

from typing import Any, Literal

import gradio as gr
from gradio.context import get_blocks_context

from refusal_core.studio.texts import TEXT, escaped

State = Literal["idle", "working", "done", "stale", "stopped", "failed"]
Chip = Literal["ready", "stale", "working", "done", "failed"]


def parts() -> dict[str, Any]:
    """Return the components of the page so far by the ids that they have in it; each is named once, there."""
    page = get_blocks_context()
    assert page is not None
    return {block.elem_id: block for block in page.blocks.values() if block.elem_id}


def card(elem_id: str) -> gr.Column:
    """Return a column that looks like a card."""
    return gr.Column(elem_classes="rs-card", elem_id=elem_id)


def step_title(number: int, key: str, note: str = "") -> None:
    """Show a step's heading, ready."""
    gr.HTML(heading(key, "ready", note), elem_classes="rs-step", elem_id=f"title-{number}")


def heading(key: str, chip: Chip, note: str = "") -> str:
    """Return a step's heading with its state."""
    return (
        f"<h2>{TEXT[key]}<em>{note}</em>"
        f"<i class='rs-chip' data-chip='{chip}'>{TEXT[f'state_{chip}']}</i></h2>"
    )


def status(state: State, key: str, more: str = "") -> str:
    """Return the status line; it is read aloud when it changes. ``more`` is text of the core."""
    return f"<p role='status' data-state='{state}'>{TEXT[key]} {escaped(more)}</p>"


def message(key: str, css: str = "rs-empty") -> str:
    """Return a quiet sentence, such as what to do where there is nothing yet."""
    return f"<p class='{css}'>{TEXT[key]}</p>"
