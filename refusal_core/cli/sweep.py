"""``sweep`` tries every combination of settings, ``tune`` searches them: what is erased, what is kept?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from refusal_core.cli.options import MODEL, PRESET, PRESETS, Json
from refusal_core.cli.screen import announce, progress_bar, save_json
from refusal_core.models.load_settings import LoadSettings
from refusal_core.settings import Knob


@dataclass(frozen=True, slots=True)
class GridOptions:
    """What is tried: lists with commas between."""

    methods: str = Knob("Of rv, pca, cpca, whitened.").at("whitened")
    sites: str = Knob("Kinds, with + where several are edited at once.").at("text")
    layers: str = Knob("Such as all,0-3,4-7, or 0+2+4.").at("all")
    ranks: str = Knob("Directions kept (k).").at("1,2,4")
    strengths: str = Knob("How much of the direction is removed.").at("1.0")
    alphas: str = Knob("Contrasts, of cPCA.").at("1.0")
    anchors: str = Knob("zero, mean.").at("zero")
    shrinkages: str = Knob("Of the whitened edit.").at("0.02")


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """On what, and where to."""

    model: str = MODEL.at("toyworld")
    preset: str = PRESETS.at("fire")
    videos: int = Knob("Videos in each cell.", 1, 100_000).at(40)
    split: Literal["tuning", "evaluation"] = Knob("To choose settings, or to report an ablation.").at(
        "tuning"
    )
    work: Path | None = Knob("Readings are kept here: a stopped run goes on.").at(None)
    out: Path | None = Knob("A folder for the table (CSV) and a contact sheet.").at(None)
    workers: int | None = Knob("Processes; default: as many as help.", 1, 64).at(None)


def sweep(lists: GridOptions, options: SweepOptions, loading: LoadSettings, json: Json = None) -> None:
    """Try every combination of the lists; print the best first.

    Of several presets each is tried alone; shares are over the videos of all.
    """
    from refusal_core.evaluate.grid import parse_grid
    from refusal_core.evaluate.sharing import run_shared
    from refusal_core.evaluate.sweep import Sweep

    o, grid = options, parse_grid(asdict(lists))
    kept = o.work or (o.out / "readings" if o.out else None)
    job = Sweep(o.model, o.preset, grid, o.videos, o.split, kept, o.workers, loading)
    announce(job.price())
    with progress_bar("Loading") as progress:
        found = run_shared(job.compiled_where_it_pays(), progress)
        if found is None:  # another process prints
            return
        paths = found.save(o.out) if o.out is not None else []
    print(found.markdown())
    save_json(json, {"rows": found.rows()})
    for report in found.reports:
        for note in report.notes:
            print(f"Note: {report.concept}, {note}")
    for path in paths:
        print(path)


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """On what, and for how long."""

    model: str = MODEL.at("toyworld")
    preset: str = PRESET.at("fire")
    trials: int = Knob("In all, former runs among them.", 1, 100_000).at(40)
    videos: int = Knob("Videos in each cell and trial.", 1, 100_000).at(40)
    plot: Path | None = Knob("Also write the front as PNG.").at(None)


def tune(
    work: Annotated[
        Path, typer.Option("--work", help="Trials and readings; several processes may share it.")
    ],
    options: TuneOptions,
    loading: LoadSettings,
    json: Json = None,
) -> None:
    """Search rank, strength, sites, anchor and shrinkage for what erases most and keeps most.

    Only prompts of the tuning split are used; judge the result with `evaluate`, on other prompts.
    The same command goes on where it was stopped; run several times at once, it shares out the trials.
    """
    from pandas import DataFrame

    from refusal_core.evaluate.reports.tables import as_markdown
    from refusal_core.evaluate.tune import Tuning, table_of

    o = options
    with progress_bar("Loading") as progress:
        front = Tuning(o.model, o.preset, o.trials, o.videos, work, loading).run(progress)
    print(as_markdown(DataFrame(table_of(front), columns=["settings", "erased", "kept"])))
    save_json(json, {"front": [{**t.point.row(), "erased": t.erased, "kept": t.kept} for t in front]})
    if o.plot is not None:
        from refusal_core.evaluate.reports.plots import pareto_plot, save_figure

        save_figure(pareto_plot({t.point.name: (t.kept, t.erased) for t in front}), o.plot)
