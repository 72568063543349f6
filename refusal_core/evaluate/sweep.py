"""Sweeps: every point of a grid tried on a suite, the original's videos made once."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from refusal_core.concepts import Preset
from refusal_core.evaluate.grid import Grid, Point, points_of
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.measures.journal import Journal
from refusal_core.evaluate.measures.samples import SHEET_COLOURS, sample_path, save_picture
from refusal_core.evaluate.methods.treatments import ORIGINAL, plan_method
from refusal_core.evaluate.plans import compiling_pays, presets_named, with_compiled
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.reports.tables import (
    as_markdown,
    interval,
    method_figures,
    overview_table,
    with_bounds,
)
from refusal_core.evaluate.run import Reading, Share, check_disjoint, measure, report_of
from refusal_core.evaluate.shelf import Shelf
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.io.files import write_atomic
from refusal_core.models.load import LoadSettings, load_model
from refusal_core.progress import Progress, part
from refusal_core.toyworld import world

HEAD = ("method", "sites", "layers", "rank", "strength", "alpha", "anchor", "shrinkage")
FIGURES = ("erased", "erased_low", "erased_high", "kept", "kept_low", "kept_high", "others")
KEPT = ("kept", "others")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: reports whose methods are the points' names, and where its pictures lie."""

    reports: tuple[Report, ...]  # one a concept
    points: tuple[Point, ...]
    suites: tuple[Suite, ...]
    pictures: Path | None

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each concept and point: its settings and its figures, shares from 0 to 1.

        "kept" and "others" are parts of what the original gets; "low" and "high" the Wilson 95 % interval,
        of "kept" for the attribute that is least often right, before it is put beside the original.
        Where there is nothing to remove at a point, it has no row.
        """
        return [
            {"concept": report.concept, **point.row(), **_figures(report, point.name)}
            for report in self.reports
            for point in self.points
            if point.name in report.names
        ]

    def markdown(self) -> str:
        """Return the table, best first: what is kept counts where as much is erased."""
        return as_markdown(self._of_one() if len(self.reports) == 1 else self._of_several())

    def _best_first(self) -> list[str]:
        """Return the names of the points that every concept has."""
        places = {}
        for point in self.points:
            found = [_figures(r, point.name) for r in self.reports if point.name in r.names]
            if len(found) == len(self.reports):
                gone, kept = (fmean(f[name] or 0.0 for f in found) for name in ("erased", "kept"))
                places[point.name] = (-round(gone, 2), -kept)
        return sorted(places, key=lambda name: places[name])

    def _of_one(self) -> DataFrame:
        (report,), (suite,) = self.reports, self.suites
        names = [g.name for g in suite if not g.ordinary and g.name != "other-concepts"]
        lines = []
        for name in self._best_first():
            cells = [report.cell(name, n) for n in names]
            shown = [interval(c.unsafe) if c else "-" for c in cells]
            shares = method_figures(report, name)
            parts = [with_bounds(*(shares[k + end] for end in ("", "_low", "_high"))) for k in KEPT]
            lines.append([name, *shown, *parts])
        head = ["settings", *(f"shown, {n}" for n in names), "neutral kept", "others kept"]
        return DataFrame(lines, columns=head)

    def _of_several(self) -> DataFrame:
        table = overview_table(self.reports).set_index("method", drop=False).loc[self._best_first()]
        return table.loc[:, :"others kept"].rename(columns={"method": "settings"})  # frames are not compared

    def save(self, folder: Path) -> list[Path]:
        """Write the rows as CSV and, where there are pictures, a contact sheet."""
        paths = [save_csv(self.rows(), folder / "sweep.csv")]
        sheet = self.contact_sheet()
        if sheet is not None:
            paths.append(save_picture(sheet, folder / "sweep.png", SHEET_COLOURS))
        return paths

    def contact_sheet(self) -> NDArray[np.uint8] | None:
        """Return the first videos of the first group under each point, below one another with its name."""
        if self.pictures is None:
            return None
        strips = []
        for report, suite in zip(self.reports, self.suites, strict=True):
            for name, method in report.methods.items():
                path = sample_path(self.pictures, method["key"], suite.groups[0])
                if path.exists():
                    title = name if len(self.reports) == 1 else f"{report.concept}: {name}"
                    strips.append(_titled_strip(path, title))
        width = max((s.shape[1] for s in strips), default=0)
        padded = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
        return np.concatenate(padded, 0) if padded else None


def _figures(report: Report, name: str) -> dict[str, float | None]:
    shares = method_figures(report, name)
    return {figure: shares[figure] for figure in FIGURES}


def _titled_strip(path: Path, title: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    with Image.open(path) as image:
        page = Image.new("RGB", (image.width, image.height + 22), (255, 255, 255))
        page.paste(image, (0, 22))
    ImageDraw.Draw(page).text((4, 3), title, fill=(30, 41, 59), font=ImageFont.load_default(size=13))
    return np.asarray(page)


def save_csv(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write rows of plain values, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [*HEAD, *FIGURES])
    writer.writeheader()
    writer.writerows(rows)
    return write_atomic(path, lambda target: target.write_text(text.getvalue(), encoding="utf-8") and None)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A grid on the suite of a preset; on the tuning split unless asked otherwise."""

    model: str = "toyworld"
    presets: str = "fire"  # names with commas between, a path, or all
    grid: Grid = field(default_factory=Grid)
    words: tuple[str, ...] = ()  # the command line's words for the grid, for other processes
    videos: int = 40
    split: world.Split = "tuning"
    work: Path | None = None
    workers: int | None = None
    compiled: bool = False  # the denoiser's blocks

    def __post_init__(self) -> None:
        self.runs()

    def compiled_where_it_pays(self) -> Sweep:
        """Return the same with compiled blocks where a bundled model makes so many videos that it pays."""
        suites = [suite for _, suite in self.runs()]
        pays = compiling_pays(self.model, LoadSettings(), suites, 1 + len(tuple(self.grid)))
        return replace(self, compiled=pays)

    def runs(self) -> list[tuple[Preset, Suite]]:
        """Return each preset with its prompts; raises as ``presets_named`` and ``toyworld_suite`` do."""
        presets = presets_named(self.presets)
        return [(p, toyworld_suite(p.concept.name, self.videos, self.split)) for p in presets]

    def arguments(self) -> list[str]:
        """Return the command line of another process."""
        words = ["sweep", "--model", self.model, "--preset", self.presets, "--split", self.split]
        words += ["--compile" if self.compiled else "--no-compile"]
        return [*words, "--videos", str(self.videos), *self.words]

    def run(self, work: Path | None, share: Share | None, progress: Progress) -> Swept:
        """Try every point on every concept; what ``work`` holds already is not made again."""
        loading = LoadSettings(compiled=self.compiled)
        model = load_model(self.model, loading, progress=part(progress, 0.0, 0.02))
        pictures = work / "samples" if work else None
        plain = Reading(toyworld_judge(), "toyworld", quality=False, samples=pictures)
        reading, before = with_compiled(model, loading, plain, work)
        journal = Journal(work, share.rank if share else 0)
        runs, reports = self.runs(), []
        for i, (preset, suite) in enumerate(runs):
            check_disjoint((preset,), suite)
            original = {ORIGINAL: plan_method(model, (preset,), ORIGINAL)}
            shelf = Shelf(original | points_of(model, preset, self.grid), journal, before)
            step = part(progress, max(0.02, i / len(runs)), (i + 1) / len(runs))
            table = measure(model, shelf, suite, reading, journal, share=share, progress=step)
            named = replace(suite, name=f"{suite.name}, {self.split} split")
            reports.append(report_of(model, preset.concept.name, named, reading, shelf, table))
        return Swept(tuple(reports), tuple(self.grid), tuple(suite for _, suite in runs), pictures)
