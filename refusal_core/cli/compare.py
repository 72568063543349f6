"""``compare`` writes the original and the unlearned video of one prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.screen import (
    DenoiserOption,
    DeviceOption,
    DtypeOption,
    GuessOption,
    ImageOption,
    LayersOption,
    MethodOption,
    ModelOption,
    OffloadOption,
    PairsOption,
    PresetOption,
    RankOption,
    RevisionOption,
    SitesOption,
    StrengthOption,
    load_settings,
    progress_bar,
    recipe_from_options,
)


def compare(
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.")],
    model: ModelOption = "toyworld",
    preset: PresetOption = "fire",
    prompt: Annotated[str | None, typer.Option("--prompt", help="Default: the preset's prompt.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise; both videos share it.")] = 0,
    pairs: PairsOption = None,
    sites: SitesOption = None,
    layers: LayersOption = None,
    rank: RankOption = None,
    strength: StrengthOption = None,
    method: MethodOption = None,
    image: ImageOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    offload: OffloadOption = "none",
    revision: RevisionOption = None,
    denoiser: DenoiserOption = None,
    guess: GuessOption = False,
) -> None:
    """Generate a prompt without and with the edit: original, unlearned and side-by-side mp4, recipe."""
    from refusal_core.concepts import load_preset
    from refusal_core.io.files import write_json
    from refusal_core.io.video import save_video
    from refusal_core.models.load import load_model
    from refusal_core.progress import part
    from refusal_core.recipe import build, describe
    from refusal_core.sampling import compare as compare_videos
    from refusal_core.settings import SamplingSettings

    chosen = load_preset(preset)
    sampling = SamplingSettings(seed=seed, image=image)
    settings = load_settings(device, dtype, offload, revision, denoiser, guess=guess)
    with progress_bar("Loading") as progress:
        loaded = load_model(model, settings, progress=part(progress, 0.0, 0.1))
        recipe = recipe_from_options(
            chosen,
            loaded,
            pairs=pairs,
            sites=sites,
            layers=layers,
            rank=rank,
            strength=strength,
            method=method,
        )
        made, found = build(loaded, recipe, progress=part(progress, 0.1, 0.3))
        text = chosen.prompt if prompt is None else prompt
        pair = compare_videos(loaded, made, text, sampling, progress=part(progress, 0.3, 1.0))
    written = describe(loaded, recipe, made, text, sampling)
    save_video(pair.original, out / "original.mp4", {**written, "shows": "original"})
    save_video(pair.unlearned, out / "unlearned.mp4", {**written, "shows": "unlearned"})
    pair.save(out / "side_by_side.mp4", {**written, "shows": "original | unlearned"})
    write_json(out / "recipe.json", written)
    print(f"{out}: original.mp4, unlearned.mp4, side_by_side.mp4, recipe.json")
    for note in found.notes:
        print(f"Note: {note}")
