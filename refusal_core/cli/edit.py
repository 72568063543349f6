"""``edit`` makes an edit file; ``info`` prints what one holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.screen import (
    DenoiserOption,
    DeviceOption,
    DtypeOption,
    GuessOption,
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


def edit(
    out: Annotated[Path, typer.Option("--out", help="The edit file to write, .safetensors.")],
    model: ModelOption = "toyworld",
    preset: PresetOption = "fire",
    pairs: PairsOption = None,
    sites: SitesOption = None,
    layers: LayersOption = None,
    rank: RankOption = None,
    strength: StrengthOption = None,
    method: MethodOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    offload: OffloadOption = "none",
    revision: RevisionOption = None,
    denoiser: DenoiserOption = None,
    guess: GuessOption = False,
) -> None:
    """Make an edit from prompt pairs and save it as one small file."""
    from refusal_core.concepts import load_preset
    from refusal_core.edit import save_edit
    from refusal_core.errors import InputError
    from refusal_core.models.load import load_model
    from refusal_core.recipe import build

    if out.suffix != ".safetensors":
        raise InputError(f"'{out.name}' must end in .safetensors.")
    chosen = load_preset(preset)
    settings = load_settings(device, dtype, offload, revision, denoiser, guess=guess)
    with progress_bar("Loading") as progress:
        loaded = load_model(model, settings, progress=progress)
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
        made, found = build(loaded, recipe, held_out=True, progress=progress)
        save_edit(made, out)
    print(f"{out}: {len(made.sites)} sites, {out.stat().st_size / 1024:.0f} kB")
    for note in found.notes:
        print(f"Note: {note}")


def info(file: Annotated[Path, typer.Argument(help="An edit file.")]) -> None:
    """Print an edit's recipe and its figures per layer."""
    from rich.console import Console
    from rich.table import Table

    from refusal_core.edit import load_edit

    found = load_edit(file)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    model = found.model
    console.print(f"model     {model.pipeline}, family {model.family}, weights {model.weights}")
    for origin in found.origins:
        s = origin.subspace
        console.print(
            f"concept   {origin.concept}: {s.method}, rank {s.rank}, strength {origin.strength:g},"
            f" anchor {origin.anchor}, alpha {s.alpha:g} ({'relative' if s.relative else 'raw'})"
        )
        for unsafe, safe in origin.pairs:
            console.print(f"pair      {unsafe}  |  {safe}")
        console.print("versions  " + ", ".join(f"{k} {v}" for k, v in origin.versions.items()))
        table = Table("site", "kept share", "rank", "available", "AUC", "d'", box=None)
        for f in origin.figures:
            held_out = ["-" if v is None else f"{v:.2f}" for v in (f.auc, f.d_prime)]
            table.add_row(f.site, f"{f.kept_share:.3f}", str(f.rank_used), str(f.rank_available), *held_out)
        Console(width=120).print(table)
