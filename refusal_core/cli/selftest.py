"""``selftest`` tries on a model that whatever goes wrong, every weight is what it was."""

from __future__ import annotations

from typing import Annotated

import typer

from refusal_core.cli.screen import (
    DenoiserOption,
    DeviceOption,
    DtypeOption,
    GuessOption,
    ModelOption,
    OffloadOption,
    RevisionOption,
    load_settings,
    progress_bar,
)


def selftest(
    model: ModelOption = "toyworld",
    cycles: Annotated[int, typer.Option("--cycles", help="Random edits in and out.")] = 50,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    offload: OffloadOption = "none",
    revision: RevisionOption = None,
    denoiser: DenoiserOption = None,
    guess: GuessOption = False,
) -> None:
    """Put faults in at every point of an edit, and check that the weights come back bit for bit."""
    from rich.console import Console
    from rich.table import Table

    from refusal_core.evaluate.faults import start_trial
    from refusal_core.evaluate.reliability import check_all
    from refusal_core.models.load import load_model
    from refusal_core.progress import part

    settings = load_settings(device, dtype, offload, revision, denoiser, guess=guess)
    with progress_bar("Loading") as progress:
        loaded = load_model(model, settings, progress=part(progress, 0.0, 0.1))
        trial = start_trial(loaded, cycles)
        checks = check_all(trial, part(progress, 0.1, 1.0))
    table = Table("", "weights are sacred", "tries", "", box=None)
    for check in checks:
        mark = "-" if check.note else "✓" if check.held else "✗"
        table.add_row(mark, check.title, str(check.tries), check.trouble or check.note)
    console = Console(width=160, highlight=False, markup=False)
    console.print(table)
    sites = f"{len(trial.edit.sites)} of {len(loaded.sites)} sites, {trial.changes} weights and biases"
    console.print(f"{loaded.name}: {len(trial.hashes)} tensors hashed; {sites}")
    if not all(check.held for check in checks):
        raise typer.Exit(1)
