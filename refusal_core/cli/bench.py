"""``bench`` prints ratios of times, measured side by side in one run."""

from __future__ import annotations

from typing import Annotated

import typer

from refusal_core.cli.options import Json, ModelOptions
from refusal_core.cli.screen import progress_bar, save_json, show_rows
from refusal_core.models.load_settings import LoadSettings


def bench(
    model: ModelOptions,
    loading: LoadSettings,
    preset: Annotated[
        str, typer.Option("--preset", help="A preset's name, or a path to its JSON file.")
    ] = "fire",
    large: Annotated[
        bool, typer.Option("--large", help="Also at the size of a 14B model: takes 13 GB of disk.")
    ] = False,
    capture: Annotated[
        bool, typer.Option("--capture", help="Small captures against a full one, instead: minutes.")
    ] = False,
    json: Json = None,
) -> None:
    """Measure generation, edit, cPCA, refit and capture against their yardsticks."""
    from dataclasses import asdict

    from refusal_core.concepts import load_preset
    from refusal_core.evaluate.bench import as_json, run_benchmarks
    from refusal_core.evaluate.capture_sizes import compare_captures

    chosen = load_preset(preset, model.model)
    if capture:
        with progress_bar("Loading") as progress:
            rows = [asdict(r) for r in compare_captures(model.load(loading), chosen, progress=progress)]
        show_rows(rows, json, "captures")
        return
    with progress_bar("Loading") as progress:
        figures = run_benchmarks(model.load(loading), chosen, progress, large=large)
    print("| benchmark | value | on |\n|---|---|---|")
    for f in figures:
        print(f"| {f.name} | {f.value:.2f} {f.unit} | {f.on} |")
    save_json(json, as_json(figures))
