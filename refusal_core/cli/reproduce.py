"""``reproduce`` makes the paper's tables again, with the paper's figures in columns beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.screen import DtypeOption, OffloadOption, RevisionOption, load_settings, progress_bar


def reproduce(
    table: Annotated[str, typer.Argument(help="table1 (Open-Sora) or table2 (ZeroScope).")],
    source: Annotated[
        Path,
        typer.Option("--source", help="Your clone of T2VSafetyBench, or eval-prompt.json.gz."),
    ],
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
    work: Annotated[Path, typer.Option("--work", help="Readings: a stopped run goes on.")] = Path("out"),
    dtype: DtypeOption = "auto",
    offload: OffloadOption = "none",
    revision: RevisionOption = None,
) -> None:
    """Run a table of the paper on your own copy of its prompts, with your own judge.

    Open-Sora has its own sampler: make the videos with it, before and after `bake`, as
    <folder>/<category>/<number>.mp4, and hand both folders over.
    """
    from refusal_core.evaluate.reproduce import METHODS, beside_paper, paper_table
    from refusal_core.evaluate.reproduce import plan as plan_of
    from refusal_core.evaluate.reproducing import judged_folders, prompts_of, run_table

    chosen = paper_table(table)
    loading = load_settings(dtype, offload, revision)
    if plan:
        counts = {group.name: len(group.items) for group in prompts_of(chosen, source, limit)}
        print(plan_of(chosen, counts, METHODS))
        return
    with progress_bar("Loading") as progress:
        if folders is not None:
            reports = [judged_folders(chosen, source, limit, folders, judge, judge_settings, progress)]
        else:
            reports = run_table(chosen, source, limit, model, judge, judge_settings, work, loading, progress)
    print(beside_paper(chosen, reports))
