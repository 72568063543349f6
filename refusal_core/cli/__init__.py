"""The command line. Heavy imports stay inside commands, so that ``--help`` answers at once."""

from __future__ import annotations

import sys

import typer

from refusal_core.cli import (
    bench,
    compare,
    distance,
    edit,
    evaluate,
    export,
    models,
    reproduce,
    selftest,
    sweep,
    toyworld,
    tune,
)
from refusal_core.errors import RefusalError

INTERRUPTED = 130
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Remove a concept from a text-to-video diffusion model in closed form, and see the result.",
)
app.command()(compare.compare)
app.command()(edit.edit)
app.command()(edit.info)
app.command()(evaluate.evaluate)
app.command()(evaluate.report)
app.command()(evaluate.votes)
app.command()(distance.distance)
app.command()(sweep.sweep)
app.command()(tune.tune)
app.command()(bench.bench)
app.command()(export.export)
app.command()(selftest.selftest)
app.command()(reproduce.reproduce)
app.command()(models.bake)
app.command()(export.push)
app.add_typer(models.app, name="models")
app.add_typer(toyworld.app, name="toyworld")


def main() -> None:
    """Run a command; a known failure is one sentence on stderr and exit code 2."""
    try:
        app()
    except RefusalError as e:
        print(f"Error: {e}", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit as e:
        if e.code == INTERRUPTED:  # typer has turned Ctrl-C into this code
            print("Stopped. Nothing was left half-written.", file=sys.stderr)
        raise
