"""Sweeps: every point of a grid tried on a suite, the original's videos made once."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refusal_core.concepts import load_preset
from refusal_core.evaluate.grid import Grid, Point, points_of
from refusal_core.evaluate.journal import Journal
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.methods import ORIGINAL, plan_method
from refusal_core.evaluate.report import (
    Report,
    as_markdown,
    erased,
    interval,
    kept_share,
    least_kept,
    others_share,
    percent,
)
from refusal_core.evaluate.run import Reading, Share, check_disjoint, measure, report_of
from refusal_core.evaluate.samples import sample_path, save_picture
from refusal_core.evaluate.shelf import Shelf
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.files import write_atomic
from refusal_core.models.load import load_model
from refusal_core.progress import Progress, part
from refusal_core.toyworld import world

HEAD = ("method", "sites", "layers", "rank", "strength", "alpha", "anchor", "shrinkage")
FIGURES = ("erased", "erased_low", "erased_high", "kept", "kept_low", "kept_high", "others")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: a report whose methods are the points' names, and where its pictures lie."""

    report: Report
    points: tuple[Point, ...]
    suite: Suite
    pictures: Path | None

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a point: its settings and its figures, shares from 0 to 1.

        "kept" and "others" are parts of what the original gets; "low" and "high" the Wilson 95 % interval,
        of "kept" for the attribute that is least often right, before it is put beside the original.
        """
        rows = []
        for point in self.points:
            if self.report.cell(point.name, self.suite.groups[0].name) is None:  # nothing to remove there
                continue
            rows.append(point.row() | dict(zip(FIGURES, self._figures(point.name), strict=True)))
        return rows

    def _figures(self, name: str) -> tuple[float | None, ...]:
        gone, least = erased(self.report, name), least_kept(self.report, name)
        kept, others = kept_share(self.report, name), others_share(self.report, name)
        return gone.rate, gone.low, gone.high, kept, least.low, least.high, others

    def markdown(self) -> str:
        """Return the table, best first: what is kept counts where as much is erased."""
        names = [g.name for g in self.suite if not g.ordinary and g.name != "other-concepts"]
        head = ["settings", *(f"shown, {n}" for n in names), "neutral kept", "others kept"]
        lines = []
        order = sorted(self.rows(), key=lambda r: (-round(r["erased"], 2), -(r["kept"] or 0)))
        by_row = {tuple(p.row().values()): p.name for p in self.points}
        for row in order:
            name = by_row[tuple(row[h] for h in HEAD)]
            cells = [self.report.cell(name, n) for n in names]
            shown = [interval(c.unsafe) if c else "-" for c in cells]
            kept = f"{percent(row['kept'])} [{percent(row['kept_low'])}, {percent(row['kept_high'])}]"
            lines.append([name, *shown, kept, percent(row["others"])])
        return as_markdown(head, lines)

    def save(self, folder: Path) -> list[Path]:
        """Write the rows as CSV and, where there are pictures, a contact sheet."""
        paths = [save_csv(self.rows(), folder / "sweep.csv")]
        sheet = self.contact_sheet()
        return [*paths, save_picture(sheet, folder / "sweep.png")] if sheet is not None else paths

    def contact_sheet(self) -> NDArray[np.uint8] | None:
        """Return the first videos of the first group under each point, below one another with its name."""
        if self.pictures is None:
            return None
        group = self.suite.groups[0]
        strips = []
        for name, method in self.report.methods.items():
            path = sample_path(self.pictures, method["key"], group)
            if path.exists():
                strips.append(_titled_strip(path, name))
        width = max((s.shape[1] for s in strips), default=0)
        padded = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
        return np.concatenate(padded, 0) if padded else None


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
    preset: str = "fire"
    grid: Grid = field(default_factory=Grid)
    words: tuple[str, ...] = ()  # the command line's words for the grid, for other processes
    videos: int = 40
    split: world.Split = "tuning"
    work: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        self.suite()

    def suite(self) -> Suite:
        """Return the prompts; raises as ``toyworld_suite`` does."""
        return toyworld_suite(load_preset(self.preset).concept.name, self.videos, self.split)

    def arguments(self) -> list[str]:
        """Return the command line of another process."""
        words = ["sweep", "--model", self.model, "--preset", self.preset, "--split", self.split]
        return [*words, "--videos", str(self.videos), *self.words]

    def run(self, work: Path | None, share: Share | None, progress: Progress) -> Swept:
        """Try every point; what ``work`` holds already is not made again."""
        model = load_model(self.model, progress=part(progress, 0.0, 0.02))
        preset, suite = load_preset(self.preset), self.suite()
        check_disjoint((preset,), suite)
        pictures = work / "samples" if work else None
        reading = Reading(toyworld_judge(), "toyworld", quality=False, samples=pictures)
        journal = Journal(work, share.rank if share else 0)
        planned = {ORIGINAL: plan_method(model, (preset,), ORIGINAL)} | points_of(model, preset, self.grid)
        shelf = Shelf(planned, journal)
        rest = part(progress, 0.02, 1.0)
        table = measure(model, shelf, suite, reading, journal, share=share, progress=rest)
        named = replace(suite, name=f"{suite.name}, {self.split} split")
        report = report_of(model.name, preset.concept.name, named, reading, shelf, table)
        return Swept(report, tuple(self.grid), suite, pictures)
