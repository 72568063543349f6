"""Step 1: the model, the preset, the table of pairs, and what else is erased with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from refusal_core.errors import InputError
from refusal_core.studio import texts
from refusal_core.studio.frame import Chip, card, heading, step_title
from refusal_core.studio.jobs import GLUE, QUICK, shown
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench import MAX_SHOWN_PAIRS, PairNote, Workbench, parse_pasted

FIRST = "fire"  # the preset that is there on a fresh page


@dataclass(frozen=True, slots=True)
class ConceptStep:
    """The components of step 1 that other steps read or change."""

    title: gr.HTML
    model: gr.Dropdown
    look: gr.Button
    load_model: gr.Button
    model_state: gr.HTML
    preset: gr.Dropdown
    pairs: gr.Dataframe
    rows_state: gr.HTML
    load: gr.Button
    images: gr.Accordion
    unsafe_images: gr.File
    safe_images: gr.File
    also: gr.CheckboxGroup
    strengths: gr.Textbox
    cosines_run: gr.Button
    cosines: gr.HTML


def rows_of(table: Any) -> tuple[tuple[str, str], ...]:
    """Return the table's rows as pairs of text; rows that are wholly empty are left out."""
    found = []
    for row in table or []:
        unsafe, safe = (str(cell or "").strip() for cell in [*row, "", ""][:2])
        if unsafe or safe:
            found.append((unsafe, safe))
    return tuple(found)


def rows_message(notes: Sequence[PairNote]) -> str:
    """Return the state of the rows as HTML: what differs in each, errors and warnings."""
    items = []
    for row, note in enumerate(notes, start=1):
        said = note.error or note.warning
        kind = "bad" if note.error else "odd" if note.warning else "good"
        sentence = f"<small>{escaped(texts.ROW.format(row=row, sentence=said))}</small>" if said else ""
        items.append(f"<li class='{kind}'>{_differing(note)}{sentence}</li>")
    bad = [note for note in notes if note.error]
    good = "" if bad else f"<p class='good'>{escaped(texts.PAIRS_GOOD.format(count=len(notes)))}</p>"
    return f"{good}<ol {'role=alert' if bad else ''}>{''.join(items)}</ol>"


def _differing(note: PairNote) -> str:
    """Return the words that one side has and the other has not."""
    sides = []
    for words in (note.unsafe, note.safe):
        parts = [escaped(word) for word, differs in words if differs]
        sides.append(f"<mark>{' '.join(parts)}</mark>" if parts else "")
    return " / ".join(side for side in sides if side) or "="


def preset_choices(workbench: Workbench, model: str) -> list[tuple[str, str]]:
    """Return the titles and names of a model's presets."""
    return [(f"{p.title}: {p.category}", p.concept.name) for p in workbench.presets(model)]


def build(workbench: Workbench) -> ConceptStep:
    """Lay out step 1, with the first preset filled in."""
    presets = {p.concept.name: p for p in workbench.presets()}
    first = presets.get(FIRST) or next(iter(presets.values()))
    rows = [(p.unsafe, p.safe) for p in first.concept.pairs]
    with card("concept-card"):
        title = step_title(1, "step_concept")
        with gr.Row(equal_height=False):
            model = gr.Dropdown(
                list(workbench.model_names()),
                value=workbench.default_model,
                label=TEXT["model"],
                info=TEXT["model_info"],
                allow_custom_value=not workbench.only_bundled,
                elem_id="model",
                scale=3,
                min_width=220,
            )
            with gr.Column(scale=1, min_width=130, elem_classes="rs-tight"):
                look = gr.Button(TEXT["model_look"], size="sm", elem_id="model-look")
                load_model = gr.Button(TEXT["model_load"], size="sm", elem_id="model-load")
        model_state = gr.HTML("", elem_id="model-state", elem_classes="rs-note")
        preset = gr.Dropdown(
            preset_choices(workbench, workbench.default_model),
            value=first.concept.name,
            label=TEXT["preset"],
            info=TEXT["preset_info"],
            elem_id="preset",
        )
        pairs = _table(rows)
        rows_state = gr.HTML(rows_message(workbench.check_pairs(rows)), elem_id="rows-state")
        load = _row_buttons(workbench, title, pairs, rows_state, model)
        takes_image = workbench.takes_image()
        with gr.Accordion(TEXT["images"], open=True, visible=takes_image, elem_id="images") as images:
            unsafe_images = _files("images_unsafe")
            safe_images = _files("images_safe")
        with gr.Accordion(TEXT["also"], open=False, elem_id="also-more"):
            others = [c for c in preset_choices(workbench, workbench.default_model) if c[1] != FIRST]
            also = gr.CheckboxGroup(others, label=TEXT["also"], info=TEXT["also_info"], elem_id="also")
            strengths = gr.Textbox(
                label=TEXT["also_strength"],
                info=TEXT["also_strength_info"],
                max_length=80,
                elem_id="strengths",
            )
            cosines_run = gr.Button(TEXT["cosines"], size="sm", elem_id="cosines-run")
            cosines = gr.HTML("", elem_id="cosines")
    return ConceptStep(
        title, model, look, load_model, model_state, preset, pairs, rows_state, load, images,
        unsafe_images, safe_images, also, strengths, cosines_run, cosines,
    )  # fmt: skip


