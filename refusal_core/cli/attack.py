"""``attack`` asks how cheaply a removed concept comes back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from refusal_core.cli.evaluate import JudgeOptions, SuiteOptions
from refusal_core.cli.options import MODEL, PRESETS, OutputOptions
from refusal_core.cli.screen import progress_bar
from refusal_core.models.load_settings import LoadSettings
from refusal_core.settings import LAST_SEED, Knob

if TYPE_CHECKING:
    from refusal_core.evaluate.attacks.curves import AttackReport


@dataclass(frozen=True, slots=True)
class AttackOptions:
    """What is attacked, and how."""

    model: str = MODEL.at("toyworld")
    preset: str = PRESETS.at("fire")
    methods: str = Knob("Names with commas between; original and placebo are always there.").at("whitened")
    attacks: str = Knob(
        "Of prefix, inversion, embeddings, relearning, benign, noise, completion; or all."
    ).at("all")
    budget: Literal["short", "full"] = Knob("How far they go; full is that of the literature.").at("short")
    videos: int = Knob("Videos a method and attack.", 1, 10_000).at(8)
    seed: int = Knob("Of what an attack draws.", 0, LAST_SEED).at(0)


def attack(
    tried: AttackOptions,
    suite: SuiteOptions,
    judge: JudgeOptions,
    output: OutputOptions,
    loading: LoadSettings,
) -> None:
    """Attack edited models, and print how much comes back and the price of return.

    Under `accelerate launch` the processes share the work through --work.
    """
    from refusal_core.evaluate.attacking import Attacking
    from refusal_core.evaluate.judging import Judging
    from refusal_core.evaluate.reports.plots import check_plots
    from refusal_core.evaluate.reports.returns import save_returns_page
    from refusal_core.evaluate.sharing import run_shared

    if output.html is not None:
        check_plots()
    t, j = tried, judge
    goal = (t.model, t.preset, t.methods, t.attacks, t.budget, t.videos, t.seed)
    judging = Judging(j.judge, j.judge_settings, again=j.judge_again)
    job = Attacking(*goal, suite.chosen(), judging, loading, output.work, output.workers)
    with progress_bar("Loading") as progress:
        reports = run_shared(job, progress)
    if reports is None:  # another process prints
        return
    _print(reports, output.json)
    if output.html is not None:
        save_returns_page(reports, output.html)


def _print(reports: list[AttackReport], json: Path | None) -> None:
    from refusal_core.evaluate.reports.returns import HOW, returns_table
    from refusal_core.evaluate.reports.tables import as_markdown
    from refusal_core.io.files import write_json

    for report in reports:
        print(f"{report.concept}:\n{as_markdown(returns_table(report))}")
        for note in report.notes:
            print(f"Note: {note}")
        if json is not None:
            several = len(reports) > 1
            write_json(json / f"{report.concept}.json" if several else json, report.to_json())
    print(HOW)
