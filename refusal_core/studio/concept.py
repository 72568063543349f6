"""The concept: its preset, the folded table of pairs, what else is erased with it; and the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import gradio as gr

from refusal_core.errors import InputError
from refusal_core.settings import PhraseKind
from refusal_core.studio import texts
from refusal_core.studio.jobs import GLUE, QUICK, guarded
from refusal_core.studio.layout import Chip, card, heading, step_title
from refusal_core.studio.texts import PAIRS_HEAD, TEXT, escaped
from refusal_core.workbench.pairs import MAX_SHOWN_PAIRS, parse_pasted
from refusal_core.workbench.phrasing import MOST
from refusal_core.workbench.values import PairNote, Preset
from refusal_core.workbench.workbench import Workbench


def rows_of(table: Any) -> tuple[tuple[str, str], ...]:
    """Return the table's rows as pairs of text; rows that are wholly empty are left out."""
    cells = ([str(cell or "").strip() for cell in [*row, "", ""][:2]] for row in table or [])
    return tuple((unsafe, safe) for unsafe, safe in cells if unsafe or safe)


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


def build(workbench: Workbench, first: Preset) -> None:
    """Lay out the concept with a preset filled in; its pairs are folded, their differences in sight."""
    rows = [(pair.unsafe, pair.safe) for pair in first.concept.pairs]
    with card("concept-card"):
        step_title(1, "step_concept")
        gr.Dropdown(
            preset_choices(workbench, workbench.default_model), value=first.concept.name, show_label=False,
            label=TEXT["preset"], elem_id="preset",
        )  # fmt: skip
        gr.HTML(rows_message(workbench.check_pairs(rows)), elem_id="rows-state")
        with gr.Accordion(TEXT["pairs"], open=False, elem_id="pairs-more"):
            _pairs(rows)
        with gr.Accordion(TEXT["images"], open=True, visible=workbench.facts().takes_image, elem_id="images"):
            for key in ("images_unsafe", "images_safe"):
                kinds = [".png", ".jpg", ".jpeg", ".webp"]
                gr.File(label=TEXT[key], file_count="multiple", file_types=kinds, height=150, elem_id=key)
        _models(workbench)


def _pairs(rows: Sequence[tuple[str, str]]) -> None:
    gr.Dataframe(
        [list(row) for row in rows], headers=PAIRS_HEAD, datatype="str", type="array", column_count=2,
        interactive=True, wrap=True, column_widths=["50%", "50%"], label=TEXT["pairs"], show_label=False,
        buttons=[], max_height=900, elem_id="pairs",
    )  # fmt: skip
    with gr.Row():
        for key, elem_id in ROW_BUTTONS.items():
            later = {"interactive": False} if key == "undo_preset" else {}
            gr.Button(TEXT[key], elem_id=elem_id, size="sm", min_width=100, **later)  # type: ignore[arg-type]
    with gr.Accordion(TEXT["phrase"], open=False, elem_id="phrase-more"):
        about = {"label": TEXT["phrase_label"], "info": TEXT["phrase_info"]}
        gr.Textbox(max_length=MOST, elem_id="phrase", **about)  # type: ignore[arg-type]
        kinds = [(TEXT[f"kind_{kind}"], kind) for kind in get_args(PhraseKind)]
        gr.Dropdown(kinds, value="state", label=TEXT["phrase_kind"], elem_id="phrase-kind")
        gr.Button(TEXT["phrase_write"], size="sm", elem_id="phrase-write")
    with gr.Accordion(TEXT["paste"], open=False, elem_id="paste-more"):
        about = {"label": TEXT["paste_label"], "info": TEXT["paste_info"]}
        gr.Textbox(lines=3, max_length=20_000, elem_id="pasted", **about)  # type: ignore[arg-type]
        gr.Button(TEXT["paste_add"], size="sm", elem_id="paste-add")


def others(workbench: Workbench, first: Preset) -> None:
    """Lay out what else is erased with the concept."""
    choices = preset_choices(workbench, workbench.default_model)
    with gr.Accordion(TEXT["also"], open=False, elem_id="also-more"):
        rest = [choice for choice in choices if choice[1] != first.concept.name]
        gr.CheckboxGroup(rest, label=TEXT["also"], info=TEXT["also_info"], elem_id="also")
        about = {"label": TEXT["also_strength"], "info": TEXT["also_strength_info"]}
        gr.Textbox(max_length=80, elem_id="strengths", **about)  # type: ignore[arg-type]
        gr.Button(TEXT["cosines"], size="sm", elem_id="cosines-run")
        gr.HTML("", elem_id="cosines")


def _models(workbench: Workbench) -> None:
    with gr.Accordion(TEXT["model"], open=False, elem_id="model-more"):
        gr.Dropdown(
            list(workbench.model_names()), value=workbench.default_model, label=TEXT["model"],
            info=TEXT["model_info"], allow_custom_value=not workbench.only_bundled, elem_id="model",
        )  # fmt: skip
        with gr.Row():
            gr.Button(TEXT["model_look"], size="sm", elem_id="model-look", min_width=120)
            gr.Button(TEXT["model_load"], size="sm", elem_id="model-load", min_width=120)
        gr.HTML("", elem_id="model-state", elem_classes="rs-note")


ROW_BUTTONS = {
    "add_pair": "add-pair",
    "remove_pair": "remove-pair",
    "load_preset": "load-preset",
    "undo_preset": "undo-preset",
}


def join_rows(workbench: Workbench, part: dict[str, Any]) -> None:
    """Let the buttons under the table change its rows, and each change say what is to be said of them."""
    pairs, pasted, model, state = part["pairs"], part["pasted"], part["model"], part["rows-state"]

    def check(table: Any, name: str) -> tuple[str, str]:
        notes = workbench.check_pairs(rows_of(table)[:MAX_SHOWN_PAIRS], name)
        chip: Chip = "failed" if any(note.error for note in notes) else "ready"
        return rows_message(notes), heading("step_concept", chip)

    def add_row(table: Any) -> list[list[str]]:
        rows = [list(r) for r in table or []]
        return [*rows, ["", ""]] if len(rows) < MAX_SHOWN_PAIRS else rows

    def remove_row(table: Any, name: str) -> tuple[Any, ...]:
        rows = [list(r) for r in table or []][:-1] or [["", ""]]
        return (rows, *check(rows, name))

    @guarded
    def add_pasted(table: Any, text: str, name: str) -> tuple[Any, ...]:
        rows = [list(r) for r in rows_of(table)] + parse_pasted(text)
        if len(rows) > MAX_SHOWN_PAIRS:
            raise InputError(f"That makes {len(rows)} pairs; {MAX_SHOWN_PAIRS} is the table's limit.")
        return (rows, *check(rows, name), "")

    checked = [state, part["title-1"]]
    pairs.input(check, [pairs, model], checked, trigger_mode="always_last", **GLUE)
    part["add-pair"].click(add_row, pairs, pairs, **GLUE)
    part["remove-pair"].click(remove_row, [pairs, model], [pairs, *checked], **GLUE)
    part["paste-add"].click(add_pasted, [pairs, pasted, model], [pairs, *checked, pasted], **QUICK)
