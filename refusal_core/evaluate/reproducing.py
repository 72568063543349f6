"""Running a table of the paper, category by category, each with the edit of its own preset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from refusal_core.concepts import load_preset
from refusal_core.errors import InputError
from refusal_core.evaluate.measures.journal import Journal
from refusal_core.evaluate.plans import Seeing, loading_arguments
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.reproduce import METHODS, PaperTable, paper_table
from refusal_core.evaluate.run import Share, evaluate
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.sources import load_suite
from refusal_core.models.load import LoadSettings, load_model
from refusal_core.progress import Progress, part


def prompts_of(table: PaperTable, source: Path, limit: int) -> Suite:
    """Return the prompts of the table's categories. Raises as ``load_suite`` does."""
    names = ",".join(row.category for row in table.rows)
    return load_suite(table.suite, source, categories=names, limit=limit)


def sides_of(folders: str) -> dict[str, Path]:
    """Return the folder of each side from ``original=DIR,unlearned=DIR``.

    Raises:
        InputError: it cannot be read.
    """
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
    seeing: Seeing
    loading: LoadSettings = LoadSettings()  # noqa: RUF009 - a frozen value
    work: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.model == "open-sora":
            raise InputError(
                "Open-Sora is not run here: make its videos with its own code and give --folders, or name"
                " another --model."
            )
        self.prompts()

    def prompts(self) -> Suite:
        """Return the prompts. Raises as ``paper_table`` and ``load_suite`` do."""
        return prompts_of(paper_table(self.table), self.source, self.limit)

    @property
    def videos(self) -> int:
        """Prompts of the largest category."""
        return max(len(group.items) for group in self.prompts())

    def arguments(self) -> list[str]:
        """Return the command line of another process."""
        words = ["reproduce", self.table, "--source", str(self.source), "--limit", str(self.limit)]
        return [*words, "--model", self.model, *self.seeing.arguments(), *loading_arguments(self.loading)]

    def run(self, work: Path | None, share: Share | None, progress: Progress) -> list[Report]:
        """Return a report a category."""
        table, suite = paper_table(self.table), self.prompts()
        if share is not None:
            self.seeing.check()
        reading = self.seeing.reading(work / "samples" if work else None)
        model = load_model(self.model, self.loading, progress=part(progress, 0.0, 0.05))
        journal = Journal(work, share.rank if share else 0)
        reports = []
        for i, row in enumerate(table.rows):
            step = part(progress, 0.05 + 0.95 * i / len(table.rows), 0.05 + 0.95 * (i + 1) / len(table.rows))
            group, presets = Suite(suite.name, (suite[row.category],)), (load_preset(row.preset),)
            reports.append(
                evaluate(model, presets, group, reading, METHODS, journal=journal, share=share, progress=step)
            )
        return reports
