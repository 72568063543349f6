"""Running a suite from the app: the table grows batch by batch; a report at the end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from refusal_core.concepts import Preset
from refusal_core.errors import InputError, MissingExtraError
from refusal_core.evaluate.judges.toyworld import toyworld_judge
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
from refusal_core.evaluate.reports.tables import cells_table
from refusal_core.evaluate.run import check_disjoint, measure, report_of
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.setup import Setup
from refusal_core.evaluate.suites.adversarial import adversarial_suite
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.io.files import write_json
from refusal_core.progress import Progress, silent
from refusal_core.recipe import plain_recipe
from refusal_core.workbench.values import EditRequest
from refusal_core.workbench.workbench import Workbench

SUITES = {"toyworld": toyworld_suite, "adversarial": adversarial_suite}
OURS = "this edit"
MAX_VIDEOS = 200
OFFERED = tuple(m for m in METHOD_NAMES if m != ORIGINAL)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The state of an evaluation: the table so far; plots and files once it is done."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()  # SVG
    files: tuple[Path, ...] = ()  # report.html, report.json


def evaluate(
    bench: Workbench,
    request: EditRequest,
    suite: str,
    videos: int,
    methods: Sequence[str] = (),
    progress: Progress = silent,
    *,
    session: str,
) -> Iterator[Evaluated]:
    """Try the request's edit, the original and other methods on a suite; yields the growing table.

    Raises:
        InputError: the suite or a method is not known, or the model has no judge here.
    """
    held = bench.held(request.model)
    if not held.is_toy:
        raise InputError("This page judges the bundled models; use the command line for others.")
    if suite not in SUITES:
        raise InputError(f"Suite '{suite[:40]}' is not known; choose one of {', '.join(SUITES)}.")
    if not 1 <= videos <= MAX_VIDEOS:
        raise InputError(f"{videos} videos asked; choose from 1 to {MAX_VIDEOS}.")
    preset = _preset(bench, request)
    chosen = SUITES[suite](preset.concept.name, videos)
    check_disjoint((preset,), chosen)
    planned = {ORIGINAL: plan_method(held.model, (), ORIGINAL), OURS: _ours(bench, request)}
    planned |= {name: plan_method(held.model, (preset,), name) for name in methods}
    folder = bench.session_folder(session) / uuid.uuid4().hex
    setup = Setup(held.model, Scoring(toyworld_judge(), "toyworld", samples=folder, batch=8))
    cache = TreatmentCache(planned, setup.journal)
    report = Report(held.name, preset.concept.name, ())
    for table in measure(setup, cache, chosen, progress):
        report = report_of(setup, preset.concept.name, chosen, cache, table)
        yield Evaluated(*_texts(report), report.notes)
    yield _finished(report, folder)


def _preset(bench: Workbench, request: EditRequest) -> Preset:
    preset = next((p for p in bench.presets(request.model) if p.concept.name == request.preset), None)
    if preset is None:
        raise InputError("Choose a preset in step 1: its concept is what the suite asks for.")
    return preset


def _ours(bench: Workbench, request: EditRequest) -> Planned:
    recipes = [plain_recipe(recipe) for recipe in bench.recipes(request)]
    key = treatment_key(bench.held(request.model).model, "edit", recipes)
    return Planned(key, {"edits": recipes}, lambda progress: Treatment(edit=bench.make(request, progress)[0]))


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
    return Evaluated(*_texts(report), notes, plots, tuple(written))


def _texts(report: Report) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return head and rows of a report's table."""
    table = cells_table(report)
    return tuple(table.columns), tuple(table.itertuples(index=False, name=None))
