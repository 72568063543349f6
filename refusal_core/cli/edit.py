"""``edit`` makes an edit file; ``compare`` makes videos with it; ``info`` prints what a file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refusal_core.cli.options import Changes, ConceptOptions, Json, ModelOptions
from refusal_core.cli.screen import announce, progress_bar, save_json, show_rows
from refusal_core.models.load_settings import LoadSettings
from refusal_core.settings import Knob, SamplingSettings

if TYPE_CHECKING:
    from refusal_core.io.video import VideoPair
    from refusal_core.recipe import Recipe
    from refusal_core.workbench.remaking import VideoRecipe


def edit(
    out: Annotated[Path, typer.Option("--out", help="The edit file to write, .safetensors.")],
    model: ModelOptions,
    concept: ConceptOptions,
    changes: Changes,
    loading: LoadSettings,
) -> None:
    """Make an edit from prompt pairs and save it as one small file."""
    from refusal_core.capturing import capture_price
    from refusal_core.edit import save_edit, sound_note
    from refusal_core.errors import InputError
    from refusal_core.recipe import build

    if out.suffix != ".safetensors":
        raise InputError(f"'{out.name}' must end in .safetensors.")
    with progress_bar("Loading") as progress:
        loaded = model.load(loading, progress)
        _, recipe = concept.recipe(loaded, changes)
        announce(capture_price(loaded, recipe.concept, recipe.capture).sentence())
        made, directions = build(loaded, recipe, held_out=True, progress=progress)
        save_edit(made, out)
    _print_made(concept, recipe)
    print(f"{out}: {len(made.sites)} sites, {out.stat().st_size / 1024:.0f} kB")
    for note in (*directions.notes, *sound_note(made)):
        print(f"Note: {note}")


def _print_made(options: ConceptOptions, recipe: Recipe) -> None:
    """Print the pairs that were made from a phrase, so that a person sees what was removed."""
    if options.concept is not None:
        for pair in recipe.concept.pairs:
            print(f"pair      {pair.unsafe}  |  {pair.safe}")
        print(f"and {len(recipe.concept.neutral)} ordinary prompts, such as: {recipe.concept.neutral[-1]}")


@dataclass(frozen=True, slots=True)
class ShownOptions:
    """What is shown."""

    prompt: str | None = Knob("What the videos show; by default the preset's prompt.").at(None)
    out: Path = Knob("The folder to write to.").at(Path("out"))
    recipe: Path | None = Knob("Make the video again that this mp4, or its recipe.json, tells of.").at(None)


BESIDE_A_RECIPE = frozenset(
    ("recipe", "out", "model", "guess", "device", "offload", "denoiser", "denoiser_2", "image", "cache")
)
"""What may stand beside ``--recipe``: where things lie and run. All else is told by the recipe."""


def compare(
    shown: ShownOptions,
    model: ModelOptions,
    concept: ConceptOptions,
    changes: Changes,
    sampling: SamplingSettings,
    loading: LoadSettings,
) -> None:
    """Generate a prompt without and with the edit: original, unlearned and side-by-side mp4, recipe.

    With --recipe its video is made again: on the same machine every frame is the same.
    """
    from refusal_core.capturing import capture_price
    from refusal_core.progress import part
    from refusal_core.recipe import build_together
    from refusal_core.sampling import asked_size, size_note
    from refusal_core.sampling import compare as compare_videos
    from refusal_core.workbench.remaking import as_told, describe, other_versions

    told = None if shown.recipe is None else _told(shown.recipe, changes.given, sampling, loading)
    with progress_bar("Loading") as progress:
        step = part(progress, 0.0, 0.1)
        if told is None:
            loaded = model.load(loading, step)
            preset, recipe = concept.recipe(loaded, changes)
            recipes: tuple[Recipe, ...] = (recipe,)
            text = preset.prompt if shown.prompt is None else shown.prompt
        else:
            named = model if "model" in changes.given else replace(model, model=told.model)
            loaded = as_told(told, named.load(told.loading, step))
            recipes, text, sampling = told.edits, told.prompt, told.sampling
        for one in recipes:
            announce(capture_price(loaded, one.concept, one.capture).sentence())
        announce(f"Then 2 videos, {asked_size(loaded, sampling)}")
        made, clamped = build_together(loaded, recipes, progress=part(progress, 0.1, 0.3))
        written = describe(loaded, recipes, made, text, sampling)
        pair = compare_videos(loaded, made, text, sampling, progress=part(progress, 0.3, 1.0))
    _print_made(concept, recipes[0])
    _save(pair, written, shown.out)
    rounded = size_note(loaded, sampling, pair.original)
    for note in (*clamped, *rounded, *(other_versions(told, made) if told else ())):
        print(f"Note: {note}")


def _told(
    file: Path, given: frozenset[str], sampling: SamplingSettings, loading: LoadSettings
) -> VideoRecipe:
    """Return a file's recipe on this machine; refuse options that it tells itself."""
    from refusal_core.errors import InputError
    from refusal_core.settings import values_of
    from refusal_core.workbench.remaking import load_video_recipe

    if told := sorted(given - BESIDE_A_RECIPE):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in told)
        raise InputError(f"The recipe tells {options} itself: leave that out, or leave out --recipe.")
    values = values_of(sampling, loading)
    return load_video_recipe(file, {name: values[name] for name in given & values.keys()})


