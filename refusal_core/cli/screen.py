"""What the commands share on the screen: a progress bar on stderr, and the options of an edit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refusal_core.progress import Progress

if TYPE_CHECKING:
    from refusal_core.concepts import Preset
    from refusal_core.models.load import LoadSettings
    from refusal_core.models.model import Model
    from refusal_core.recipe import Recipe

ModelOption = Annotated[str, typer.Option("--model", help="toyworld, a diffusers folder, or a hub id.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps …")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32, float16 or bfloat16.")]
OffloadOption = Annotated[
    str, typer.Option("--offload", help="Where the GPU is too small: model, sequential or group.")
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Of a hub id: a tag or a commit.")]
DenoiserOption = Annotated[
    Path | None, typer.Option("--denoiser", help="A single .safetensors file to take the denoiser from.")
]
CompileOption = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile blocks first; default: where a bundled model makes thousands of videos.",
    ),
]
GuessOption = Annotated[
    bool, typer.Option("--guess", help="Look for the structure of an unknown pipeline, and ask.")
]
ImageOption = Annotated[
    Path | None, typer.Option("--image", help="Where the video starts, for image-to-video models.")
]
PresetOption = Annotated[str, typer.Option("--preset", help="A preset's name, or a path to its JSON file.")]
PresetsOption = Annotated[
    str, typer.Option("--preset", help="Names with commas between, a path, or all of the toy world.")
]
PairsOption = Annotated[Path | None, typer.Option("--pairs", help="JSON with your own pairs.")]
SitesOption = Annotated[
    str | None, typer.Option("--sites", help="Kinds of sites, e.g. text,cross-attention.")
]
LayersOption = Annotated[str | None, typer.Option("--layers", help="Layers, e.g. 0-7 or 2,5; default all.")]
RankOption = Annotated[int | None, typer.Option("--rank", help="Directions kept.")]
StrengthOption = Annotated[
    float | None, typer.Option("--strength", help="0 nothing, 1 all of the direction.")
]
MethodOption = Annotated[str | None, typer.Option("--method", help="rv, pca, cpca or whitened.")]


def load_settings(
    device: str,
    dtype: str,
    offload: str,
    revision: str | None,
    denoiser: Path | None,
    *,
    guess: bool = False,
    compiled: bool = False,
) -> LoadSettings:
    """Return how a model is loaded as the options say; a guessed structure is shown and must be confirmed.

    Raises InputError for a value that is not known.
    """
    from refusal_core.models.load import LoadSettings

    return LoadSettings(
        device=device,
        dtype=dtype,
        offload=offload,  # type: ignore[arg-type]  # checked there
        revision=revision,
        denoiser=denoiser,
        compiled=compiled,
        accept_guess=_confirm if guess else None,
    )


def _confirm(description: str) -> bool:
    return typer.confirm(f"\n{description}\nIs this right?", err=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a bar with time left on stderr while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda fraction, sentence: bar.update(task, completed=fraction, description=sentence)


def recipe_from_options(
    preset: Preset,
    model: Model,
    *,
    pairs: Path | None,
    sites: str | None,
    layers: str | None,
    rank: int | None,
    strength: float | None,
    method: str | None,
) -> Recipe:
    """Return the preset's recipe with what the options change."""
    from dataclasses import replace

    from refusal_core.concepts import load_pairs
    from refusal_core.recipe import preset_recipe
    from refusal_core.settings import parse_layers

    recipe = preset_recipe(preset, model)
    if pairs is not None:
        recipe = replace(recipe, concept=replace(recipe.concept, pairs=load_pairs(pairs)))
    if sites is not None:
        kinds = tuple(k.strip() for k in sites.split(","))
        recipe = replace(recipe, capture=replace(recipe.capture, kinds=kinds))
    if layers is not None:
        chosen = parse_layers(layers, model.block_count)
        recipe = replace(recipe, capture=replace(recipe.capture, layers=chosen))
    if method is not None and method != recipe.subspace.method:
        recipe = replace(recipe, subspace=replace(recipe.subspace, method=method))
    if rank is not None:
        recipe = replace(recipe, subspace=replace(recipe.subspace, rank=rank))
    if strength is not None:
        recipe = replace(recipe, edit=replace(recipe.edit, strength=strength))
    return recipe
