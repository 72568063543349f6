"""The frame of the page: cards, numbered headings, the status line."""

from __future__ import annotations

import html
from typing import Literal

import gradio as gr

State = Literal["idle", "working", "done", "stale", "stopped", "failed"]


def card(elem_id: str) -> gr.Column:
    """Return a column that looks like a card."""
    return gr.Column(elem_classes="rs-card", elem_id=elem_id)


def step_title(number: int, title: str, note: str = "") -> gr.HTML:
    """Show a numbered heading."""
    text = f"<h2><span>{number}</span>{html.escape(title)}<em>{html.escape(note)}</em></h2>"
    return gr.HTML(text, elem_classes="rs-step")


def status(state: State, sentence: str) -> str:
    """Return the status line; it is read aloud when it changes."""
    return f"<p role='status' data-state='{state}'>{html.escape(sentence)}</p>"
