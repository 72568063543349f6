"""Sweeps: every point of a grid tried on a suite, the original's videos made once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

from refusal_core.concepts import Preset
from refusal_core.evaluate.evaluation import presets_named
from refusal_core.evaluate.grid import Grid, Point, plan_grid
from refusal_core.evaluate.judging import Judging
from refusal_core.evaluate.measures.samples import SHEET_COLOURS, sample_path, save_picture, titled
from refusal_core.evaluate.methods.treatments import ORIGINAL, plan_method
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.reports.tables import (
    NEAR,
    NEIGHBOURS,
    OTHERS,
    PARTS,
    as_markdown,
    interval,
    method_figures,
    overview_table,
    where_measured,
    with_bounds,
)
from refusal_core.evaluate.run import check_disjoint, run_planned
from refusal_core.evaluate.setup import Setup, compiled_where_it_pays, run_price
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.made import made_suite
from refusal_core.io.files import write_atomic
from refusal_core.models.load import LoadSettings
from refusal_core.progress import Progress, each
from refusal_core.toyworld import world

FIGURES = ("erased", "erased_low", "erased_high", "kept", "kept_low", "kept_high", "others", "near")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: reports whose methods are the points' names, and where its pictures lie."""

    reports: tuple[Report, ...]  # one a concept
    points: tuple[Point, ...]
    suites: tuple[Suite, ...]
    pictures: Path | None

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each concept and point: its settings and its figures, shares from 0 to 1.

        "kept" and "others" are parts of what the original gets; "low" and "high" the ends of the Wilson 95 %
        interval, of "kept" for the attribute that is least often right, put beside the original as well.
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
            figures = [_figures(r, point.name) for r in self.reports if point.name in r.names]
            if len(figures) == len(self.reports):
                gone, kept = (fmean(f[name] or 0.0 for f in figures) for name in ("erased", "kept"))
                places[point.name] = (-round(gone, 2), -kept)
        return sorted(places, key=lambda name: places[name])

    def _of_one(self) -> DataFrame:
        (report,), (suite,) = self.reports, self.suites
        names = [g.name for g in suite if not g.ordinary and g.name not in (OTHERS, NEIGHBOURS)]
        lines = []
        for name in self._best_first():
            cells = [report.cell(name, n) for n in names]
            shown = [interval(c.unsafe) if c else "-" for c in cells]
            shares = method_figures(report, name)
            parts = [with_bounds(*(shares[k + end] for end in ("", "_low", "_high"))) for k in PARTS]
            lines.append([name, *shown, *parts])
        head = ["settings", *(f"shown, {n}" for n in names), "neutral kept", "others kept", NEAR]
        return where_measured(DataFrame(lines, columns=head))

    def _of_several(self) -> DataFrame:
        table = overview_table(self.reports).set_index("method", drop=False).loc[self._best_first()]
        return (
            table.loc[:, :"SSIM"].drop(columns="SSIM").rename(columns={"method": "settings"})
        )  # frames are not compared

    def save(self, folder: Path) -> list[Path]:
        """Write the rows as CSV and, where there are pictures, a contact sheet."""
        heads = ["concept", *(item.name for item in fields(Point)), *FIGURES]
        table = DataFrame(self.rows(), columns=heads)
        csv = partial(table.to_csv, index=False, lineterminator="\r\n")
        paths = [write_atomic(folder / "sweep.csv", csv)]
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
    from PIL import Image

    with Image.open(path) as image:
        return titled(np.asarray(image.convert("RGB")), title)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A grid on the suite of a preset; on the tuning split unless asked otherwise."""

    model: str = "toyworld"
    presets: str = "fire"  # names with commas between, a path, or all
    grid: Grid = field(default_factory=Grid)
    videos: int = 40
    split: world.Split = "tuning"
    work: Path | None = None
    workers: int | None = None
    loading: LoadSettings = LoadSettings()  # noqa: RUF009 - frozen values
    judging: Judging = Judging(quality=False)  # noqa: RUF009

    def __post_init__(self) -> None:
        self.runs()

    def compiled_where_it_pays(self) -> Sweep:
        """Return the same with compiled blocks where a bundled model makes so many videos that it pays."""
        suites = [suite for _, suite in self.runs()]
        return compiled_where_it_pays(self, suites, 1 + len(tuple(self.grid)))

    def price(self) -> str:
        """Return what the run takes at most, in words."""
        return run_price([((preset,), suite) for preset, suite in self.runs()], 1 + len(tuple(self.grid)))

    def runs(self) -> list[tuple[Preset, Suite]]:
        """Return each preset with its prompts; raises as ``presets_named`` and ``toyworld_suite`` do."""
        presets, make = presets_named(self.presets, self.model), made_suite("toyworld", self.model)
        return [(p, make(p.concept.name, self.videos, self.split)) for p in presets]

    def run(self, setup: Setup, progress: Progress) -> Swept:
        """Try every point on every concept; what the setup's journal holds already is not made again."""
        runs, reports = self.runs(), []
        for (preset, suite), step in each(progress, runs):
            check_disjoint((preset,), suite)
            planned = {ORIGINAL: plan_method(setup.model, (preset,), ORIGINAL)}
            planned |= plan_grid(setup.model, preset, self.grid)
            split = replace(suite, name=f"{suite.name}, {self.split} split")
            reports.append(run_planned(setup, preset.concept.name, planned, split, step))
        return Swept(
            tuple(reports), tuple(self.grid), tuple(suite for _, suite in runs), setup.scoring.samples
        )
