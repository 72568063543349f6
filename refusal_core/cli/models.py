"""``models`` lists what is supported, shows what a model has to edit, and tries every step on each family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.options import Changes, Json, with_options
from refusal_core.cli.screen import progress_bar, save_json, show_rows
from refusal_core.models.load_settings import LoadSettings

app = typer.Typer(help="Supported models, and what they have to edit.", invoke_without_command=True)


@app.callback()
def models(context: typer.Context, json: Json = None) -> None:
    """List the families and the published models that are known."""
    if context.invoked_subcommand is not None:
        return
    from refusal_core.models.families import FAMILIES, LEFT_OUT

    rows = []
    for f in FAMILIES:
        d, known = f.defaults, [f"{c.source} ({c.licence})" for c in f.checkpoints]
        facts: dict[str, object] = {"id": f.name, "models": known, "pipelines": list(f.pipelines)}
        facts |= {"frames": d.frames, "size": f"{d.width}x{d.height}", "fps": d.fps, "steps": d.steps}
        rows.append(facts | {"guidance": d.guidance_scale, "LoRA": f.lora is not None})
    show_rows(rows, json, "families", more={"left_out": dict(LEFT_OUT)})
    for why in dict.fromkeys(LEFT_OUT.values()):
        kinds = [kind.removesuffix("Pipeline") for kind, reason in LEFT_OUT.items() if reason == why]
        print(f"Left out, {', '.join(kinds)}: {why}")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="toyworld, a hub id, or a diffusers folder.")],
    json: Json = None,
) -> None:
    """Print a model's editable layers with their shapes, from its configuration: no weights are needed."""
    from dataclasses import asdict

    from refusal_core.models.inventory import inventory
    from refusal_core.models.load import bundled_folder, read_defaults

    folder = bundled_folder(model) or model
    found = inventory(folder)
    small = found.parameters < 1e8
    count = f"{found.parameters / 1e6:.2f} M" if small else f"{found.parameters / 1e9:.2f} B"
    memory = f"{found.parameters * 2 / 1e6:.0f} MB" if small else f"{found.parameters * 2 / 1e9:.1f} GB"
    print(f"{found.source}: {found.family.title}, {count} parameters to denoise")
    print(f"memory for these weights: {memory} in bfloat16")
    print(f"licence: {found.licence}")
    d = read_defaults(Path(folder)) or found.defaults
    print(
        f"made for {d.frames} frames of {d.width}x{d.height}, {d.fps:g} a second, {d.steps} steps,"
        f" guidance {d.guidance_scale:g}"
    )
    for kind, inputs, outputs, sites in found.shapes():
        print(f"{sites:5d} x {kind:18s} {inputs:6d} -> {outputs}")
    print(f"layers 0-{max(site.block for site in found.sites)}, first site {found.sites[0].name}")
    if found.family.note:
        print(found.family.note)
    heads = ("kind", "inputs", "outputs", "sites")
    shapes = [dict(zip(heads, shape, strict=True)) for shape in found.shapes()]
    facts = {"model": found.source, "family": found.family.name, "parameters": found.parameters}
    save_json(json, {**facts, "licence": found.licence, "defaults": asdict(d), "shapes": shapes})


@app.command()
def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete it: the next edit reads them again.")
    ] = False,
) -> None:
    """Say where activations of neutral prompts are kept, and how much of them; --no-cache does without.

    The folder is activations in REFUSAL_STUDIO_DATA, else refusal-studio/activations in the user's cache.
    """
    from refusal_core.io.places import cache_folder
    from refusal_core.reading.kept import MOST_BYTES, clear_files, kept_bytes

    size = kept_bytes()
    print(f"{cache_folder()}: {size / 1e6:.1f} MB of at most {MOST_BYTES / 1e9:.0f} GB")
    if clear:
        print(f"deleted: {clear_files() / 1e6:.1f} MB")


@app.command()
@with_options
def cost(
    model: Annotated[str, typer.Argument(help="A published model, or a diffusers folder.")],
    changes: Changes,
    preset: Annotated[
        str, typer.Option("--preset", help="Whose edit is counted: a name, or a path to JSON.")
    ] = "real-nudity",
    json: Json = None,
) -> None:
    """Count what a video and an edit cost at a model's own size, before any weight is read."""
    from refusal_core.concepts import load_preset
    from refusal_core.evaluate.pricing import price
    from refusal_core.models.load import bundled_folder

    found = price(str(bundled_folder(model) or model), load_preset(preset), changes.values)
    print(f"{found.pairs} pairs and {found.neutral} neutral prompts; operations of the denoiser alone:\n")
    print("| step | PFLOP | videos |\n|---|---|---|")
    for line in found.table():
        print(line)
    if found.text_encoder is not None:
        print(f"\nThe text encoder adds {found.text_encoder:.1f} PFLOP, once for these prompts.")
    for name, size in found.memory.items():
        print(f"memory, {name}: {size:.1f} GB")
    save_json(json, found.plain())


@app.command()
@with_options
def selftest(
    loading: LoadSettings,
    names: Annotated[list[str] | None, typer.Argument(help="Families; default all.")] = None,
    real: Annotated[
        str | None, typer.Option("--real", help="A real model (folder or hub id) instead of tiny ones.")
    ] = None,
    json: Json = None,
) -> None:
    """Run capture, edit, undo, save, LoRA and bake on each family, and print what held; - did not run."""
    from dataclasses import asdict

    from refusal_core.evaluate.family_steps import STEPS, try_families, try_real

    with progress_bar("Building") as progress:
        found = [try_real(real, loading, progress)] if real else try_families(names or (), progress)
    rows = [asdict(result) for result in found]
    for row in rows:
        row["steps"] = {name: row["steps"].get(name, {"ok": None, "why": ""}) for name in STEPS}
    show_rows(rows, json, "families")
    if not all(result.whole for result in found):
        raise typer.Exit(1)
