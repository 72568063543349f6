"""Plots of reports, as SVG text or PNG files. Needs matplotlib (the extra ``evidence``)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal_core.errors import MissingExtraError
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.reports.tables import CONCEPT, PARAPHRASE, figures, front, trade
from refusal_core.io.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by colour-blind eyes; the marker differs as well.
INK, GREY, OURS, OTHERS = "#1e293b", "#94a3b8", "#0072b2", "#d55e00"
CROWDED, LINE = 88.0, 5.0  # % kept from which names stand in the margin; height of one, in % erased
PHRASINGS = ((CONCEPT, "seen", OURS), (PARAPHRASE, "unseen", OTHERS))


def trade_plot(reports: Sequence[Report]) -> Figure:
    """Plot erased against kept, a point a method; see ``trade``."""
    return pareto_plot(trade(reports))


def pareto_plot(points: dict[str, tuple[float, float]]) -> Figure:
    """Plot named points (kept, erased), shares from 0 to 1, with their Pareto front."""
    figure = new_figure(6.4, 4.6)
    axes = figure.add_subplot()
    best = [list(points)[i] for i in front(list(points.values()))]
    for name, (kept, erased) in points.items():
        style: dict[str, Any] = {
            "marker": "o" if name in best else "x",
            "color": OURS if name in best else GREY,
        }
        axes.scatter([100 * kept], [100 * erased], s=46, zorder=3, **style)
    line = sorted((points[name] for name in best), reverse=True)
    axes.plot([100 * k for k, _ in line], [100 * e for _, e in line], color=OURS, lw=1, zorder=2)
    axes.set(xlabel="kept, % of the original", ylabel="erased, %", ylim=(-4, 106))
    _label(axes, points)
    axes.set_title("Top right is best; filled points are on the Pareto front", loc="left", fontsize=10)
    lowest = 100 * min(kept for kept, _ in points.values())
    axes.set_xlim(max(-4.0, lowest - 0.2 * (100 - lowest) - 4), 101)
    return figure


def _label(axes: Any, points: dict[str, tuple[float, float]]) -> None:
    """Name the points; those in one place share a label. Where it is crowded, names stand in the margin."""
    places: dict[tuple[int, int], list[str]] = {}
    for name, (kept, erased) in points.items():
        places.setdefault((round(100 * kept), round(100 * erased)), []).append(name)
    height = axes.get_ylim()[1]
    for names in sorted(places.values(), key=lambda names: (-points[names[0]][1], -points[names[0]][0])):
        kept, erased = (100 * share for share in points[names[0]])
        lines = [", ".join(names[i : i + 2]) for i in range(0, len(names), 2)]
        style: dict[str, Any] = {"fontsize": 8, "color": INK}
        if kept < CROWDED:
            axes.annotate(
                "\n".join(lines), (kept, erased), xytext=(7, -3), textcoords="offset points", **style
            )
            continue
        height = min(height, erased + 2.0)
        where: dict[str, Any] = {"xycoords": "data", "textcoords": ("axes fraction", "data"), "va": "top"}
        line = {"arrowstyle": "-", "color": GREY, "lw": 0.6, "relpos": (0.0, 1.0 - 0.5 / len(lines))}
        axes.annotate("\n".join(lines), (kept, erased), (1.04, height), arrowprops=line, **where, **style)
        height -= LINE * len(lines)


def shown_plot(report: Report) -> Figure:
    """Plot how often the concept is shown under each method, with Wilson's intervals."""
    figure = new_figure(6.4, 0.9 + 0.42 * len(report.names))
    axes = figure.add_subplot()
    table = figures([report])
    groups = [phrasing for phrasing in PHRASINGS if report.cell(report.names[0], phrasing[0])]
    for place, (prompts, share, colour) in enumerate(groups):
        rates, low, high = (100 * table[share + end] for end in ("", "_low", "_high"))  # of NaN, no bar
        y = [i + 0.36 * place - 0.18 for i in range(len(table))]
        ends = (rates - low, high - rates)
        axes.barh(y, rates, height=0.34, xerr=ends, color=colour, label=prompts, ecolor=INK, capsize=2)
    axes.set_yticks(range(len(report.names)), report.names)
    axes.invert_yaxis()
    axes.set(xlabel=f"{report.concept} shown, % of {report.cells[0].n} videos, 95 % intervals", xlim=(0, 102))
    if groups:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)
    return figure


def check_plots() -> None:
    """Raise MissingExtraError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError(
            "Plots need matplotlib: pip install 'matplotlib>=3.10'; the tables work without."
        )


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure. Raises as ``check_plots`` does."""
    check_plots()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def as_svg(figure: Figure) -> str:
    """Return a figure as SVG text; equal figures give equal text."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "refusal-studio"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def save_plots(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Write the trade-off, and a plot for each report, as PNG."""
    figures = {"trade.png": trade_plot(reports)} if trade(reports) else {}
    figures |= {f"shown-{report.concept}.png": shown_plot(report) for report in reports}
    return [save_figure(figure, folder / name) for name, figure in figures.items()]


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, atomically."""
    return write_atomic(path, lambda target: figure.savefig(target, format="png", dpi=150))
