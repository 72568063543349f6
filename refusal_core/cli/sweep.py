"""``sweep`` tries every combination of settings and prints what each erases and keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.screen import CompileOption, ModelOption, PresetsOption, progress_bar

LISTS = {"methods", "sites", "layers", "ranks", "strengths", "alphas", "anchors", "shrinkages"}


def sweep(
    model: ModelOption = "toyworld",
    preset: PresetsOption = "fire",
    methods: Annotated[str, typer.Option("--methods", help="Of rv, pca, cpca, whitened.")] = "whitened",
    sites: Annotated[
        str, typer.Option("--sites", help="Kinds, with + where several are edited at once.")
    ] = "text",
    layers: Annotated[str, typer.Option("--layers", help="Such as all,0-3,4-7, or 0+2+4.")] = "all",
    ranks: Annotated[str, typer.Option("--ranks", help="Directions kept (k).")] = "1,2,4",
    strengths: Annotated[str, typer.Option("--strengths", help="Strengths.")] = "1.0",
    alphas: Annotated[str, typer.Option("--alphas", help="Contrasts, of cPCA.")] = "1.0",
    anchors: Annotated[str, typer.Option("--anchors", help="zero, mean.")] = "zero",
    shrinkages: Annotated[str, typer.Option("--shrinkages", help="Of the whitened edit.")] = "0.02",
    videos: Annotated[int, typer.Option("--videos", min=1, help="Videos in each cell.")] = 40,
    split: Annotated[
        str, typer.Option("--split", help="tuning, to choose settings; evaluation, to report an ablation.")
    ] = "tuning",
    work: Annotated[
        Path | None, typer.Option("--work", help="Readings are kept here: a stopped run goes on.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for the table (CSV) and a contact sheet.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=64, help="Processes; default: as many as help.")
    ] = None,
    compile_: CompileOption = None,
) -> None:
    """Try every combination of the lists, which have commas between; print the best first.

    Of several presets each is tried alone; shares are over the videos of all.
    """
    from refusal_core.errors import InputError
    from refusal_core.evaluate.grid import parse_grid
    from refusal_core.evaluate.sharing import run_shared
    from refusal_core.evaluate.sweep import Sweep
    from refusal_core.models.load import LoadSettings

    if split not in ("tuning", "evaluation"):
        raise InputError(f"Split '{split}' is not known; choose tuning or evaluation.")
    lists = {name: value for name, value in locals().items() if name in LISTS}
    kept = work or (out / "readings" if out else None)
    grid = parse_grid(lists)
    loading = LoadSettings(compiled=bool(compile_))
    job = Sweep(model, preset, grid, videos, split, kept, workers, loading)  # type: ignore[arg-type]
    if compile_ is None:
        job = job.compiled_where_it_pays()
    with progress_bar("Loading") as progress:
        found = run_shared(job, progress)
        if found is None:  # another process prints
            return
        paths = found.save(out) if out is not None else []
    print(found.markdown())
    for report in found.reports:
        for note in report.notes:
            print(f"Note: {report.concept}, {note}")
    for path in paths:
        print(path)
