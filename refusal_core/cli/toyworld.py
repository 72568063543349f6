"""``toyworld train`` makes the bundled model; ``toyworld check`` prints how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refusal_core.cli.options import Json
from refusal_core.cli.screen import progress_bar, save_json

if TYPE_CHECKING:
    from refusal_core.toyworld.training.check import CheckReport

MODELS = {"wan": "toyworld", "unet3d": "toyworld-unet3d", "language": "toyworld-language"}  # by family
TRAININGS = {"wan": "train", "unet3d": "unet", "language": "language"}
app = typer.Typer(no_args_is_help=True, help="The bundled model: train it, check it.")


@app.command()
def train(
    work: Annotated[
        Path, typer.Option("--work", help="Checkpoints; a stopped run goes on from here.")
    ] = Path(".train"),
    out: Annotated[Path | None, typer.Option("--out", help="Default: assets/models.")] = None,
    family: Annotated[str, typer.Option("--family", help="wan, unet3d or language.")] = "wan",
) -> None:
    """Train a bundled model from nothing, then check it and write its card.

    With wan comes the judge; language goes on from wan, and has a judge of its own.
    """
    import importlib
    import logging

    from rich.logging import RichHandler

    from refusal_core.errors import InputError
    from refusal_core.models.load import ASSETS

    if family not in TRAININGS:
        raise InputError(f"Family '{family}' is not known; choose one of {', '.join(TRAININGS)}.")
    run = importlib.import_module(f"refusal_core.toyworld.training.{TRAININGS[family]}").train
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    assets = ASSETS if out is None else out
    run(work, assets)
    _check(MODELS[family], assets, videos=200, card=True)


@app.command()
def check(
    model: Annotated[str, typer.Option("--model", help="A bundled one.")] = "toyworld",
    videos: Annotated[int, typer.Option("--videos", min=1, help="Generated clips a row.")] = 200,
    card: Annotated[bool, typer.Option("--card", help="Also write model card and contact sheets.")] = False,
    json: Json = None,
) -> None:
    """Print the judge's accuracy and what the bundled model draws when asked."""
    from pydantic import TypeAdapter

    from refusal_core.errors import InputError
    from refusal_core.models.load import ASSETS

    if model not in MODELS.values():
        raise InputError(f"'{model}' is no bundled model; choose one of {', '.join(MODELS.values())}.")
    report = _check(model, ASSETS, videos, card)
    save_json(json, TypeAdapter(type(report)).dump_python(report, mode="json"))


def _check(name: str, assets: Path, videos: int, card: bool) -> CheckReport:
    from refusal_core.models.load import BUNDLED, load_model, world_of
    from refusal_core.toyworld.training.card import write_card
    from refusal_core.toyworld.training.check import EXAMS
    from refusal_core.toyworld.training.check import check as measured

    with progress_bar("Loading") as progress:
        folder = assets / BUNDLED[name].folder
        model, judges = load_model(str(folder)), assets / "toyworld-judge"
        report = measured(model, EXAMS[world_of(name)], judges, videos, progress=progress)
        if card:
            write_card(model, name, folder, report)
    print("\n".join(report.lines()))
    return report


@app.command()
def examples(
    out: Annotated[Path | None, typer.Option("--out", help="Default: assets/examples.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise.")] = 7,
    model: Annotated[str, typer.Option("--model", help="A bundled one.")] = "toyworld-language",
) -> None:
    """Write what the app opens on: each concept of a bundled model, original and unlearned, with verdicts."""
    from refusal_core.workbench.examples import EXAMPLES, save_examples
    from refusal_core.workbench.workbench import Workbench

    with progress_bar("Loading") as progress:
        workbench = Workbench(model)
        try:
            index = save_examples(workbench, EXAMPLES if out is None else out, seed, progress=progress)
        finally:
            workbench.close()
    print(index)


@app.command()
def presets(
    out: Annotated[Path | None, typer.Option("--out", help="Default: presets/.")] = None,
) -> None:
    """Write the five toy presets from the world's preset split."""
    from refusal_core.concepts import PRESETS
    from refusal_core.toyworld.training.presets import write

    write(PRESETS if out is None else out)
