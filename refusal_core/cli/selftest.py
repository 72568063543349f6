"""``selftest`` tries on a model that whatever goes wrong, every weight is what it was."""

from __future__ import annotations

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
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    offload: OffloadOption = "none",
    revision: RevisionOption = None,
    denoiser: DenoiserOption = None,
    guess: GuessOption = False,
) -> None:
    """Edit a model's weights, put faults in, and check that every weight comes back bit for bit."""
    from rich.console import Console
    from rich.table import Table

    from refusal_core.evaluate.selftest import selftest as run
    from refusal_core.models.load import load_model
    from refusal_core.progress import part

    settings = load_settings(device, dtype, offload, revision, denoiser, guess=guess)
    with progress_bar("Loading") as progress:
        loaded = load_model(model, settings, progress=part(progress, 0.0, 0.1))
        checks = run(loaded, part(progress, 0.1, 1.0))
    table = Table("", "weights are sacred", "tries", "", box=None)
    for check in checks:
        table.add_row("✗" if check.trouble else "✓", check.title, str(check.tries), check.trouble)
    Console(width=160, highlight=False, markup=False).print(table)
    if any(check.trouble for check in checks):
        raise typer.Exit(1)
