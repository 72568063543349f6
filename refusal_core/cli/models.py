"""``models`` lists what is supported, shows what a model has to edit, and tries every step on each family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.screen import OffloadOption, load_settings, progress_bar

app = typer.Typer(help="Supported models, and what they have to edit.", invoke_without_command=True)


@app.callback()
def models(context: typer.Context) -> None:
    """List the families and the published models that are known."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    from refusal_core.models.families import FAMILIES, LEFT_OUT

    table = Table("family", "models", "pipeline", "frames, size, fps", "steps, guidance", "LoRA", box=None)
    for f in FAMILIES:
        d = f.defaults
        table.add_row(
            f.name,
            "\n".join(f"{c.source} ({c.licence})" for c in f.checkpoints),
            "\n".join(f.pipelines),
            f"{d.frames}, {d.width}x{d.height}, {d.fps:g}",
            f"{d.steps}, {d.guidance_scale:g}",
            "yes" if f.lora else "no: bake",
        )
    console = Console(width=180, highlight=False)
    console.print(table)
    for why in dict.fromkeys(LEFT_OUT.values()):
        kinds = [kind.removesuffix("Pipeline") for kind, reason in LEFT_OUT.items() if reason == why]
        console.print(f"Left out, {', '.join(kinds)}: {why}")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="toyworld, a hub id, or a diffusers folder.")],
) -> None:
    """Print a model's editable layers with their shapes, from its configuration: no weights are needed."""
    from refusal_core.models.inventory import inventory
    from refusal_core.models.load import bundled_folder

    found = inventory(bundled_folder(model) or model)
    small = found.parameters < 1e8
    count = f"{found.parameters / 1e6:.2f} M" if small else f"{found.parameters / 1e9:.2f} B"
    memory = f"{found.parameters * 2 / 1e6:.0f} MB" if small else f"{found.parameters * 2 / 1e9:.1f} GB"
    print(f"{found.source}: {found.family.title}, {count} parameters to denoise")
    print(f"memory for these weights: {memory} in bfloat16")
    print(f"licence: {found.licence}")
    for kind, inputs, outputs, count in found.shapes():
        print(f"{count:5d} x {kind:18s} {inputs:6d} -> {outputs}")
    print(f"layers 0-{max(site.block for site in found.sites)}, first site {found.sites[0].name}")
    if found.family.note:
        print(found.family.note)


@app.command()
def selftest(
    names: Annotated[list[str] | None, typer.Argument(help="Families; default all.")] = None,
    real: Annotated[
        str | None, typer.Option("--real", help="A real model (folder or hub id) instead of tiny ones.")
    ] = None,
    offload: OffloadOption = "none",
) -> None:
    """Run capture, edit, undo, save, LoRA and bake on each family, and print what held; - did not run."""
    from rich.console import Console
    from rich.table import Table

    from refusal_core.evaluate.family_steps import MEASURES, STEPS, try_families, try_real

    with progress_bar("Building") as progress:
        if real:
            rows = [try_real(real, load_settings("auto", "auto", offload, None, None), progress)]
        else:
            rows = try_families(names or (), progress)
    measures = MEASURES if real else ()
    table = Table("model" if real else "family", "sites", *STEPS, *measures, "trouble", box=None)
    for row in rows:
        passed = {name: step.why or "yes" for name, step in row.steps.items() if step.ok}
        cells = [passed.get(s, "-") for s in STEPS] + [row.measured.get(m, "-") for m in measures]
        table.add_row(row.id, str(row.sites), *cells, row.trouble)
    Console(width=160, highlight=False, markup=False).print(table)
    if not all(row.whole for row in rows):
        raise typer.Exit(1)


def bake(
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="A diffusers folder, or a denoiser's.")],
    edit: Annotated[Path, typer.Option("--edit", help="An edit file.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; it must not exist.")],
) -> None:
    """Fold an edit into a checkpoint on disk, tensor by tensor, without loading the model."""
    from refusal_core.edit import load_edit
    from refusal_core.export.bake import bake as run

    with progress_bar("Baking") as progress:
        done = run(checkpoint, load_edit(edit), out, progress)
    print(f"{out}: {done.edited} tensors edited, {done.untouched_bytes / 1e6:.1f} MB found untouched")
