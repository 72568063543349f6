"""``report`` and ``votes`` print what was measured before; ``distance`` compares two folders of videos."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.options import Json
from refusal_core.cli.screen import save_json, show_rows
from refusal_core.settings import Knob


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Which table."""

    latex: bool = Knob("Print the table in LaTeX.").at(False)
    overview: bool = Knob("One row a method, over all reports.").at(False)
    matrix: bool = Knob("One row a method, one column a group of prompts.").at(False)
    front: bool = Knob("One row a method: erased and kept, the Pareto front starred.").at(False)


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What is written."""

    html: Path | None = Knob("Also write a page.").at(None)
    plots: Path | None = Knob("Also write plots to this folder.").at(None)
    pictures: Path | None = Knob("The samples folder of evaluate --work, for the page.").at(None)


def report(
    files: Annotated[list[Path], typer.Argument(help="Reports that evaluate --json wrote.")],
    table: TableOptions,
    page: PageOptions,
    json: Json = None,
) -> None:
    """Print reports as one table: how much was unlearned, how much was kept."""
    from refusal_core.evaluate.reports import tables
    from refusal_core.evaluate.reports.report import load_report

    reports = [load_report(path) for path in files]
    if table.matrix:
        chosen = tables.matrix_table(reports)
    elif table.front:
        chosen = tables.front_table(reports)
    elif table.overview:
        chosen = tables.overview_table(reports)
    else:
        chosen = tables.summary_table(reports)
    print(tables.as_latex(chosen) if table.latex else tables.as_markdown(chosen))
    save_json(json, {"rows": chosen.to_dict("records")})
    if page.html is not None:
        from refusal_core.evaluate.reports.page import save_page

        save_page(reports, page.html, page.pictures)
    if page.plots is not None:
        from refusal_core.evaluate.reports.plots import save_plots

        save_plots(reports, page.plots)


def votes(
    pack: Annotated[Path, typer.Argument(help="A review pack with votes, from the app's Review page.")],
    json: Json = None,
) -> None:
    """Print what people saw: the votes of a blind review, as the table of a judge."""
    from refusal_core.evaluate.reports.tables import as_markdown, cells_table
    from refusal_core.workbench.review import load_pack
    from refusal_core.workbench.votes import report_of_votes

    with tempfile.TemporaryDirectory(prefix="refusal-studio-") as folder:
        found = report_of_votes(load_pack(pack, Path(folder)))
    print(f"Judged by {found.judge}.\n\n{as_markdown(cells_table(found))}")
    save_json(json, found.to_json())


def distance(
    real: Annotated[Path, typer.Argument(help="A folder of .mp4 files, such as the original's.")],
    generated: Annotated[Path, typer.Argument(help="Another, such as the unlearned model's.")],
    features: Annotated[str, typer.Option("--features", help="i3d or videomae.")] = "i3d",
    weights: Annotated[
        Path | None, typer.Option("--weights", help="The network's weights; fetched where none are given.")
    ] = None,
    json: Json = None,
) -> None:
    """Print the FVD between two folders of videos; needs the extra `distance`."""
    from refusal_core.evaluate.folders import videos_in
    from refusal_core.evaluate.measures.distance import fvd_features, video_distance

    first, second = (videos_in(folder) for folder in (real, generated))
    fvd = video_distance(first, second, fvd_features(features, weights=weights))
    row = {"features": features, "real": len(first), "generated": len(second), "FVD": round(fvd, 2)}
    show_rows([row], json, "distances")
