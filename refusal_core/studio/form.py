"""The workbench's form as one value, in both directions, whatever page asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from refusal_core.errors import InputError
from refusal_core.settings import SamplingSettings, recipe_knobs, show_layers
from refusal_core.studio.concept import preset_choices, rows_message, rows_of
from refusal_core.studio.edit import LAYERS, site_choices
from refusal_core.studio.jobs import Values
from refusal_core.studio.layout import heading, status
from refusal_core.studio.texts import TEXT
from refusal_core.workbench.pairs import Row
from refusal_core.workbench.values import EditRequest
from refusal_core.workbench.workbench import Workbench

KNOBS = {knob.name: knob for knob in recipe_knobs()}
EDIT = ("model", "preset", "pairs", "images_unsafe", "images_safe", "also", "strengths", *LAYERS)


@dataclass(frozen=True, slots=True)
class Form:
    """The components of the three steps, by the ids that they have in the page."""

    workbench: Workbench
    parts: dict[str, Any]  # whose events Gradio makes at run time

    def __getitem__(self, name: str) -> Any:
        return self.parts[name]

    def parts_of(self, *names: str) -> list[Any]:
        """Return components by their ids."""
        return [self[name] for name in names]

    @property
    def settings(self) -> dict[str, Any]:
        """The components of the settings, by their knobs' names; layers have two of their own."""
        return {name: self[name] for name in KNOBS if name != "layers"}

    @property
    def inputs(self) -> set[Any]:
        """The components that decide an edit."""
        return {*self.parts_of(*EDIT), *self.settings.values()}

    @property
    def compared(self) -> set[Any]:
        """Those that decide a comparison."""
        return self.inputs | set(self.parts_of("prompt", "seed", "start-image", "owner"))

    def request(self, values: Values) -> EditRequest:
        """Return the edit that the form asks for; raises InputError where it is none."""
        model, preset, table, unsafe, safe, also, strengths, first, last = (values[self[n]] for n in EDIT)
        chosen: dict[str, object] = {name: _given(name, values[part]) for name, part in self.settings.items()}
        chosen["layers"] = tuple(range(int(first), int(last) + 1))
        rows = _with_images(rows_of(table), unsafe, safe)
        return self.workbench.request(preset, str(model or ""), rows, chosen, _further(also, strengths))

    def sampling(self, values: Values) -> SamplingSettings:
        """Return the seed, and the image to start from, of what is compared."""
        image, seed = values[self["start-image"]], values[self["seed"]]
        if seed is None:  # not 0 in its place: the video would be another than the field says
            raise InputError("The seed is empty; write a whole number.")
        return SamplingSettings(int(seed), image=Path(image) if image else None)

    @property
    def kept_parts(self) -> list[Any]:
        """The components that ``filled`` sets and that hold a value to go back to."""
        return [*self.parts_of("preset", "pairs", "also", "strengths", *LAYERS), *self.settings.values()]

    @property
    def filled_parts(self) -> list[Any]:
        """The components that ``filled`` sets."""
        return [*self.kept_parts, *self.parts_of("rows-state", "site", "images", "start-image")]

    def filled(self, request: EditRequest) -> Values:
        """Return what the form shows of an edit, whatever it was before, and offers for its model."""
        model, preset = request.model, request.preset
        facts, values = self.workbench.facts(model), request.recipe.values()
        kinds = [kind for kind in request.recipe.capture.kinds if kind in facts.site_kinds]
        layers, last = request.recipe.capture.layers or range(facts.layer_count), facts.layer_count - 1
        presets, sites = preset_choices(self.workbench, model), site_choices(facts.site_names)
        pairs = [(pair.unsafe, pair.safe) for pair in request.recipe.concept.pairs]
        further = [recipe.concept.name for recipe in request.further]
        return {
            **self.set(values),
            self["preset"]: gr.Dropdown(presets, value=preset),
            self["pairs"]: [list(pair) for pair in pairs],
            self["rows-state"]: rows_message(self.workbench.check_pairs(pairs, model)),
            self["also"]: gr.CheckboxGroup([made for made in presets if made[1] != preset], value=further),
            self["strengths"]: ", ".join(f"{recipe.edit.strength:g}" for recipe in request.further),
            self["sites"]: gr.CheckboxGroup(list(facts.site_kinds), value=kinds),
            self["first-layer"]: gr.Slider(maximum=last, value=layers[0]),
            self["last-layer"]: gr.Slider(maximum=last, value=layers[-1]),
            self["site"]: gr.Dropdown(sites, value=sites[0][1]),
            self["images"]: gr.Accordion(visible=facts.takes_image),
            self["start-image"]: gr.Image(visible=facts.takes_image),
        }

    def filling(self, undo: gr.State) -> tuple[set[Any], list[Any]]:
        """Return the inputs and the outputs of what fills the form and can be undone."""
        outputs = [*self.filled_parts, *self.parts_of("prompt", "undo-preset"), *self.stale(), undo]
        return {*self.kept_parts, *self.parts_of("prompt", "model"), undo}, outputs

    def undoing(self, undo: gr.State, values: Values, old: str, new: str) -> Values:
        """Return what brings back the form as it was, with its old preset, once it is filled with another."""
        before = {part.elem_id: values[part] for part in (*self.kept_parts, self["prompt"])}
        known = {preset.concept.name for preset in self.workbench.presets(values[self["model"]])}
        state = {"now": new, "before": {**before, "preset": old}}
        return {self["undo-preset"]: gr.Button(interactive=old in known), undo: state}  # of no other model

    def set(self, values: Mapping[str, object]) -> Values:
        """Return what the components of these settings show."""
        return {self[name]: _shown(name, value) for name, value in values.items() if name != "layers"}

    def stale(self) -> Values:
        """Return the status line and the headings of a changed form."""
        return {
            self["status"]: status("stale", "stale"),
            self["title-2"]: heading("step_edit", "stale"),
            self["title-3"]: heading("step_compare", "stale", TEXT["step_compare_note"]),
        }


def _given(name: str, value: object) -> object:
    """Return a setting as its component holds it; what is empty stands for the model's own."""
    return None if KNOBS[name].optional and value in ([], "") else value


def _shown(name: str, value: object) -> object:
    """Return a setting as its component shows it."""
    if KNOBS[name].input == "layers":
        return show_layers(value)  # type: ignore[arg-type]
    return list(value) if isinstance(value, tuple) else value


def _with_images(
    rows: tuple[tuple[str, str], ...], unsafe: list[str] | None, safe: list[str] | None
) -> tuple[Row, ...]:
    """Return the rows with the images of each, in their order, as far as there are some."""
    sides = [[Path(path) for path in side or []] + [None] * len(rows) for side in (unsafe, safe)]
    return tuple((*row, sides[0][i], sides[1][i]) for i, row in enumerate(rows))


def _further(names: list[str] | None, strengths: str | None) -> list[tuple[str, float]]:
    """Return the presets that are erased at the same time, each with its strength."""
    given = [piece.strip() for piece in (strengths or "").split(",")]
    further = []
    for place, name in enumerate(names or []):
        text = given[place] if place < len(given) else ""
        try:
            further.append((name, float(text) if text else 1.0))
        except ValueError as e:
            raise InputError(f"'{text[:20]}' is no strength; write numbers with commas between.") from e
    return further