def _save(pair: VideoPair, written: Mapping[str, object], out: Path) -> None:
    from refusal_core.io.files import write_json
    from refusal_core.io.video import save_video

    save_video(pair.original, out / "original.mp4", {**written, "shows": "original"})
    save_video(pair.unlearned, out / "unlearned.mp4", {**written, "shows": "unlearned"})
    pair.save(out / "side_by_side.mp4", {**written, "shows": "original | unlearned"})
    write_json(out / "recipe.json", written)
    print(f"{out}: original.mp4, unlearned.mp4, side_by_side.mp4, recipe.json")


def info(file: Annotated[Path, typer.Argument(help="An edit file.")], json: Json = None) -> None:
    """Print an edit's recipe and its figures at each site."""
    from dataclasses import asdict

    from refusal_core.edit import load_edit, sound_note
    from refusal_core.io.reading import shown

    found = load_edit(file)
    model = found.model
    print(f"model     {model.pipeline}, family {model.family}, weights {model.weights}")
    for note in sound_note(found):
        print(f"Note: {note}")
    rows = []
    for origin in found.origins:
        s = origin.subspace
        print(
            f"concept   {origin.concept}: {s.method}, rank {s.rank}, strength {origin.strength:g},"
            f" anchor {origin.anchor}, alpha {s.alpha:g} ({'relative' if s.relative else 'raw'})"
        )
        for unsafe, safe in origin.pairs:
            print(f"pair      {shown(unsafe)}  |  {shown(safe)}")
        print("versions  " + ", ".join(f"{k} {v}" for k, v in origin.versions.items()))
        rows += [{"concept": origin.concept, **asdict(figures)} for figures in origin.figures]
    origins = [{k: v for k, v in asdict(origin).items() if k != "figures"} for origin in found.origins]
    show_rows(rows, json, "sites", more={"model": asdict(model), "origins": origins})


def statement(
    edit: Annotated[Path, typer.Option("--edit", help="An edit file.")],
    model: ModelOptions,
    loading: LoadSettings,
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="Others than it was made from (JSON, CSV, TSV).")
    ] = None,
    json: Json = None,
) -> None:
    """Say what an edit stops for certain, and how much of the concept still arrives by other ways."""
    from dataclasses import asdict

    from refusal_core.edit import load_edit
    from refusal_core.evaluate.statement import statement as stated
    from refusal_core.progress import part
    from refusal_core.workbench.pairs import read_pairs

    made = load_edit(edit)
    own = [pair for origin in made.origins for pair in origin.pairs]
    twins = own if pairs is None else [(p.unsafe, p.safe) for p in read_pairs(pairs)]
    with progress_bar("Loading") as progress:
        loaded = model.load(loading, part(progress, 0.0, 0.3))
        found = stated(loaded, made, twins, progress=part(progress, 0.3, 1.0))
    print("\n".join(found.lines()))
    if pairs is None:
        print("Note: measured on the pairs that the edit was made from; give others with --pairs.")
    save_json(json, asdict(found))
