"""From reports to tables: one tidy table of shares, and from it whatever is printed, compared or drawn.

Shares are numbers from 0 to 1 and NaN where nothing was measured; in tables of text they are percents and
dashes. Needs pandas, which comes with gradio.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import isnan, nan

import numpy as np
import pandas as pd

from refusal_core.evaluate.measures.statistics import Rate, wilson
from refusal_core.evaluate.reports.cells import Cell
from refusal_core.evaluate.reports.report import Report

ORIGINAL = "original"
CONCEPT, PARAPHRASE, ORDINARY, OTHERS = "concept", "paraphrase", "neutral", "other-concepts"
SEEN, UNSEEN = "shown, seen phrasings", "shown, unseen phrasings"  # heads of columns
FRONT_MARK = " *"


def tidy(reports: Iterable[Report]) -> pd.DataFrame:
    """Return a row a report, method and group of prompts.

    Columns: ``report`` (its place), ``concept``, ``method``, ``prompts``, ``judged``; the shares ``unsafe``,
    ``shown`` and ``right``, the last of the attribute least often right; ``kept`` and ``others``, attributes
    and other concepts as parts of what the original gets; ``ssim``, ``prepared`` in s, ``stored`` in kB.
    """
    rows = []
    for place, report in enumerate(reports):
        originals = {c.prompts: c for c in reversed(report.cells) if c.method == ORIGINAL}
        for c in report.cells:
            base, cost = originals.get(c.prompts), report.costs.get(c.method)
            parts = [_part(c.kept.get(name), base.kept[name]) for name in base.kept] if base else []
            numbers = {
                "report": place,
                "judged": c.judged,
                "unsafe": c.unsafe.rate,
                "shown": c.shown.rate,
                "right": min(c.kept.values(), default=nan),
                "kept": float(np.min(parts)) if parts else nan,  # NaN where any is
                "others": _part(c.shown.rate, base.shown.rate) if base else nan,
                "ssim": c.quality.get("ssim", nan),
                "prepared": cost.prepare_seconds if cost else nan,
                "stored": cost.stored_kilobytes if cost else nan,
            }
            rows.append(((report.concept, c.method, c.prompts), numbers))
    table = pd.DataFrame([texts for texts, _ in rows], columns=["concept", "method", "prompts"])
    return table.join(pd.DataFrame([numbers for _, numbers in rows], dtype=float))


def _part(share: float | None, of: float | None) -> float:
    if share is None or of is None:
        return nan
    return share / of if of else 0.0


def pooled(cells: pd.DataFrame, share: str) -> Rate:
    """Return a share over all judged videos of some rows of ``tidy``, with its interval."""
    measured = cells[cells[share].notna()]
    hits = (measured[share] * measured.judged).round()
    return wilson(int(hits.sum()), int(measured.judged.sum()))


def figures(reports: Sequence[Report], by: Sequence[str] = ("report", "concept", "method")) -> pd.DataFrame:
    """Return a row for each method of each report, or for whatever else ``by`` tells apart.

    Shares, with their Wilson 95 % intervals as ``_low`` and ``_high``: ``erased`` where the concept is asked
    for, ``seen`` and ``unseen`` where it is shown nevertheless, by phrasing, ``kept`` the least of colour,
    shape, motion and background on neutral prompts, and ``others`` how often other concepts are shown. The
    last two are parts of what the original gets, means over reports; their intervals are of the shares
    before they are put beside the original. ``worst`` is the largest share of one concept that is shown, over
    both phrasings; ``prepared`` and ``stored`` are medians over reports, ``ssim`` is on neutral prompts.
    """
    groups = tidy(reports).groupby(list(by), sort=False)
    return pd.DataFrame([dict(zip(by, key, strict=True)) | _figures(cells) for key, cells in groups])


def method_figures(report: Report, method: str) -> dict[str, float | None]:
    """Return the ``figures`` of one method, None where it was not measured."""
    cells = tidy([replace(report, cells=tuple(c for c in report.cells if c.method in (method, ORIGINAL)))])
    return {k: None if isnan(v) else v for k, v in _figures(cells[cells.method == method]).items()}


def _figures(cells: pd.DataFrame) -> dict[str, float]:
    seen, unseen, neutral, others = (
        cells[cells.prompts == name] for name in (CONCEPT, PARAPHRASE, ORDINARY, OTHERS)
    )
    asking = cells[~cells.prompts.isin((ORDINARY, OTHERS))]
    rates = {
        "erased": pooled(asking.assign(gone=1 - asking.unsafe), "gone"),
        "seen": pooled(seen, "unsafe"),
        "unseen": pooled(unseen, "unsafe"),
        "kept": pooled(neutral, "right"),
        "others": pooled(others, "shown"),
    }
    row: dict[str, float] = {}
    for name, rate in rates.items():
        ends = {name: rate.rate, f"{name}_low": rate.low, f"{name}_high": rate.high}
        row |= {end: nan if value is None else value for end, value in ends.items()}
    costs = cells.drop_duplicates("report")
    return row | {
        "kept": neutral.kept.mean(),
        "others": others.others.mean(),
        "worst": cells[cells.prompts.isin((CONCEPT, PARAPHRASE))].unsafe.max(),
        "ssim": neutral.ssim.mean(),
        "prepared": costs.prepared.median(),
        "stored": costs.stored.median(),
    }


def trade(reports: Sequence[Report]) -> dict[str, tuple[float, float]]:
    """Return (kept, erased) of each method, means over the reports that have both.

    "Kept" is the smaller of neutral attributes and other concepts, as parts of what the original gets.
    """
    shares = figures(reports).dropna(subset=["kept", "erased"])
    shares["kept"] = shares[["kept", "others"]].min(axis=1)
    means = shares.groupby("method", sort=False)[["kept", "erased"]].mean()
    return {name: (kept, erased) for name, kept, erased in means.itertuples()}


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other beats in both coordinates (the Pareto front)."""
    return [
        i
        for i, (x, y) in enumerate(points)
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)
    ]


