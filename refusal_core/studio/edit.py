"""Step 2: method, sites, layers, rank, strength, and how well each layer separates."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from refusal_core.settings import EditSettings, SubspaceSettings
from refusal_core.studio import texts
from refusal_core.studio.bars import bars
from refusal_core.studio.concept import GLUE
from refusal_core.studio.frame import card, step_title
from refusal_core.workbench import Estimate, Workbench

MAX_RANK = 32


@dataclass(frozen=True, slots=True)
class EditStep:
    """The components of step 2 that other steps read."""

    method: gr.Radio
    sites: gr.CheckboxGroup
    first: gr.Slider
    last: gr.Slider
    rank: gr.Slider
    strength: gr.Slider
    anchor: gr.Radio
    estimate: gr.Button
    plot: gr.HTML
    table: gr.Dataframe
    notes: gr.Markdown

    @property
    def settings(self) -> tuple[gr.components.Component, ...]:
        """The components whose change makes a result stale."""
        return self.method, self.sites, self.first, self.last, self.rank, self.strength, self.anchor


def _knob(settings: type, name: str) -> dict[str, Any]:
    """Return a slider's range and help from the settings' field metadata."""
    item = next(f for f in fields(settings) if f.name == name)
    meta = item.metadata
    return {"minimum": meta["low"], "maximum": meta["high"], "step": meta["step"], "info": meta["help"]}


def rows_of(found: Estimate) -> list[list[Any]]:
    """Return the table's rows, one a site."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    return [
        [r.site, number(r.auc), number(r.d_prime), f"{r.kept_share:.1%}", r.rank_used] for r in found.rows
    ]


def build(workbench: Workbench) -> EditStep:
    """Lay out step 2 with the first preset's settings."""
    presets = workbench.presets()
    chosen = next((p for p in presets if p.concept.name == "fire"), presets[0]).recommended
    last_layer = workbench.layer_count - 1
    with card("edit-card"):
        step_title(2, texts.STEP_EDIT)
        method = gr.Radio(
            [(label, name) for name, label in texts.METHODS.items()],
            value=chosen.method,
            label=texts.METHOD,
            elem_id="method",
        )
        method_info = gr.Markdown(texts.METHOD_INFO[chosen.method], elem_id="method-info")
        sites = gr.CheckboxGroup(
            list(workbench.site_kinds),
            value=list(chosen.sites),
            label=texts.SITES,
            info=texts.SITES_INFO,
            elem_id="sites",
        )
        with gr.Row():
            first = gr.Slider(0, last_layer, 0, step=1, label=texts.LAYER_FROM, elem_id="first-layer")
            last = gr.Slider(0, last_layer, last_layer, step=1, label=texts.LAYER_TO, elem_id="last-layer")
        with gr.Row():
            rank_range = _knob(SubspaceSettings, "rank") | {"maximum": MAX_RANK}
            rank = gr.Slider(value=chosen.rank, label=texts.RANK, elem_id="rank", **rank_range)
            strength = gr.Slider(
                value=chosen.strength,
                label=texts.STRENGTH,
                elem_id="strength",
                **_knob(EditSettings, "strength"),
            )
        anchor = gr.Radio(
            [(label, name) for name, label in texts.ANCHORS.items()],
            value=chosen.anchor,
            label=texts.ANCHOR,
            info=texts.ANCHOR_INFO,
            elem_id="anchor",
        )
        estimate = gr.Button(texts.ESTIMATE, elem_id="estimate")
        plot = gr.HTML(bars(None), elem_id="separation")
        notes = gr.Markdown("", elem_id="notes", elem_classes="rs-note")
        with gr.Accordion(texts.DETAILS, open=False):
            table = gr.Dataframe(
                headers=texts.KEPT_HEADERS, type="array", interactive=False, buttons=[], elem_id="figures"
            )
    method.input(lambda name: texts.METHOD_INFO[name], method, method_info, **GLUE)
    first.release(lambda a, b: max(a, b), [first, last], last, **GLUE)
    last.release(lambda a, b: min(a, b), [first, last], first, **GLUE)
    return EditStep(method, sites, first, last, rank, strength, anchor, estimate, plot, table, notes)
