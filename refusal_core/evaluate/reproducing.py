"""Running a table of the paper, category by category, each with the edit of its own preset."""

from __future__ import annotations

from pathlib import Path

from refusal_core.concepts import load_preset
from refusal_core.errors import InputError
from refusal_core.evaluate.folders import judge_folders
from refusal_core.evaluate.journal import Journal
from refusal_core.evaluate.plans import Seeing
from refusal_core.evaluate.report import Report
from refusal_core.evaluate.reproduce import METHODS, PaperTable
from refusal_core.evaluate.run import evaluate
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.sources import load_suite
from refusal_core.models.load import LoadSettings, load_model
from refusal_core.progress import Progress, part


def prompts_of(table: PaperTable, source: Path, limit: int) -> Suite:
    """Return the prompts of the table's categories. Raises as ``load_suite`` does."""
    names = ",".join(row.category for row in table.rows)
    return load_suite(table.suite, source, categories=names, limit=limit)


def run_table(
    table: PaperTable,
    source: Path,
    limit: int,
    model: str | None,
    judge: str,
    settings: Path | None,
    work: Path,
    loading: LoadSettings,
    progress: Progress,
) -> list[Report]:
    """Generate and judge every category under every method.

    Raises:
        InputError: the paper's model is not one that diffusers runs; the sentence says what to do.
    """
    if (model or table.model) == "open-sora":
        raise InputError(
            "Open-Sora is not run here: make its videos with its own code and give --folders, or name another"
            " --model."
        )
    suite = prompts_of(table, source, limit)
    seeing = Seeing(judge, settings)
    seeing.check()
    reading = seeing.reading(None)
    loaded = load_model(model or table.model, loading, progress=part(progress, 0.0, 0.05))
    reports = []
    for i, row in enumerate(table.rows):
        step = part(progress, 0.05 + 0.95 * i / len(table.rows), 0.05 + 0.95 * (i + 1) / len(table.rows))
        group = Suite(suite.name, (suite[row.category],))
        presets, journal = (load_preset(row.preset),), Journal(work)
        reports.append(evaluate(loaded, presets, group, reading, METHODS, journal=journal, progress=step))
    return reports


def judged_folders(
    table: PaperTable,
    source: Path,
    limit: int,
    folders: str,
    judge: str,
    settings: Path | None,
    progress: Progress,
) -> Report:
    """Judge videos that were made elsewhere.

    Args:
        table: of the paper.
        source: its prompts.
        limit: of each category.
        folders: ``original=DIR,unlearned=DIR``.
        judge: its name.
        settings: of the judge.
        progress: told per folder and category.

    Raises:
        InputError: ``folders`` cannot be read.
    """
    sides = {}
    for piece in folders.split(","):
        name, equals, folder = piece.partition("=")
        if not equals or not name.strip() or not folder.strip():
            raise InputError(f"'{piece}' names no folder; write original=DIR,unlearned=DIR.")
        sides[name.strip()] = Path(folder.strip())
    suite = prompts_of(table, source, limit)
    return judge_folders(sides, suite, Seeing(judge, settings).reading(None), progress)
