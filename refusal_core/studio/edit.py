"""Step 2: method, sites, layers, rank, strength; the spectrum and the map of separation beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from refusal_core.settings import CaptureSettings, EditSettings, SamplingSettings, SubspaceSettings, knobs
from refusal_core.studio import texts
from refusal_core.studio.concept import FIRST
from refusal_core.studio.frame import card, message, step_title
from refusal_core.studio.jobs import GLUE
from refusal_core.studio.map import PICK
from refusal_core.studio.texts import TEXT
from refusal_core.workbench import Estimate, Workbench

MAX_RANK = 32
METHODS = ("whitened", "cpca", "pca", "rv")


@dataclass(frozen=True, slots=True)
class EditStep:
    """The components of step 2 that other steps read or change."""

    title: gr.HTML
    method: gr.Radio
    sites: gr.CheckboxGroup
    first: gr.Slider
    last: gr.Slider
    rank: gr.Slider
    strength: gr.Slider
    anchor: gr.Radio
    alpha: gr.Slider
    relative: gr.Checkbox
    center: gr.Checkbox
    shrinkage: gr.Slider
    pool: gr.Dropdown
    timesteps: gr.Slider
    trajectory: gr.Radio
    spectrum_site: gr.Dropdown
    spectrum: gr.HTML
    spectrum_read: gr.Button
    map: gr.HTML
    map_make: gr.Button
    table: gr.Dataframe
    notes: gr.Markdown

    @property
    def settings(self) -> tuple[gr.components.Component, ...]:
        """The components whose change makes a result stale."""
        return (
            self.method, self.sites, self.first, self.last, self.rank, self.strength, self.anchor,
            self.alpha, self.relative, self.center, self.shrinkage, self.pool, self.timesteps,
            self.trajectory,
        )  # fmt: skip


def knob(settings: type, name: str) -> dict[str, Any]:
    """Return a slider's range from the settings' field metadata, and its help from the texts."""
    meta = next(k for k in knobs(settings) if k.name == name)
    found = {"minimum": meta.low, "maximum": meta.high, "step": meta.step}
    return (
        found
        if name == "seed"
        else found | {"label": TEXT[name], "info": TEXT[f"{name}_info"], "elem_id": name}
    )


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
    first_preset = next((p for p in presets if p.concept.name == FIRST), presets[0])
    chosen = workbench.preset_request(first_preset, workbench.default_model)
    last_layer = workbench.layer_count() - 1
    with card("edit-card"):
        title = step_title(2, "step_edit")
        method = gr.Radio(
            [(TEXT[f"method_{name}"], name) for name in METHODS],
            value=chosen.method,
            label=TEXT["method"],
            elem_id="method",
        )
        about = gr.HTML(_about(chosen.method), elem_id="method-info", elem_classes="rs-note")
        sites = gr.CheckboxGroup(
            list(workbench.site_kinds()),
            value=list(chosen.sites),
            label=TEXT["sites"],
            info=TEXT["sites_info"],
            elem_id="sites",
        )
        with gr.Row():
            first = gr.Slider(0, last_layer, 0, step=1, label=TEXT["layer_from"], elem_id="first-layer")
            last = gr.Slider(0, last_layer, last_layer, step=1, label=TEXT["layer_to"], elem_id="last-layer")
        with gr.Row():
            rank = gr.Slider(value=chosen.rank, **knob(SubspaceSettings, "rank") | {"maximum": MAX_RANK})
            strength = gr.Slider(value=chosen.strength, **knob(EditSettings, "strength"))
        anchor = gr.Radio(
            [(TEXT["anchor_zero"], "zero"), (TEXT["anchor_mean"], "mean")],
            value=chosen.anchor,
            label=TEXT["anchor"],
            info=TEXT["anchor_info"],
            elem_id="anchor",
        )
        with gr.Accordion(TEXT["more"], open=False, elem_id="edit-more"):
            more = _more()
        views = _views(workbench)
    method.input(_about, method, about, **GLUE)
    first.release(lambda a, b: max(a, b), [first, last], last, **GLUE)
    last.release(lambda a, b: min(a, b), [first, last], first, **GLUE)
    return EditStep(title, method, sites, first, last, rank, strength, anchor, *more, *views)


def site_choices(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return sites for a menu: the denoiser's own name, which all share, is left out where there is one."""
    first = {name.partition(".")[0] for name in names}
    return [(name.partition(".")[2] if len(first) == 1 else name, name) for name in names]


def _about(method: str) -> str:
    return f"<p>{TEXT[f'about_{method}']}</p>"


def _more() -> tuple[Any, ...]:
    subspace, capture = SubspaceSettings(), CaptureSettings()
    with gr.Row():
        alpha = gr.Slider(value=subspace.alpha, **knob(SubspaceSettings, "alpha") | {"maximum": 10.0})
        shrinkage = gr.Slider(
            value=subspace.shrinkage,
            **knob(SubspaceSettings, "shrinkage") | {"maximum": 1.0, "minimum": 0.001},
        )
    relative = gr.Checkbox(subspace.relative, label=TEXT["relative"], elem_id="relative")
    center = gr.Checkbox(subspace.center, label=TEXT["center"], elem_id="center")
    with gr.Row():
        pool = gr.Dropdown(
            ["frame", "timestep", "pair", "token"],
            value=capture.pool,
            label=TEXT["pool"],
            info=TEXT["pool_info"],
            elem_id="pool",
        )
        timesteps = gr.Slider(value=capture.timesteps, **knob(CaptureSettings, "timesteps") | {"maximum": 20})
    trajectory = gr.Radio(
        [(TEXT["trajectory_shared"], "shared"), (TEXT["trajectory_own"], "own")],
        value=capture.trajectory,
        label=TEXT["trajectory"],
        elem_id="trajectory",
    )
    return alpha, relative, center, shrinkage, pool, timesteps, trajectory


def _views(workbench: Workbench) -> tuple[Any, ...]:
    gr.HTML(f"<h3>{TEXT['spectrum']}</h3>", elem_classes="rs-sub")
    with gr.Row(equal_height=True):
        names = site_choices(workbench.site_names())
        site = gr.Dropdown(
            names, value=names[0][1], show_label=False, label="site", container=False, elem_id="site", scale=3
        )
        read = gr.Button(TEXT["spectrum_read"], size="sm", elem_id="spectrum-read", scale=2, min_width=140)
    spectrum = gr.HTML(message("spectrum_wait"), elem_id="spectrum")
    gr.HTML(f"<h3>{TEXT['map']}</h3>", elem_classes="rs-sub")
    make = gr.Button(TEXT["map_make"], size="sm", elem_id="map-make")
    heat = gr.HTML(message("map_none"), elem_id="map", js_on_load=PICK)
    notes = gr.Markdown("", elem_id="notes", elem_classes="rs-note")
    with gr.Accordion(TEXT["figures"], open=False, elem_id="figures-more"):
        table = gr.Dataframe(
            headers=texts.FIGURES_HEAD, type="array", interactive=False, buttons=[], elem_id="figures"
        )
    return site, spectrum, read, heat, make, table, notes


def seed_range() -> dict[str, Any]:
    """Return the range of seeds."""
    found = knob(SamplingSettings, "seed")
    return {"minimum": found["minimum"], "maximum": found["maximum"]}