def _table(rows: Sequence[tuple[str, str]]) -> gr.Dataframe:
    return gr.Dataframe(
        value=[list(row) for row in rows],
        headers=texts.PAIRS_HEAD,
        datatype="str",
        type="array",
        column_count=2,
        interactive=True,
        wrap=True,
        column_widths=["50%", "50%"],
        label=TEXT["pairs"],
        show_label=True,
        buttons=[],
        max_height=900,
        elem_id="pairs",
    )


def _files(key: str) -> gr.File:
    kinds = [".png", ".jpg", ".jpeg", ".webp"]
    return gr.File(label=TEXT[key], file_count="multiple", file_types=kinds, height=150, elem_id=key)


def _row_buttons(
    workbench: Workbench, title: gr.HTML, pairs: gr.Dataframe, rows_state: gr.HTML, model: gr.Dropdown
) -> gr.Button:
    """Add the buttons under the table; return the one that loads the preset again."""
    with gr.Row():
        add = gr.Button(TEXT["add_pair"], elem_id="add-pair", size="sm", min_width=100)
        remove = gr.Button(TEXT["remove_pair"], elem_id="remove-pair", size="sm", min_width=100)
        load = gr.Button(TEXT["load_preset"], elem_id="load-preset", size="sm", min_width=100)
    with gr.Accordion(TEXT["paste"], open=False, elem_id="paste-more"):
        pasted = gr.Textbox(
            label=TEXT["paste_label"], info=TEXT["paste_info"], lines=3, max_length=20_000, elem_id="pasted"
        )
        paste = gr.Button(TEXT["paste_add"], size="sm", elem_id="paste-add")

    def check(table: Any, name: str) -> tuple[str, str]:
        notes = workbench.check_pairs(rows_of(table)[:MAX_SHOWN_PAIRS], name)
        chip: Chip = "failed" if any(note.error for note in notes) else "ready"
        return rows_message(notes), heading(1, "step_concept", chip)

    def add_row(table: Any) -> list[list[str]]:
        rows = [list(r) for r in table or []]
        return [*rows, ["", ""]] if len(rows) < MAX_SHOWN_PAIRS else rows

    def remove_row(table: Any, name: str) -> tuple[Any, ...]:
        rows = [list(r) for r in table or []][:-1] or [["", ""]]
        return (rows, *check(rows, name))

    def add_pasted(table: Any, text: str, name: str) -> tuple[Any, ...]:
        try:
            rows = [list(r) for r in rows_of(table)] + parse_pasted(text)
            if len(rows) > MAX_SHOWN_PAIRS:
                raise InputError(f"That makes {len(rows)} pairs; {MAX_SHOWN_PAIRS} is the table's limit.")
        except InputError as e:
            raise shown(e) from e
        return (rows, *check(rows, name), "")

    pairs.input(check, [pairs, model], [rows_state, title], trigger_mode="always_last", **GLUE)
    add.click(add_row, pairs, pairs, **GLUE)
    remove.click(remove_row, [pairs, model], [pairs, rows_state, title], **GLUE)
    paste.click(add_pasted, [pairs, pasted, model], [pairs, rows_state, title, pasted], **QUICK)
    return load
