"""``evaluate`` measures what is unlearned and what is kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refusal_core.cli.screen import (
    CompileOption,
    DenoiserOption,
    DeviceOption,
    DtypeOption,
    ModelOption,
    OffloadOption,
    PresetsOption,
    RevisionOption,
    load_settings,
    progress_bar,
)

if TYPE_CHECKING:
    from refusal_core.evaluate.reports.report import Report

Videos = Annotated[
    int | None,
    typer.Option("--videos", min=1, help="Videos in each cell; default 200, of your own files all."),
]
Methods = Annotated[
    str, typer.Option("--methods", help="Names with commas between, standard, or all with baselines.")
]
Together = Annotated[bool, typer.Option("--together", help="Erase the concepts of all presets at once.")]
SuiteName = Annotated[
    str, typer.Option("--suite", help="toyworld, adversarial, t2vsafetybench (-tiny), safesora or csv.")
]
SourcePath = Annotated[
    Path | None, typer.Option("--source", help="Your own clone or file of the last three.")
]
Categories = Annotated[
    str, typer.Option("--categories", help="Of a benchmark: names with commas, paper or all.")
]
JudgeName = Annotated[
    str, typer.Option("--judge", help="toyworld, vlm, nudity, gore, trademark-text or identity.")
]
JudgeSettingsPath = Annotated[
    Path | None, typer.Option("--judge-settings", help="JSON, such as base_url and model of vlm.")
]
JudgeAgain = Annotated[bool, typer.Option("--judge-again", help="Ask again what was not judged in --work.")]
ClipModel = Annotated[
    str | None, typer.Option("--clip", help="A CLIP model for the alignment of video and prompt.")
]
QuestionsPath = Annotated[
    Path | None,
    typer.Option("--questions", help="JSON of questions on prompts, or: scenes; the judge answers."),
]
JsonPath = Annotated[
    Path | None, typer.Option("--json", help="Also write the report here; of several, a folder.")
]
HtmlPath = Annotated[
    Path | None, typer.Option("--html", help="Also write one page with tables, plots, frames, recipes.")
]
Work = Annotated[Path | None, typer.Option("--work", help="Readings are kept here: a stopped run goes on.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, max=64, help="Processes; default: as many as help.")
]


def evaluate(
    model: ModelOption = "toyworld",
    preset: PresetsOption = "fire",
    videos: Videos = None,
    methods: Methods = "standard",
    together: Together = False,
    suite: SuiteName = "toyworld",
    source: SourcePath = None,
    categories: Categories = "all",
    judge: JudgeName = "toyworld",
    judge_settings: JudgeSettingsPath = None,
    judge_again: JudgeAgain = False,
    clip: ClipModel = None,
    questions: QuestionsPath = None,
    json: JsonPath = None,
    html: HtmlPath = None,
    work: Work = None,
    workers: Workers = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    offload: OffloadOption = "none",
    revision: RevisionOption = None,
    denoiser: DenoiserOption = None,
    compile_: CompileOption = None,
) -> None:
    """Run methods over concept, paraphrase, neutral and other-concepts prompts, and print the table.

    Under `accelerate launch` (or with RANK and WORLD_SIZE set) the processes share the work through --work.
    """
    from refusal_core.evaluate.evaluation import Evaluation, Source
    from refusal_core.evaluate.judging import Judging
    from refusal_core.evaluate.reports.page import save_page
    from refusal_core.evaluate.reports.plots import check_plots
    from refusal_core.evaluate.sharing import run_shared

    if html is not None:
        check_plots()
    with _readings(work, needed=html is not None) as folder:
        asked = Source(suite, source, categories)
        judging = Judging(judge, judge_settings, clip, judge_again, questions)
        loading = load_settings(device, dtype, offload, revision, denoiser, compiled=bool(compile_))
        plan = Evaluation(model, preset, videos, methods, together, asked, judging, loading, folder, workers)
        if compile_ is None:
            plan = plan.compiled_where_it_pays()
        with progress_bar("Loading") as progress:
            reports = run_shared(plan, progress)
        if reports is None:  # another process prints
            return
        _tell(reports, json)
        if html is not None:
            save_page([r for r in reports if r.cells], html, folder / "samples" if folder else None)


def _tell(reports: list[Report], json: Path | None) -> None:
    """Print the table and what is to be said, and write the reports; raise ModelError where there is none."""
    from refusal_core.errors import ModelError
    from refusal_core.evaluate.reports.report import save_reports
    from refusal_core.evaluate.reports.tables import as_markdown, cells_table, summary

    notes = [f"{found.concept}, {note}" for found in reports for note in found.notes]
    whole = [found for found in reports if found.cells]
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


def report(
    files: Annotated[list[Path], typer.Argument(help="Reports that evaluate --json wrote.")],
    html: Annotated[Path | None, typer.Option("--html", help="Also write a page.")] = None,
    plots: Annotated[Path | None, typer.Option("--plots", help="Also write plots to this folder.")] = None,
    latex: Annotated[bool, typer.Option("--latex", help="Print the table in LaTeX.")] = False,
    overview: Annotated[bool, typer.Option("--overview", help="One row a method, over all reports.")] = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="One row a method, one column a group of prompts.")
    ] = False,
    front: Annotated[
        bool, typer.Option("--front", help="One row a method: erased and kept, the Pareto front starred.")
    ] = False,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="The samples folder of evaluate --work, for the page.")
    ] = None,
) -> None:
    """Print reports as one table: how much was unlearned, how much was kept."""
    from refusal_core.evaluate.reports import tables
    from refusal_core.evaluate.reports.report import load_report

    reports = [load_report(path) for path in files]
    if matrix:
        table = tables.matrix_table(reports)
    elif front:
        table = tables.front_table(reports)
    elif overview:
        table = tables.overview_table(reports)
    else:
        table = tables.summary_table(reports)
    print(tables.as_latex(table) if latex else tables.as_markdown(table))
    if html is not None:
        from refusal_core.evaluate.reports.page import save_page

        save_page(reports, html, pictures)
    if plots is not None:
        from refusal_core.evaluate.reports.plots import save_plots

        save_plots(reports, plots)


def votes(
    pack: Annotated[Path, typer.Argument(help="A review pack with votes, from the app's Review page.")],
    json: Annotated[Path | None, typer.Option("--json", help="Also write the report here.")] = None,
) -> None:
    """Print what people saw: the votes of a blind review, as the table of a judge."""
    from refusal_core.evaluate.reports.tables import as_markdown, cells_table
    from refusal_core.io.files import write_json
    from refusal_core.workbench.review import load_pack
    from refusal_core.workbench.votes import report_of_votes

    with tempfile.TemporaryDirectory(prefix="refusal-studio-") as folder:
        found = report_of_votes(load_pack(pack, Path(folder)))
    print(f"Judged by {found.judge}.\n\n{as_markdown(cells_table(found))}")
    if json is not None:
        write_json(json, found.to_json())
