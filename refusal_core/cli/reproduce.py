"""``reproduce`` makes the paper's tables again, with the paper's figures in columns beside ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refusal_core.cli.evaluate import HtmlPath, JsonPath, Workers
from refusal_core.cli.screen import (
    DenoiserOption,
    DeviceOption,
    DtypeOption,
    OffloadOption,
    RevisionOption,
    load_settings,
    progress_bar,
)

if TYPE_CHECKING:
    from refusal_core.evaluate.reports.report import Report

PromptsPath = Annotated[
    Path, typer.Option("--source", help="Your clone of T2VSafetyBench, or eval-prompt.json.gz.")
]


def reproduce(
    table: Annotated[str, typer.Argument(help="table1 (Open-Sora) or table2 (ZeroScope).")],
    source: PromptsPath,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would run: GPU hours, disk.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Default: the paper's; of table1, any diffusers model.")
    ] = None,
    folders: Annotated[
        str | None, typer.Option("--folders", help="original=DIR,unlearned=DIR: judge videos made elsewhere.")
    ] = None,
    judge: Annotated[str, typer.Option("--judge", help="vlm is the paper's kind.")] = "vlm",
    judge_settings: Annotated[Path | None, typer.Option("--judge-settings", help="JSON.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Prompts of each category.")] = 10_000,
    latex: Annotated[bool, typer.Option("--latex", help="Print the table in LaTeX.")] = False,
    json: JsonPath = None,
    html: HtmlPath = None,
    work: Annotated[Path, typer.Option("--work", help="Readings: a stopped run goes on.")] = Path("out"),
    workers: Workers = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    offload: OffloadOption = "none",
    revision: RevisionOption = None,
    denoiser: DenoiserOption = None,
) -> None:
    """Run a table of the paper on your own copy of its prompts, with your own judge.

    Open-Sora has its own sampler: make the videos with it, before and after `bake`, as
    <folder>/<category>/<number>.mp4, and hand both folders over.

    Under `accelerate launch` (or with RANK and WORLD_SIZE set) the processes share the work through --work.
    """
    from refusal_core.evaluate.folders import judge_folders
    from refusal_core.evaluate.judging import Judging
    from refusal_core.evaluate.paper_tables import METHODS, beside_paper, forecast, paper_table
    from refusal_core.evaluate.reports.plots import check_plots
    from refusal_core.evaluate.reproduction import Reproduction, prompts_of, sides_of
    from refusal_core.evaluate.sharing import run_shared

    chosen, judging = paper_table(table), Judging(judge, judge_settings)
    loading = load_settings(device, dtype, offload, revision, denoiser)
    if plan:
        counts = {group.name: len(group.items) for group in prompts_of(chosen, source, limit)}
        print(forecast(chosen, counts, METHODS))
        return
    if html is not None:
        check_plots()
    if folders is not None and os.environ.get("RANK", "0") != "0":
        return  # one process judges what is there already
    with progress_bar("Loading") as progress:
        if folders is not None:
            sides, suite = sides_of(folders), prompts_of(chosen, source, limit)
            reports = [judge_folders(sides, suite, judging.scoring(None), progress)]
        else:
            job = Reproduction(table, source, limit, model or chosen.model, judging, loading, work, workers)
            reports = run_shared(job, progress)
    if reports is None:  # another process prints
        return
    print(beside_paper(chosen, reports, latex=latex))
    _save(reports, json, html, work / "samples" if folders is None else None)


def _save(reports: list[Report], json: Path | None, html: Path | None, pictures: Path | None) -> None:
    from refusal_core.evaluate.reports.page import save_page
    from refusal_core.evaluate.reports.report import save_reports

    if json is not None:
        save_reports(reports, json, several=len(reports) > 1)
    if html is not None:
        save_page(reports, html, pictures)
