"""The frame of the page: cards, numbered headings with their state, the status line."""

from __future__ import annotations

from typing import Literal

import gradio as gr

from refusal_core.studio.texts import TEXT, escaped

State = Literal["idle", "working", "done", "stale", "stopped", "failed"]
Chip = Literal["ready", "stale", "working", "done", "failed"]


def card(elem_id: str) -> gr.Column:
    """Return a column that looks like a card."""
    return gr.Column(elem_classes="rs-card", elem_id=elem_id)


def heading(number: int, key: str, chip: Chip, note: str = "") -> str:
    """Return a step's heading with its state."""
    return (
        f"<h2><b>{number}</b>{TEXT[key]}<em>{note}</em>"
        f"<i class='rs-chip' data-chip='{chip}'>{TEXT[f'state_{chip}']}</i></h2>"
    )


def step_title(number: int, key: str, note: str = "") -> gr.HTML:
    """Show a step's heading, ready."""
    return gr.HTML(heading(number, key, "ready", note), elem_classes="rs-step", elem_id=f"title-{number}")


def status(state: State, key: str, more: str = "") -> str:
    """Return the status line; it is read aloud when it changes. ``more`` is text of the core."""
    return f"<p role='status' data-state='{state}'>{TEXT[key]} {escaped(more)}</p>"


def message(key: str, css: str = "rs-empty") -> str:
    """Return a quiet sentence, such as what to do where there is nothing yet."""
    return f"<p class='{css}'>{TEXT[key]}</p>"
