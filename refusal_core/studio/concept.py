"""Step 1: the preset and the table of pairs."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from refusal_core.studio import texts
from refusal_core.studio.frame import card, step_title
from refusal_core.workbench import MAX_SHOWN_PAIRS, Workbench

GLUE = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}


@dataclass(frozen=True, slots=True)
class ConceptStep:
    """The components of step 1 that other steps read."""

    preset: gr.Dropdown
    pairs: gr.Dataframe
    rows_state: gr.HTML
    load: gr.Button


def rows_of(table: Any) -> tuple[tuple[str, str], ...]:
    """Return the table's rows as pairs of text; rows that are wholly empty are left out."""
    found = []
    for row in table or []:
        unsafe, safe = (str(cell or "").strip() for cell in [*row, "", ""][:2])
        if unsafe or safe:
            found.append((unsafe, safe))
    return tuple(found)


def rows_message(sentences: Sequence[str | None]) -> str:
    """Return the state of the rows as HTML; prompts inside sentences are escaped."""
    bad = [(i, s) for i, s in enumerate(sentences, start=1) if s]
    if not bad:
        return f"<p class='good'>{html.escape(texts.PAIRS_GOOD.format(count=len(sentences)))}</p>"
    items = "".join(f"<li>Row {i}: {html.escape(s)}</li>" for i, s in bad)
    return f"<ul class='bad' role='alert'>{items}</ul>"


def build(workbench: Workbench) -> ConceptStep:
    """Lay out step 1, with the first preset filled in."""
    presets = {p.concept.name: p for p in workbench.presets()}
    first = presets.get("fire") or next(iter(presets.values()))
    with card("concept-card"):
        step_title(1, texts.STEP_CONCEPT)
        preset = gr.Dropdown(
            [(f"{p.title}: {p.category}", name) for name, p in presets.items()],
            value=first.concept.name,
            label=texts.PRESET,
            info=texts.PRESET_INFO,
            elem_id="preset",
        )
        pairs = gr.Dataframe(
            value=[[p.unsafe, p.safe] for p in first.concept.pairs],
            headers=[texts.UNSAFE, texts.SAFE],
            datatype="str",
            type="array",
            column_count=2,
            interactive=True,
            wrap=True,
            column_widths=["50%", "50%"],
            label=texts.PAIRS,
            show_label=True,
            buttons=[],
            max_height=900,
            elem_id="pairs",
        )
        rows_state = gr.HTML(rows_message([None] * len(first.concept.pairs)), elem_id="rows-state")
        with gr.Row():
            add = gr.Button(texts.ADD_PAIR, elem_id="add-pair", size="sm", min_width=100)
            remove = gr.Button(texts.REMOVE_PAIR, elem_id="remove-pair", size="sm", min_width=100)
            load = gr.Button(texts.LOAD_PRESET, elem_id="load-preset", size="sm", min_width=100)

    def check(table: Any) -> str:
        return rows_message(workbench.check_pairs(rows_of(table)))

    def add_row(table: Any) -> list[list[str]]:
        rows = [list(r) for r in table or []]
        return [*rows, ["", ""]] if len(rows) < MAX_SHOWN_PAIRS else rows

    def remove_row(table: Any) -> tuple[list[list[str]], str]:
        rows = [list(r) for r in table or []][:-1] or [["", ""]]
        return rows, check(rows)

    pairs.input(check, pairs, rows_state, trigger_mode="always_last", **GLUE)
    add.click(add_row, pairs, pairs, **GLUE)
    remove.click(remove_row, pairs, [pairs, rows_state], **GLUE)
    return ConceptStep(preset, pairs, rows_state, load)