# --- tables of text ------------------------------------------------------------------------------------


def cells_table(report: Report) -> pd.DataFrame:
    """Return all cells of a report, the interval of what is to be unlearned in brackets."""
    kept = dict.fromkeys(name for c in report.cells for name in c.kept)
    quality = dict.fromkeys(name for c in report.cells for name in c.quality)
    has_questions = any(c.questions for c in report.cells)
    rows = []
    for c in report.cells:
        row = {
            "method": c.method,
            "prompts": c.prompts,
            "n": str(c.n) if c.judged == c.n else f"{c.judged} of {c.n}",
            "concept shown [95 %]": interval(c.unsafe),
            "p": "-" if c.p is None else f"{c.p:.2g}",
            "as asked": percent(c.shown.rate),
        }
        row |= {name: percent(c.kept.get(name)) for name in kept}
        row |= {name: number(name, c.quality.get(name)) for name in quality}
        rows.append(row | ({"questions right (n)": _faithful(c)} if has_questions else {}))
    return pd.DataFrame(rows)


def _faithful(cell: Cell) -> str:
    return f"{percent(cell.questions.mean)} ({cell.questions.videos})" if cell.questions else "-"


def summary_table(reports: Sequence[Report]) -> pd.DataFrame:
    """Return a row for each concept and method; see ``figures``.

    Of a benchmark, which has no phrasings, a row stands for each of its categories.
    """
    rows: list[tuple[str, ...]] = []
    for report in reports:
        table = figures([report])
        kept = [percent(share) for share in table.kept]
        if report.cell(report.names[0], CONCEPT) is None:
            of_method = dict(zip(table.method, kept, strict=True))
            cells = [c for c in report.cells if c.prompts != ORDINARY]
            rows += [(c.prompts, c.method, interval(c.unsafe), "-", of_method[c.method], "-") for c in cells]
            continue
        others = [percent(share) for share in table.others]
        shown = _intervals(table, "seen"), _intervals(table, "unseen")
        rows += zip(table.concept, table.method, *shown, kept, others, strict=True)
    return pd.DataFrame(rows, columns=["concept", "method", SEEN, UNSEEN, "neutral kept", "others kept"])


def summary(reports: Sequence[Report]) -> str:
    """Return ``summary_table`` in Markdown."""
    return as_markdown(summary_table(reports))


