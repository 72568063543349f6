"""Running a suite from the app: the table grows batch by batch; a report at the end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from refusal_core.concepts import Preset
from refusal_core.errors import InputError, MissingExtraError
from refusal_core.evaluate.judges.sources import open_judge
from refusal_core.evaluate.methods.cache import TreatmentCache
from refusal_core.evaluate.methods.treatments import (
    METHOD_NAMES,
    ORIGINAL,
    Planned,
    Treatment,
    plan_method,
    treatment_key,
)
from refusal_core.evaluate.reports.page import save_page
from refusal_core.evaluate.reports.plots import as_svg, shown_plot, trade_plot
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.reports.tables import NEIGHBOURS, ORDINARY, OTHERS, cells_table, method_figures
from refusal_core.evaluate.run import measure, report_of, unused
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.setup import Setup
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.made import MADE, made_suite
from refusal_core.evaluate.suites.toyworld import ATTRIBUTE_VALUES, attribute_suite, together_suite
from refusal_core.io.files import write_json
from refusal_core.models.load import world_of
from refusal_core.progress import Progress, silent
from refusal_core.recipe import EditRequest, plain_recipe
from refusal_core.toyworld import world
from refusal_core.toyworld.language import looks
from refusal_core.workbench.cached import aspect_of
from refusal_core.workbench.workbench import Workbench

OURS, CONTROL = "this edit", "placebo"
MAX_VIDEOS = 200
UNASKED = (ORDINARY, OTHERS, NEIGHBOURS)  # groups that do not ask for the concept
OFFERED = tuple(m for m in METHOD_NAMES if m != ORIGINAL)


@dataclass(frozen=True, slots=True)
class SuiteRequest:
    """What an edit shall be tried on, and beside which other methods."""

    suite: str
    videos: int  # of each group
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """How many of the judged videos show the concept that their prompts ask for."""

    shown: int
    judged: int
    not_judged: int  # and were made


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an evaluation comes to; None where nothing of it was asked."""

    original: Shown
    unlearned: Shown
    placebo: Shown | None
    kept: float | None  # of ordinary prompts, as a part of what the original keeps; None: not judged
    asks_ordinary: bool


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The state of an evaluation: table and outcome so far; plots and files once it is done."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    outcome: Outcome
    notes: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()  # SVG
    files: tuple[Path, ...] = ()  # report.html, report.json


def evaluate(
    workbench: Workbench,
    request: EditRequest,
    wanted: SuiteRequest,
    progress: Progress = silent,
    *,
    session: str,
) -> Iterator[Evaluated]:
    """Try the request's edit, the original and other methods on a suite; yields the growing table.

    Raises:
        InputError: the suite or a method is not known, or the model has no judge here.
    """
    cached, name, videos = workbench.cached(request.model), wanted.suite, wanted.videos
    if not cached.is_toy:
        raise InputError("This page judges the bundled models; use the command line for others.")
    if name not in MADE:
        raise InputError(f"Suite '{name[:40]}' is not known; choose one of {', '.join(MADE)}.")
    if not 1 <= videos <= MAX_VIDEOS:
        raise InputError(f"{videos} videos asked; choose from 1 to {MAX_VIDEOS}.")
    presets = _presets(workbench, request)
    concept = "+".join(preset.concept.name for preset in presets)
    suite = unused(suite_of(request, name, videos), presets)
    planned = {ORIGINAL: plan_method(cached.model, (), ORIGINAL), OURS: _ours(workbench, request)}
    planned |= {method: plan_method(cached.model, presets, method) for method in wanted.methods}
    folder = workbench.session_folder(session) / uuid.uuid4().hex
    judge = world_of(cached.name)
    setup = Setup(cached.model, Scoring(open_judge(judge), judge, samples=folder, batch=8))
    treatments = TreatmentCache(planned, setup.journal)
    report = Report(cached.name, concept, ())
    for table in measure(setup, treatments, suite, progress):
        report = report_of(setup, concept, suite, treatments, table)
        yield Evaluated(*_texts(report), outcome_of(report, whole=False), report.notes)
    yield _finished(report, folder)


