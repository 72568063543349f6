"""Running a table of the paper, category by category, each with the edit of its own preset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from refusal_core.concepts import load_preset
from refusal_core.errors import InputError
from refusal_core.evaluate.judging import Judging
from refusal_core.evaluate.paper_tables import METHODS, PaperTable, paper_table
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.run import evaluate, unused
from refusal_core.evaluate.setup import Setup
from refusal_core.evaluate.suites.files import Long, Selection
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.sources import load_suite
from refusal_core.models.load import LoadSettings
from refusal_core.progress import Progress, each


def prompts_of(table: PaperTable, source: Path, limit: int, *, strict: bool = False) -> Suite:
    """Return the prompts of the table's categories. Raises as ``load_suite`` does."""
    names = ",".join(row.category for row in table.rows)
    return load_suite(table.suite, source, Selection(names, limit, strict=strict))


def sides_of(folders: str) -> dict[str, Path]:
    """Return the folder of each side from ``original=DIR,unlearned=DIR``; raises InputError on other text."""
    sides = {}
    for piece in folders.split(","):
        name, equals, folder = piece.partition("=")
        if not equals or not name.strip() or not folder.strip():
            raise InputError(f"'{piece}' names no folder; write original=DIR,unlearned=DIR.")
        sides[name.strip()] = Path(folder.strip())
    return sides


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Every category of a table under every method, with a model that runs here.

    Raises:
        InputError: the model is not one that diffusers runs; the sentence says what to do.
    """

    table: str  # its name
    source: Path  # of the prompts
    limit: int  # prompts of each category, at most
    model: str
    judging: Judging
    loading: LoadSettings = LoadSettings()  # noqa: RUF009 - a frozen value
    work: Path | None = None
    workers: int | None = None
    methods: tuple[str, ...] = METHODS
    strict: bool = False  # refuse prompts with a row that cannot be used
    long: Long = "cut"  # what becomes of prompts that are longer than the model reads

    def __post_init__(self) -> None:
        if self.model == "open-sora":
            raise InputError(
                "Open-Sora is not run here: make its videos with its own code and give --folders, or name"
                " another --model."
            )
        self.prompts()

    def prompts(self) -> Suite:
        """Return the prompts. Raises as ``paper_table`` and ``load_suite`` do."""
        return prompts_of(paper_table(self.table), self.source, self.limit, strict=self.strict)

    @property
    def videos(self) -> int:
        """Prompts of the largest category."""
        return max(len(group.items) for group in self.prompts())

    def run(self, setup: Setup, progress: Progress) -> list[Report]:
        """Return a report a category."""
        suite, reports = self.prompts(), []
        there = {group.name for group in suite}  # not every file has prompts of each category
        rows = [row for row in paper_table(self.table).rows if row.category in there]
        for row, step in each(progress, rows):
            presets = (load_preset(row.preset),)
            group = unused(replace(suite, groups=(suite[row.category],)), presets)
            reports.append(evaluate(setup, presets, group, self.methods, step, long=self.long))
        return reports