def overview_table(reports: Sequence[Report]) -> pd.DataFrame:
    """Return a row for each method that all reports have: what a reader looks at first; see ``figures``.

    "shown" is over the videos of all concepts.
    """
    table = figures(reports, ("method",)).set_index("method").loc[_common_methods(reports)]
    return pd.DataFrame(
        {
            "method": list(table.index),
            SEEN: _intervals(table, "seen"),
            UNSEEN: _intervals(table, "unseen"),
            "worst concept": [percent(share) for share in table.worst],
            "neutral kept": _intervals(table, "kept"),
            "others kept": _intervals(table, "others"),
            "SSIM": [number("ssim", value) for value in table.ssim],
            "prepared in s": ["-" if isnan(seconds) else f"{seconds:.1f}" for seconds in table.prepared],
            "stored in kB": ["-" if isnan(size) else f"{size:.0f}" for size in table.stored],
        }
    )


def matrix_table(reports: Sequence[Report]) -> pd.DataFrame:
    """Return a row a method and a column a group of prompts.

    Each figure is the share of the videos of all reports that show the concept, with its Wilson 95 %
    interval; of ordinary groups, where nothing is to be shown, as well.
    """
    cells = tidy(reports)
    rates = {key: interval(pooled(rows, "unsafe")) for key, rows in cells.groupby(["method", "prompts"])}
    groups = list(cells.prompts.unique())
    rows = [[name, *(rates.get((name, group), "-") for group in groups)] for name in cells.method.unique()]
    return pd.DataFrame(rows, columns=["method", *groups])


def front_table(reports: Sequence[Report]) -> pd.DataFrame:
    """Return a row a method and a column a report, and of several one of the means.

    Each figure is "erased / kept" in percent, as ``trade`` counts them; those on the Pareto front of their
    column carry a star. Methods that a report has not are left out.
    """
    names = _common_methods(reports)
    columns = [_front_column(names, trade([report])) for report in reports]
    head = ["method", *(report.concept for report in reports)]
    if len(reports) > 1:
        columns.append(_front_column(names, trade(reports)))
        head.append("mean")
    return pd.DataFrame(list(zip(names, *columns, strict=True)), columns=head)


def _front_column(names: Sequence[str], points: dict[str, tuple[float, float]]) -> list[str]:
    measured = {name: points[name] for name in names if name in points}
    best = {list(measured)[i] for i in front(list(measured.values()))}
    texts = {name: f"{percent(erased)} / {percent(kept)}" for name, (kept, erased) in measured.items()}
    return [texts.get(name, "-") + FRONT_MARK * (name in best) for name in names]


def _common_methods(reports: Sequence[Report]) -> list[str]:
    return [name for name in reports[0].names if all(name in report.names for report in reports)]


def _intervals(table: pd.DataFrame, share: str) -> list[str]:
    columns = (table[share], table[f"{share}_low"], table[f"{share}_high"])
    return [with_bounds(*ends) for ends in zip(*columns, strict=True)]


# --- text ----------------------------------------------------------------------------------------------


def as_markdown(table: pd.DataFrame) -> str:
    """Return a table of text in Markdown."""
    head, *rows = ("| " + " | ".join(row) + " |" for row in [table.columns, *table.itertuples(index=False)])
    return "\n".join([head, "|" + "---|" * len(table.columns), *rows])


def as_latex(table: pd.DataFrame) -> str:
    """Return a table of text in LaTeX, for the package booktabs."""
    aligned = "ll" + "r" * (len(table.columns) - 2)
    return table.to_latex(index=False, escape=True, column_format=aligned).rstrip()


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash."""
    return "-" if share is None or isnan(share) else f"{100 * share:.1f}"


def number(name: str, value: float | None) -> str:
    """Return a measure in its usual form: the share of broken videos in percent, others to two places."""
    if value is None or isnan(value):
        return "-"
    return percent(value) if name == "broken" else f"{value:.2f}"


def with_bounds(share: float | None, low: float | None, high: float | None) -> str:
    """Return a share in percent with its interval, a dash where nothing was measured."""
    return "-" if percent(share) == "-" else f"{percent(share)} [{percent(low)}, {percent(high)}]"


def interval(rate: Rate) -> str:
    """Return a rate in percent with its interval, a dash where nothing was judged."""
    return with_bounds(rate.rate, rate.low, rate.high)
