"""The command line. Heavy imports stay inside commands, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer

from refusal_core.cli import app as studio
from refusal_core.cli import (
    attack,
    bench,
    edit,
    evaluate,
    export,
    models,
    report,
    reproduce,
    selftest,
    sweep,
    toyworld,
)
from refusal_core.cli.interrupted import insisting
from refusal_core.cli.options import with_options
from refusal_core.errors import RefusalError

INTERRUPTED = 130
USE, MEASURE, MODELS, DEVELOP = (
    "Use: make an edit, look at it, and hand it on.",
    "Measure: what an edit removes, and what it keeps.",
    "Models: what can be edited, and whether every step holds on it.",
    "Develop: make the bundled model, and repeat the paper.",
)
COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    USE: (studio.app, edit.edit, edit.compare, edit.info, export.export, export.bake, export.push),
    MEASURE: (
        evaluate.evaluate,
        attack.attack,
        edit.statement,
        report.report,
        sweep.sweep,
        sweep.tune,
        report.votes,
        report.distance,
    ),
    MODELS: (selftest.selftest, bench.bench),
    DEVELOP: (reproduce.reproduce,),
}
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Remove a concept from a text-to-video diffusion model in closed form, and see the result.",
)
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(with_options(command))
app.add_typer(models.app, name="models", rich_help_panel=MODELS)
app.add_typer(toyworld.app, name="toyworld", rich_help_panel=DEVELOP)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, by default the process's own; a known failure is one sentence and exit code 2."""
    with insisting() as dropped:
        try:
            app(arguments)
        except RefusalError as e:
            print(f"Error: {e}", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:  # it came where typer had ended already
            print("Stopped. Nothing was left half-written.", file=sys.stderr)
            raise SystemExit(INTERRUPTED) from None
        except SystemExit as e:
            if e.code == INTERRUPTED or (dropped and not e.code):  # typer has turned Ctrl-C into this code
                print("Stopped. Nothing was left half-written.", file=sys.stderr)
                raise SystemExit(INTERRUPTED) from None
            raise
