"""Grids of settings: every combination of methods, sites, layers, ranks, strengths and the rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from refusal_core.capturing import capture
from refusal_core.concepts import Concept, Preset
from refusal_core.directions import Estimator
from refusal_core.edit import make_edit
from refusal_core.errors import InputError
from refusal_core.evaluate.methods.treatments import EDIT, Planned, Treatment, treatment_key
from refusal_core.models.model import Model
from refusal_core.progress import Progress
from refusal_core.recipe import Recipe, plain_recipe
from refusal_core.settings import (
    SITE_KINDS,
    WHITENED,
    Anchor,
    CaptureSettings,
    EditSettings,
    Method,
    SiteKind,
    SubspaceSettings,
    parse_layers,
    recipe_knobs,
)

MAX_POINTS = 2000
KNOBS = {  # the setting of each list but the layers, of which the model says how many there are
    "methods": "method",
    "sites": "sites",
    "ranks": "rank",
    "strengths": "strength",
    "alphas": "alpha",
    "anchors": "anchor",
    "shrinkages": "shrinkage",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One combination."""

    method: Method
    sites: tuple[SiteKind, ...]
    layers: str
    rank: int
    strength: float
    alpha: float
    anchor: Anchor
    shrinkage: float

    @property
    def name(self) -> str:
        """What it is called in tables: only settings that matter for its method."""
        rank = "" if self.method == "rv" else f" k={self.rank}"
        alpha = f" a={self.alpha:g}" if self.method == "cpca" else ""
        shrinkage = f" s={self.shrinkage:g}" if self.method in WHITENED else ""
        where = f"{'+'.join(self.sites)} {self.layers}"
        return f"{self.method}{rank}{alpha}{shrinkage} at {where}, {self.strength:g} to {self.anchor}"

    def row(self) -> dict[str, Any]:
        """Return the combination as plain columns."""
        return asdict(self) | {"sites": "+".join(self.sites)}


@dataclass(frozen=True, slots=True)
class Grid:
    """The values of each setting, in the order of a point's; a point takes one of each."""

    methods: tuple[Method, ...] = ("whitened",)
    sites: tuple[tuple[SiteKind, ...], ...] = (("text",),)
    layers: tuple[str, ...] = ("all",)
    ranks: tuple[int, ...] = (1,)
    strengths: tuple[float, ...] = (1.0,)
    alphas: tuple[float, ...] = (1.0,)
    anchors: tuple[Anchor, ...] = ("zero",)
    shrinkages: tuple[float, ...] = (0.02,)

    def __post_init__(self) -> None:
        if count := sum(1 for _ in self):
            if count > MAX_POINTS:
                raise InputError(f"The grid has {count} points; {MAX_POINTS} is the limit.")
        else:
            raise InputError("The grid is empty; give each setting at least one value.")

    def __iter__(self) -> Iterator[Point]:
        """Yield every point once: where a setting does not matter, its first value stands for all."""
        seen = set()
        for values in itertools.product(*(getattr(self, axis.name) for axis in fields(self))):
            point = Point(*values)
            if point.method == "rv":
                point = replace(point, rank=self.ranks[0])
            if point.method != "cpca":
                point = replace(point, alpha=self.alphas[0])
            if point.method not in WHITENED:
                point = replace(point, shrinkage=self.shrinkages[0])
            if point not in seen:
                seen.add(point)
                yield point


def parse_grid(text: Mapping[str, str]) -> Grid:
    """Read a grid from lists with commas, such as ``{"ranks": "1,2,4", "sites": "text,text+feed-forward"}``.

    Raises:
        InputError: a value cannot be read, is out of range, or is not known.
    """
    lists = {name: [v.strip() for v in value.split(",") if v.strip()] for name, value in text.items()}
    knobs = {knob.name: knob for knob in recipe_knobs()}
    axes: dict[str, Any] = {
        axis: tuple(knobs[name].read(value) for value in lists[axis]) for axis, name in KNOBS.items()
    }
    return Grid(**axes, layers=tuple(value.replace("+", ",") for value in lists["layers"]))


class PointPlanner:
    """Plans the edits of points, all from one capture: it is made when the first is prepared."""

    def __init__(self, model: Model, concept: Concept, kinds: tuple[SiteKind, ...]) -> None:
        self._model, self._concept = model, concept
        self._capture = CaptureSettings(kinds=kinds)
        self._estimator: Estimator | None = None

    def plan(self, point: Point) -> Planned:
        """Return the treatment of a point. Raises InputError where its layers do not exist."""
        layers = parse_layers(point.layers, self._model.block_count)
        subspace = SubspaceSettings(
            method=point.method, rank=point.rank, alpha=point.alpha, shrinkage=point.shrinkage
        )
        edit = EditSettings(point.strength, point.anchor, point.sites, layers)
        recipe = Recipe(self._concept, self._capture, subspace, edit)

        def prepare(progress: Progress) -> Treatment:
            if self._estimator is None:
                seen = capture(self._model, self._concept, self._capture, progress=progress)
                self._estimator = Estimator(seen)
            return Treatment(edit=make_edit(self._estimator.estimate(subspace), edit))

        key = treatment_key(self._model, EDIT, [asdict(recipe)])
        return Planned(key, {"edits": [plain_recipe(recipe)]}, prepare)


def plan_grid(model: Model, preset: Preset, grid: Grid) -> dict[str, Planned]:
    """Return the planned edits of a grid by their points' names, with the preset's pairs."""
    kinds = tuple(k for k in SITE_KINDS if any(k in sites for sites in grid.sites))
    planner = PointPlanner(model, preset.concept, kinds)
    return {point.name: planner.plan(point) for point in grid}
