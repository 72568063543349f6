"""``reproduce`` makes the paper's tables again, with the paper's figures in columns beside ours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from refusal_core.cli.evaluate import LONG, STRICT
from refusal_core.cli.options import OutputOptions
from refusal_core.cli.screen import progress_bar
from refusal_core.models.load_settings import LoadSettings
from refusal_core.settings import Knob

if TYPE_CHECKING:
    from refusal_core.evaluate.reports.report import Report


@dataclass(frozen=True, slots=True)
class PaperOptions:
    """What is made."""

    plan: bool = Knob("Only say what would run: GPU hours, disk.").at(False)
    model: str | None = Knob("Default: the paper's; of table1, any diffusers model.").at(None)
    folders: str | None = Knob("original=DIR,unlearned=DIR: judge videos made elsewhere.").at(None)
    judge: str = Knob("vlm is the paper's kind.").at("vlm")
    judge_settings: Path | None = Knob("JSON, such as base_url and model of vlm.").at(None)
    limit: int = Knob("Prompts of each category.", 1, 10_000).at(10_000)
    long: Literal["cut", "skip", "refuse"] = Knob(LONG).at("cut")
    strict: bool = Knob(STRICT).at(False)
    latex: bool = Knob("Print the table in LaTeX.").at(False)


def reproduce(
    table: Annotated[str, typer.Argument(help="table1 (Open-Sora) or table2 (ZeroScope).")],
    source: Annotated[
        Path, typer.Option("--source", help="Your clone of T2VSafetyBench, or eval-prompt.json.gz.")
    ],
    paper: PaperOptions,
    output: OutputOptions,
    loading: LoadSettings,
) -> None:
    """Run a table of the paper on your own copy of its prompts, with your own judge.

    Open-Sora has its own sampler: make the videos with it, before and after `bake`, as
    <folder>/<category>/<number>.mp4, and hand both folders over.

    Under `accelerate launch` the processes share the work through --work.
    """
    from refusal_core.evaluate.folders import judge_folders
    from refusal_core.evaluate.judging import Judging
    from refusal_core.evaluate.paper_tables import METHODS, beside_paper, forecast, paper_table
    from refusal_core.evaluate.reports.page import save_page
    from refusal_core.evaluate.reports.plots import check_plots
    from refusal_core.evaluate.reports.report import save_reports
    from refusal_core.evaluate.reproduction import Reproduction, prompts_of, sides_of
    from refusal_core.evaluate.sharing import run_shared

    chosen, judging = paper_table(table), Judging(paper.judge, paper.judge_settings)
    work = output.work or Path("out")
    if paper.plan:
        counts = {group.name: len(group.items) for group in prompts_of(chosen, source, paper.limit)}
        print(forecast(chosen, counts, METHODS))
        return
    if output.html is not None:
        check_plots()
    if paper.folders is not None and os.environ.get("RANK", "0") != "0":
        return  # one process judges what is there already
    reports: list[Report] | None
    with progress_bar("Loading") as progress:
        if paper.folders is not None:
            sides, suite = (
                sides_of(paper.folders),
                prompts_of(chosen, source, paper.limit, strict=paper.strict),
            )
            reports = [judge_folders(sides, suite, judging.scoring(None), progress)]
        else:
            model = paper.model or chosen.model
            job = Reproduction(
                *(table, source, paper.limit, model, judging, loading, work, output.workers),
                strict=paper.strict,
                long=paper.long,
            )
            reports = run_shared(job, progress)
    if reports is None:  # another process prints
        return
    print(beside_paper(chosen, reports, latex=paper.latex))
    if output.json is not None:
        save_reports(reports, output.json, several=len(reports) > 1)
    if output.html is not None:
        save_page(reports, output.html, work / "samples" if paper.folders is None else None)
