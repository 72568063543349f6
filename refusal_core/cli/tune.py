"""``tune`` searches settings on the tuning split and prints the best trade-offs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.screen import ModelOption, PresetOption, progress_bar


def tune(
    work: Annotated[
        Path, typer.Option("--work", help="Trials and readings; several processes may share it.")
    ],
    model: ModelOption = "toyworld",
    preset: PresetOption = "fire",
    trials: Annotated[int, typer.Option("--trials", min=1, help="In all, former runs among them.")] = 40,
    videos: Annotated[int, typer.Option("--videos", min=1, help="Videos in each cell and trial.")] = 40,
    plot: Annotated[Path | None, typer.Option("--plot", help="Also write the front as PNG.")] = None,
) -> None:
    """Search rank, strength, sites, anchor and shrinkage for what erases most and keeps most.

    Only prompts of the tuning split are used; judge the result with `evaluate`, on other prompts.
    The same command goes on where it was stopped; run several times at once, it shares out the trials.
    """
    from pandas import DataFrame

    from refusal_core.evaluate.reports.tables import as_markdown
    from refusal_core.evaluate.tune import Tuning, table_of

    with progress_bar("Loading") as progress:
        front = Tuning(model, preset, trials, videos, work).run(progress)
    print(as_markdown(DataFrame(table_of(front), columns=["settings", "erased", "kept"])))
    if plot is not None:
        from refusal_core.evaluate.reports.plots import pareto_plot, save_figure

        save_figure(pareto_plot({t.point.name: (t.kept, t.erased) for t in front}), plot)
