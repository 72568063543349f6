"""The settings of an edit, made from their knobs: two in sight; the others, spectrum and map folded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import groupby
from typing import Any

import gradio as gr

from refusal_core.settings import LAST_SEED, Knob, recipe_knobs
from refusal_core.studio.charts import PICK
from refusal_core.studio.jobs import GLUE
from refusal_core.studio.layout import card, message, parts, step_title
from refusal_core.studio.texts import FIGURES_HEAD, TEXT
from refusal_core.workbench.values import Estimate, ModelFacts

NUMBERS = ("whole", "number")
IN_SIGHT = ("rank", "strength")  # all others are an expert's
LAYERS = ("first-layer", "last-layer")  # one setting, two sliders


def widget(knob: Knob, value: Any, **more: Any) -> Any:  # whose events Gradio makes at run time
    """Return the component that takes a setting, with its label, its help and its range.

    Args:
        knob: the setting.
        value: what it starts with.
        more: of Gradio.
    """
    label = f"{knob.label} ({knob.symbol})" if knob.symbol else knob.label
    about = {"label": label, "info": knob.help, "elem_id": knob.name, **more}
    choices = [(TEXT.get(f"{knob.name}_{choice}", choice), choice) for choice in knob.choices]
    # A slider cannot be empty: it would ask for its lowest number where the model's own is meant.
    if knob.input in NUMBERS and (knob.high or 0) < LAST_SEED and not knob.optional:
        low, high = knob.usual or (knob.low or 0, knob.high or 0)
        return gr.Slider(low, high, value, step=knob.step, **about)
    if knob.input in NUMBERS:
        precision = 0 if knob.input == "whole" else None
        return gr.Number(value, minimum=knob.low, maximum=knob.high, precision=precision, **about)
    if knob.input == "choice":
        return gr.Radio(choices, value=value, **about)
    if knob.input == "choices":
        return gr.CheckboxGroup(choices, value=list(value or ()), **about)
    if knob.input == "yes-no":
        return gr.Checkbox(value, **about)
    return gr.Textbox("" if value is None else str(value), max_length=200, **about)


def rows_of(estimate: Estimate) -> list[list[Any]]:
    """Return the table's rows, one a site."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    return [
        [r.site, number(r.auc), number(r.d_prime), f"{r.kept_share:.1%}", r.rank_used] for r in estimate.rows
    ]


def build(facts: ModelFacts, values: dict[str, object], more: Callable[[], None]) -> None:
    """Lay out the settings for a model, as its first preset has them; ``more`` adds to the expert's."""
    # The method comes first: the others hang on it.
    knobs = sorted(recipe_knobs(), key=lambda knob: knob.name != "method")
    seen = [knob for knob in knobs if knob.name in IN_SIGHT]
    with card("edit-card"):
        step_title(2, "step_edit")
        for knob in seen:
            widget(knob, values[knob.name])
        with gr.Accordion(TEXT["expert"], open=False, elem_id="expert"):
            _add([knob for knob in knobs if not knob.expert and knob not in seen], facts, values)
            with gr.Accordion(TEXT["more"], open=False, elem_id="edit-more"):
                _add([knob for knob in knobs if knob.expert], facts, values)
            more()
            _views(facts.site_names)
    made = parts()
    first, last = (made[name] for name in LAYERS)
    made["method"].input(_about, made["method"], made["method-info"], **GLUE)
    first.release(lambda a, b: max(a, b), [first, last], last, **GLUE)
    last.release(lambda a, b: min(a, b), [first, last], first, **GLUE)


def _add(knobs: Sequence[Knob], facts: ModelFacts, values: dict[str, object]) -> None:
    """Lay out settings, sliders that follow each other in one row."""
    for kind, group in groupby(knobs, key=lambda knob: "number" if knob.input in NUMBERS else knob.name):
        with gr.Row() if kind in ("number", "layers") else nullcontext():
            for knob in group:
                if knob.name == "layers":
                    end = facts.layer_count - 1
                    for elem_id, at in zip(LAYERS, (0, end), strict=True):
                        gr.Slider(0, end, at, step=1, label=TEXT[elem_id], elem_id=elem_id)
                    continue
                offered = facts.site_kinds if knob.name == "sites" else knob.choices
                widget(replace(knob, choices=offered), values[knob.name])
                if knob.name == "method":
                    gr.HTML(_about(str(values["method"])), elem_id="method-info", elem_classes="rs-note")


def _about(method: str) -> str:
    return f"<p>{TEXT.get(f'about_{method}', '')}</p>"


def site_choices(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return sites for a menu: the denoiser's own name, which all share, is left out where there is one."""
    first = {name.partition(".")[0] for name in names}
    return [(name.partition(".")[2] if len(first) == 1 else name, name) for name in names]


def _views(site_names: Sequence[str]) -> None:
    gr.HTML(f"<h3>{TEXT['spectrum']}</h3>", elem_classes="rs-sub")
    names = site_choices(site_names)
    with gr.Row(equal_height=True):
        gr.Dropdown(
            names, value=names[0][1], show_label=False, label="site", container=False, elem_id="site", scale=3
        )
        gr.Button(TEXT["spectrum_read"], size="sm", elem_id="spectrum-read", scale=2, min_width=140)
    gr.HTML(message("spectrum_wait"), elem_id="spectrum")
    gr.HTML(f"<h3>{TEXT['map']}</h3>", elem_classes="rs-sub")
    gr.Button(TEXT["map_make"], size="sm", elem_id="map-make")
    gr.HTML(message("map_none"), elem_id="map", js_on_load=PICK)
    gr.Markdown("", elem_id="notes", elem_classes="rs-note")
    with gr.Accordion(TEXT["figures"], open=False, elem_id="figures-more"):
        gr.Dataframe(headers=FIGURES_HEAD, type="array", interactive=False, buttons=[], elem_id="figures")
