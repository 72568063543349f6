"""``evaluate`` measures what is unlearned and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.screen import ModelOption, PresetOption, progress_bar


def evaluate(
    model: ModelOption = "toyworld",
    preset: PresetOption = "fire",
    videos: Annotated[int, typer.Option("--videos", min=1, help="Videos in each cell.")] = 200,
    methods: Annotated[str, typer.Option("--methods", help="Names with commas between, or all.")] = "all",
    json: Annotated[Path | None, typer.Option("--json", help="Also write the report here.")] = None,
) -> None:
    """Run methods over concept, paraphrase, neutral and other-concepts prompts, and print the table."""
    from refusal_core.concepts import load_preset
    from refusal_core.evaluate.run import ALL_METHODS
    from refusal_core.evaluate.run import evaluate as run
    from refusal_core.evaluate.suites import toyworld_suite
    from refusal_core.files import write_json
    from refusal_core.models.load import load_model
    from refusal_core.toyworld.judge import load_judge

    chosen = load_preset(preset)
    names = ALL_METHODS if methods == "all" else tuple(m.strip() for m in methods.split(","))
    suite = toyworld_suite(chosen.concept.name, videos)
    with progress_bar("Loading") as progress:
        loaded = load_model(model, progress=progress)
        report = run(loaded, chosen, suite, load_judge(), names, progress=progress)
    print(report.markdown())
    if json is not None:
        write_json(json, report.to_json())


def report(
    files: Annotated[list[Path], typer.Argument(help="Reports that evaluate --json wrote.")],
) -> None:
    """Print reports as one table: how much was unlearned, how much was kept."""
    import json

    from refusal_core.errors import FileError
    from refusal_core.evaluate.report import Report, summary

    found = []
    for path in files:
        try:
            found.append(Report.from_json(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise FileError(f"{path.name} is no report; write one with evaluate --json.") from e
    print(summary(found))
