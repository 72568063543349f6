"""``edit`` makes an edit file; ``compare`` makes videos with it; ``info`` prints what a file holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.options import Changes, ConceptOptions, Json, ModelOptions
from refusal_core.cli.screen import progress_bar, show_rows
from refusal_core.models.load_settings import LoadSettings
from refusal_core.settings import Knob, SamplingSettings


def edit(
    out: Annotated[Path, typer.Option("--out", help="The edit file to write, .safetensors.")],
    model: ModelOptions,
    concept: ConceptOptions,
    changes: Changes,
    loading: LoadSettings,
) -> None:
    """Make an edit from prompt pairs and save it as one small file."""
    from refusal_core.edit import save_edit
    from refusal_core.errors import InputError
    from refusal_core.recipe import build

    if out.suffix != ".safetensors":
        raise InputError(f"'{out.name}' must end in .safetensors.")
    with progress_bar("Loading") as progress:
        loaded = model.load(loading, progress)
        _, recipe = concept.recipe(loaded, changes)
        made, directions = build(loaded, recipe, held_out=True, progress=progress)
        save_edit(made, out)
    print(f"{out}: {len(made.sites)} sites, {out.stat().st_size / 1024:.0f} kB")
    for note in directions.notes:
        print(f"Note: {note}")


@dataclass(frozen=True, slots=True)
class ShownOptions:
    """What is shown."""

    prompt: str | None = Knob("What the videos show; by default the preset's prompt.").at(None)
    out: Path = Knob("The folder to write to.").at(Path("out"))


def compare(
    shown: ShownOptions,
    model: ModelOptions,
    concept: ConceptOptions,
    changes: Changes,
    sampling: SamplingSettings,
    loading: LoadSettings,
) -> None:
    """Generate a prompt without and with the edit: original, unlearned and side-by-side mp4, recipe."""
    from refusal_core.io.files import write_json
    from refusal_core.io.video import save_video
    from refusal_core.progress import part
    from refusal_core.recipe import build, describe
    from refusal_core.sampling import compare as compare_videos

    with progress_bar("Loading") as progress:
        loaded = model.load(loading, part(progress, 0.0, 0.1))
        preset, recipe = concept.recipe(loaded, changes)
        made, directions = build(loaded, recipe, progress=part(progress, 0.1, 0.3))
        text = preset.prompt if shown.prompt is None else shown.prompt
        pair = compare_videos(loaded, made, text, sampling, progress=part(progress, 0.3, 1.0))
    out, written = shown.out, describe(loaded, recipe, made, text, sampling)
    save_video(pair.original, out / "original.mp4", {**written, "shows": "original"})
    save_video(pair.unlearned, out / "unlearned.mp4", {**written, "shows": "unlearned"})
    pair.save(out / "side_by_side.mp4", {**written, "shows": "original | unlearned"})
    write_json(out / "recipe.json", written)
    print(f"{out}: original.mp4, unlearned.mp4, side_by_side.mp4, recipe.json")
    for note in directions.notes:
        print(f"Note: {note}")


def info(file: Annotated[Path, typer.Argument(help="An edit file.")], json: Json = None) -> None:
    """Print an edit's recipe and its figures at each site."""
    from dataclasses import asdict

    from refusal_core.edit import load_edit
    from refusal_core.io.reading import shown

    found = load_edit(file)
    model = found.model
    print(f"model     {model.pipeline}, family {model.family}, weights {model.weights}")
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
