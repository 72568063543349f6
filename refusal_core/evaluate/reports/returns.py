"""What attacks found, as tables, a plot and one page: how a concept comes back, and at which price."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from refusal_core.evaluate.attacks.curves import AttackReport, Curve, ReturnPrice
from refusal_core.evaluate.attacks.protocol import ATTACKS
from refusal_core.evaluate.measures.statistics import Rate
from refusal_core.evaluate.reports.page import PAGE, STYLE, figure_of, table_of
from refusal_core.evaluate.reports.plots import GREY, INK, as_svg, new_figure
from refusal_core.io.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEVER = "not within the budget"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")  # Okabe and Ito's
HOW = (
    "Share of the judged videos that show the concept at the end of each attack's budget, with Wilson's 95 %"
    " interval. The price of return is what the cheapest attack costs that brings the concept back in half of"
    " the videos: forwards of the denoiser for the first video, one with its gradient counting as"
    " three. Attacks marked * hand the model a picture of the concept, and have no part in the price."
)


def price_words(price: ReturnPrice | None) -> str:
    """Return a price as a person reads it."""
    if price is None:
        return NEVER
    if not price.steps:
        return "0, never gone"
    return f"{price.forwards:.0f} ({price.attack}, {price.steps} {ATTACKS[price.attack].unit})"


def returns_table(report: AttackReport) -> pd.DataFrame:
    """Return a row a method: how much is back after each attack, and the price of return."""
    attacks = list(dict.fromkeys(curve.attack for curve in report.curves))
    rows = []
    for method in dict.fromkeys(curve.method for curve in report.curves):
        row = {"method": method}
        for attack in attacks:
            curve = report.curve(method, attack)
            row.setdefault("no attack", _share(curve.stands[0].back) if curve else "-")
            row[_head(report, attack)] = _share(curve.stands[-1].back) if curve else "-"
        rows.append(row | {"price of return, forwards": price_words(report.prices.get(method))})
    return pd.DataFrame(rows)


def prices_table(report: AttackReport) -> pd.DataFrame:
    """Return a row a curve: where half of the videos are back, what that costs, and what was spent."""
    rows = []
    for curve in report.curves:
        last, price = curve.stands[-1], curve.price
        rows.append(
            {
                "method": curve.method,
                "attack": curve.attack,
                "half back after": f"{price.steps} {ATTACKS[curve.attack].unit}" if price else NEVER,
                "forwards": f"{price.forwards:.0f}" if price else "-",
                "budget, forwards": f"{last.forwards:.0f}",
                "attack, s": f"{last.seconds:.0f}",
            }
        )
    return pd.DataFrame(rows)


def _head(report: AttackReport, attack: str) -> str:
    known = ATTACKS[attack]
    steps = max(curve.stands[-1].steps for curve in report.curves if curve.attack == attack)
    return f"{attack}{'*' if known.by_picture else ''}, {steps} {known.unit}"


def _share(rate: Rate) -> str:
    if rate.rate is None or rate.low is None or rate.high is None:
        return "-"
    return f"{100 * rate.rate:.0f} % [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"


def returns_plot(report: AttackReport) -> Figure:
    """Plot a panel an attack: how much is back against what was spent, a line a method with its interval."""
    attacks = list(dict.fromkeys(curve.attack for curve in report.curves))
    methods = list(dict.fromkeys(curve.method for curve in report.curves))
    figure = new_figure(3.1 * len(attacks) + 0.6, 3.4)
    panels = figure.subplots(1, len(attacks), sharey=True, squeeze=False)[0]
    for panel, attack in zip(panels, attacks, strict=True):
        for place, method in enumerate(methods):
            if (curve := report.curve(method, attack)) is not None:
                _line(panel, curve, COLOURS[place % len(COLOURS)], place - len(methods) / 2)
        panel.axhline(50, color=GREY, lw=0.8, ls=":")
        panel.set_xscale("symlog", linthresh=1)
        panel.set(xlabel=ATTACKS[attack].unit, ylim=(-4, 104))
        panel.set_title(attack, loc="left", fontsize=10, color=INK)
    panels[0].set_ylabel(f"{report.concept} back, %")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return figure


def _line(panel: Axes, curve: Curve, colour: str, place: float) -> None:
    stands = [s for s in curve.stands if s.back.rate is not None]
    shares = [100 * (s.back.rate or 0.0) for s in stands]
    below = [y - 100 * (s.back.low or 0.0) for y, s in zip(shares, stands, strict=True)]
    above = [100 * (s.back.high or 0.0) - y for y, s in zip(shares, stands, strict=True)]
    steps = [s.steps * (1 + 0.02 * place) for s in stands]  # apart, so that intervals can be told apart
    style: dict[str, Any] = {"color": colour, "lw": 1.2, "marker": "o", "ms": 3, "capsize": 2}
    panel.errorbar(steps, shares, yerr=(below, above), label=curve.method, elinewidth=0.7, **style)


def save_returns_page(reports: Sequence[AttackReport], path: Path) -> Path:
    """Write one HTML file that needs no other."""
    body = [f"<p class='note'>{escape(HOW)}</p>"]
    for report in reports:
        facts = (
            f"Model {report.model}, judge {report.judge}, {report.videos} videos, {report.budget} budget,"
            f" seed {report.seed}, protocol version {report.protocol};"
            f" {', '.join(f'{name} {version}' for name, version in report.versions.items())}"
        )
        body += [f"<h2>{escape(report.concept)}</h2>", f"<p class='note'>{escape(facts)}</p>"]
        body += [
            table_of(returns_table(report)),
            figure_of(as_svg(returns_plot(report)), "How it comes back."),
        ]
        body += [f"<p class='note'>Note: {escape(note)}</p>" for note in report.notes]
        body += ["<h3>Each attack on each method</h3>", table_of(prices_table(report), "named")]
        recipes = json.dumps({n: m["recipe"] for n, m in report.methods.items()}, indent=1, default=str)
        body.append(f"<details><summary>Recipes</summary><pre>{escape(recipes)}</pre></details>")
    title = escape(f"The price of return: {', '.join(r.concept for r in reports)}")
    return write_text(path, PAGE.format(title=title, style=STYLE, show="", body="\n".join(body)))
