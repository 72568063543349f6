"""``evaluate`` measures what is unlearned and what is kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from refusal_core.cli.options import MODEL, PRESETS, OutputOptions
from refusal_core.cli.screen import announce, progress_bar
from refusal_core.models.load_settings import LoadSettings
from refusal_core.settings import Knob

if TYPE_CHECKING:
    from refusal_core.evaluate.evaluation import Source
    from refusal_core.evaluate.reports.report import Report


LONG = "What becomes of prompts of more tokens than the model reads."
STRICT = "Refuse a file with a row that cannot be used, in place of leaving it out."


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """What is tried."""

    model: str = MODEL.at("toyworld")
    preset: str = PRESETS.at("fire")
    methods: str = Knob("Names with commas between, standard, or all with baselines.").at("standard")
    together: bool = Knob("Erase the concepts of all presets at once.").at(False)
    videos: int | None = Knob("Videos in each cell; default 200, of your own files all.", 1, 100_000).at(None)


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """On which prompts."""

    suite: str = Knob("toyworld, adversarial, t2vsafetybench (-tiny), safesora or file.").at("toyworld")
    source: Path | None = Knob("Your own clone or file of the last three: CSV, JSON, text.").at(None)
    categories: str = Knob("Of a benchmark: names with commas between, paper or all.").at("all")
    prompt_column: str | None = Knob("Of a file; default prompt, text, adv_prompt and the like.").at(None)
    long: Literal["cut", "skip", "refuse"] = Knob(LONG).at("cut")
    strict: bool = Knob(STRICT).at(False)

    def chosen(self) -> Source:
        """Return the source of the prompts."""
        from refusal_core.evaluate.evaluation import Source

        return Source(self.suite, self.source, self.categories, self.prompt_column, self.strict, self.long)


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """Who judges."""

    judge: str = Knob("toyworld, vlm, nudity, gore, trademark-text or identity.").at("toyworld")
    judge_settings: Path | None = Knob("JSON, such as base_url and model of vlm.").at(None)
    judge_again: bool = Knob("Ask again what was not judged in --work.").at(False)


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What else is measured."""

    clip: str | None = Knob("A CLIP model for the alignment of video and prompt.").at(None)
    questions: Path | None = Knob("JSON of questions on prompts, or scenes; the judge answers.").at(None)


def evaluate(
    tried: MethodOptions,
    suite: SuiteOptions,
    judge: JudgeOptions,
    more: MeasureOptions,
    output: OutputOptions,
    loading: LoadSettings,
) -> None:
    """Run methods over concept, paraphrase, neutral and other-concepts prompts, and print the table.

    Under `accelerate launch` the processes share the work through --work.
    """
    from refusal_core.evaluate.evaluation import Evaluation
    from refusal_core.evaluate.judging import Judging
    from refusal_core.evaluate.reports.page import save_page
    from refusal_core.evaluate.reports.plots import check_plots
    from refusal_core.evaluate.sharing import run_shared

    if output.html is not None:
        check_plots()
    with _readings(output.work, needed=output.html is not None) as folder:
        t, j = tried, judge
        judging = Judging(j.judge, j.judge_settings, more.clip, j.judge_again, more.questions)
        goal = (t.model, t.preset, t.videos, t.methods, t.together)
        plan = Evaluation(*goal, suite.chosen(), judging, loading, folder, output.workers)
        announce(plan.price())
        with progress_bar("Loading") as progress:
            reports = run_shared(plan.compiled_where_it_pays(), progress)
        if reports is None:  # another process prints
            return
        _print(reports, output.json)
        if output.html is not None:
            save_page([r for r in reports if r.cells], output.html, folder / "samples" if folder else None)


def _print(reports: list[Report], json: Path | None) -> None:
    """Print the table and what is to be said, and write the reports; raise ModelError where there is none."""
    from refusal_core.errors import ModelError
    from refusal_core.evaluate.reports.report import save_reports
    from refusal_core.evaluate.reports.tables import as_markdown, cells_table, summary

    several = [note for note in reports[0].notes if len(reports) > 1]
    shared = [note for note in several if all(note in report.notes for report in reports)]
    own = [(report, note) for report in reports for note in report.notes if note not in shared]
    notes = [*(f"{report.concept}, {note}" for report, note in own), *shared]
    whole = [report for report in reports if report.cells]
    if not whole:
        raise ModelError(f"Nothing could be measured: {notes[0]}")
    print(as_markdown(cells_table(whole[0])) if len(reports) == 1 else summary(whole))
    for note in notes:
        print(f"Note: {note}")
    if json is not None:
        save_reports(whole, json, several=len(reports) > 1)


@contextmanager
def _readings(work: Path | None, *, needed: bool) -> Iterator[Path | None]:
    """Give the folder of the readings: a temporary one where none was named and the page needs frames."""
    if work is not None or not needed or "WORLD_SIZE" in os.environ:
        yield work
        return
    with tempfile.TemporaryDirectory(prefix="refusal-studio-") as name:
        yield Path(name)