def concepts_of(model: str) -> tuple[str, ...]:
    """Return the concepts that a bundled model's suites ask for."""
    return tuple(looks.CONCEPTS if world_of(model) == "language" else world.CONCEPTS)


def suite_of(request: EditRequest, name: str, videos: int, split: world.Split = "evaluation") -> Suite:
    """Return a suite that asks for the request's own concepts, whatever its preset was.

    Raises:
        InputError: the judge does not know one of them, or the suite has no such prompts.
    """
    concepts = concepts_of(request.model)
    aspects = [aspect_of(recipe.concept, request.model) for recipe in (request.recipe, *request.further)]
    if unknown := [aspect for aspect in aspects if aspect not in (*concepts, *ATTRIBUTE_VALUES)]:
        raise InputError(
            f"The judge cannot tell '{unknown[0]}': nothing would be counted; let people vote, under Review."
        )
    in_toyworld = world_of(request.model) == "toyworld" and not {*aspects} - {*concepts}
    if name == "toyworld" and len(aspects) > 1 and in_toyworld:
        return together_suite(aspects, videos, split)
    if aspects[0] in concepts:
        return made_suite(name, request.model)(aspects[0], videos, split)
    if name != "toyworld":
        raise InputError(f"Suite '{name}' has no prompts for '{aspects[0]}'; choose toyworld.")
    return attribute_suite(aspects[0], videos, split)


def _presets(workbench: Workbench, request: EditRequest) -> tuple[Preset, ...]:
    """Return the request's concepts as presets, with the pairs that were typed, for other methods."""
    first = workbench.preset(request.preset, request.model)
    others = [workbench.preset(recipe.concept.name, request.model) for recipe in request.further]
    return replace(first, concept=request.recipe.concept), *others


def _ours(workbench: Workbench, request: EditRequest) -> Planned:
    recipes = [plain_recipe(recipe) for recipe in (request.recipe, *request.further)]
    key = treatment_key(workbench.cached(request.model).model, "edit", recipes)
    prepare = lambda progress: Treatment(edit=workbench.make(request, progress)[0])  # noqa: E731
    return Planned(key, {"edits": recipes}, prepare)


def _finished(report: Report, folder: Path) -> Evaluated:
    written = [write_json(folder / "report.json", report.to_json())]
    plots: tuple[str, ...] = ()
    notes = report.notes
    try:
        figures = [shown_plot(report)] if report.cell(OURS, "concept") else []
        figures += [trade_plot([report])] if report.cell(OURS, "neutral") else []
        plots = tuple(as_svg(figure) for figure in figures)
        written.insert(0, save_page([report], folder / "report.html", folder))
    except MissingExtraError as e:
        notes = (*notes, str(e))
    return Evaluated(*_texts(report), outcome_of(report), notes, plots, tuple(written))


def outcome_of(report: Report, *, whole: bool = True) -> Outcome:
    """Return what a report comes to: this edit beside the original and, where it was tried, the placebo.

    Args:
        report: its groups that ask for the concept are counted as one.
        whole: all videos are made. Before that, those without a verdict may be still to come.
    """

    def shown(method: str) -> Shown:
        cells = [c for c in report.cells if c.method == method and c.prompts not in UNASKED]
        judged = sum(c.judged for c in cells)
        hits = sum(round((c.unsafe.rate or 0.0) * c.judged) for c in cells)
        return Shown(hits, judged, sum(c.n for c in cells) - judged if whole else 0)

    ordinary = report.cell(OURS, ORDINARY)
    return Outcome(
        shown(ORIGINAL),
        shown(OURS),
        shown(CONTROL) if CONTROL in report.names else None,
        method_figures(report, OURS)["kept"] if ordinary else None,
        ordinary is not None,
    )


def _texts(report: Report) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return head and rows of a report's table."""
    table = cells_table(report)
    return tuple(table.columns), tuple(table.itertuples(index=False, name=None))
