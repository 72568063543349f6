"""``export`` writes an edit in the forms that other tools load, ``bake`` folds it into a checkpoint, and
``push`` sends such a folder to the hub.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.options import ModelOptions
from refusal_core.cli.screen import progress_bar
from refusal_core.models.load_settings import LoadSettings

EditFile = Annotated[Path, typer.Option("--edit", help="An edit file.")]


def export(
    edit: EditFile,
    out: Annotated[Path, typer.Option("--out", help="A .safetensors file, or for --form weights a folder.")],
    model: ModelOptions,
    loading: LoadSettings,
    form: Annotated[str, typer.Option("--form", help="lora, comfyui or weights.")] = "lora",
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="For a quantised model: the folder with its whole weights."),
    ] = None,
) -> None:
    """Export an edit as an exact LoRA (diffusers or ComfyUI) or as a whole edited pipeline."""
    from refusal_core.edit import load_edit
    from refusal_core.errors import InputError
    from refusal_core.export.lora import Naming, export_lora, export_weights

    if form not in ("lora", "comfyui", "weights"):
        raise InputError(f"Form '{form}' is not known; choose lora, comfyui or weights.")
    if form != "weights" and out.suffix != ".safetensors":
        raise InputError(f"'{out.name}' must end in .safetensors.")
    made = load_edit(edit)
    if loading.dtype == "auto":  # on a CPU that would write float32, whatever the model is published in
        loading = replace(loading, dtype="saved")
    with progress_bar("Loading") as progress:
        loaded = model.load(loading, progress)
        if form == "weights":
            written = export_weights(made, loaded, out)
        else:
            naming: Naming = "diffusers" if form == "lora" else "comfyui"
            written = export_lora(made, loaded, out, naming=naming, checkpoint=checkpoint)
    for path in written.paths:
        print(path)
    print(f"{written.edited} layers edited, weights in {loaded.precision}\n")
    print(written.snippet)


def bake(
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="A diffusers folder, or a denoiser's.")],
    edit: EditFile,
    out: Annotated[Path, typer.Option("--out", help="The folder to write; it must not exist.")],
) -> None:
    """Fold an edit into a checkpoint on disk, tensor by tensor, without loading the model."""
    from refusal_core.edit import load_edit
    from refusal_core.export.bake import bake as run

    with progress_bar("Baking") as progress:
        done = run(checkpoint, load_edit(edit), out, progress)
    print(f"{out}: {done.edited} tensors edited, {done.untouched_bytes / 1e6:.1f} MB found untouched")
    if done.note:
        print(f"Note: {done.note}")


def push(
    edit: EditFile,
    repository: Annotated[str, typer.Option("--to", help="owner/name on the hub.")],
    lora: Annotated[Path | None, typer.Option("--lora", help="An exported LoRA to send along.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="A report of evaluate --json.")] = None,
    go: Annotated[bool, typer.Option("--go", help="Really send; without it only show.")] = False,
) -> None:
    """Show what would go to the hub: the edit, a model card with its recipe and figures. Send with --go."""
    from refusal_core.evaluate.reports.report import load_report
    from refusal_core.evaluate.reports.tables import summary
    from refusal_core.export.hub import publish

    figures = (report, summary([load_report(report)])) if report else None
    done = publish(edit, repository, lora=lora, report=figures, send=go)
    print(done.card)
    print("Files: " + ", ".join(done.files))
    print(f"Sent to {done.address}" if go else f"Nothing was sent; add --go to send to {done.address}.")
