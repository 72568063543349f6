"""``bench`` prints ratios of times, measured side by side in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.screen import ModelOption, PresetOption, progress_bar


def bench(
    model: ModelOption = "toyworld",
    preset: PresetOption = "fire",
    large: Annotated[
        bool, typer.Option("--large", help="Also at the size of a 14B model: takes 13 GB of disk.")
    ] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Measure generation, edit, cPCA, refit and capture against their yardsticks."""
    from refusal_core.concepts import load_preset
    from refusal_core.evaluate.bench import as_json, run_benchmarks
    from refusal_core.io.files import write_json
    from refusal_core.models.load import load_model

    chosen = load_preset(preset)
    with progress_bar("Loading") as progress:
        figures = run_benchmarks(load_model(model), chosen, progress, large=large)
    print("| benchmark | value | on |\n|---|---|---|")
    for f in figures:
        print(f"| {f.name} | {f.value:.2f} {f.unit} | {f.on} |")
    if json is not None:
        write_json(json, as_json(figures))
