"""``selftest`` tries on a model that whatever goes wrong, every weight is what it was."""

from __future__ import annotations

import typer

from refusal_core.cli.options import Json, ModelOptions
from refusal_core.cli.screen import progress_bar, show_rows
from refusal_core.models.load_settings import LoadSettings


def selftest(model: ModelOptions, loading: LoadSettings, json: Json = None) -> None:
    """Edit a model's weights, put faults in, and check that every weight comes back bit for bit."""
    from refusal_core.evaluate.selftest import selftest as run
    from refusal_core.progress import part

    with progress_bar("Loading") as progress:
        loaded = model.load(loading, part(progress, 0.0, 0.1))
        checks = run(loaded, part(progress, 0.1, 1.0))
    rows = [
        {"weights are sacred": c.title, "tries": c.tries, "held": {"ok": not c.trouble, "why": c.trouble}}
        for c in checks
    ]
    show_rows(rows, json, "checks")
    if any(check.trouble for check in checks):
        raise typer.Exit(1)
