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
NEIGHBOURS = "neighbours"  # harmless, and near the concept
PHRASINGS = {CONCEPT: "seen", PARAPHRASE: "unseen", "taught": "unseen", "unheard": "unseen"}
SEEN, UNSEEN = "shown, seen phrasings", "shown, unseen phrasings"  # heads of columns
NEAR = "neighbours kept"
FRONT_MARK = " *"
SHARES = ["erased", "seen", "unseen", "kept", "others", "near"]
PARTS = ["kept", "others", "near"]  # of what the original gets
COLUMNS = ["concept", "method", "prompts", "report", "judged", "unsafe", *SHARES]
COLUMNS += [*(f"{share}_part" for share in PARTS), "ssim", "prepared", "stored"]


def tidy(reports: Iterable[Report]) -> pd.DataFrame:
    """Return a row a report, method and group of prompts.

    Columns: ``report`` (its place), ``concept``, ``method``, ``prompts``, ``judged``; ``unsafe``, the share
    that shows the concept; the same where it is asked for as ``erased``, the rest, and by phrasing as
    ``seen`` and ``unseen``; on neutral prompts ``kept``, the share of the attribute least often right, and
    ``ssim``; where other concepts are asked for ``others``, how often they are shown, and ``near`` of
    neighbours; ``kept_part``, ``others_part`` and ``near_part``, as parts of what the original gets;
    ``prepared`` in s and ``stored`` in kB.
    """
    rows = []
    for place, report in enumerate(reports):
        originals = {c.prompts: c for c in reversed(report.cells) if c.method == ORIGINAL}
        for c in report.cells:
            texts = {"concept": report.concept, "method": c.method, "prompts": c.prompts}
            numbers: dict[str, float] = {
                "report": place,
                "judged": c.judged,
                "unsafe": _number(c.unsafe.rate),
            }
            if cost := report.costs.get(c.method):
                numbers |= {"prepared": cost.prepare_seconds, "stored": cost.stored_kilobytes}
            rows.append({**texts, **numbers, **_shares(c, originals.get(c.prompts))})
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[3:], float))


def _shares(cell: Cell, original: Cell | None) -> dict[str, float]:
    unsafe, shown = _number(cell.unsafe.rate), _number(cell.shown.rate)
    if cell.prompts == ORDINARY:
        wanted = original.kept if original else {}
        parts = [_part(cell.kept.get(name, nan), share) for name, share in wanted.items()]
        shares = {"kept": min(cell.kept.values(), default=nan), "ssim": cell.quality.get("ssim", nan)}
        return shares | {"kept_part": float(np.min(parts)) if parts else nan}  # NaN where any is
    if cell.prompts in (OTHERS, NEIGHBOURS):
        part = _part(shown, _number(original.shown.rate)) if original else nan
        name = "others" if cell.prompts == OTHERS else "near"
        return {name: shown, f"{name}_part": part}
    phrasing = PHRASINGS.get(cell.prompts)
    return {"erased": 1.0 - unsafe} | ({phrasing: unsafe} if phrasing else {})


def _part(share: float, of: float) -> float:
    return share / of if of else 0.0 * share


def _number(share: float | None) -> float:
    return nan if share is None else share


def pooled(cells: pd.DataFrame, by: list[str], shares: list[str]) -> pd.DataFrame:
    """Return a ``Rate`` of each share over all judged videos of rows of ``tidy`` that are alike in ``by``."""
    keys = [cells[name] for name in by]
    hits = cells[shares].mul(cells.judged, axis=0).round().groupby(keys, sort=False).sum()
    judged = cells[shares].notna().mul(cells.judged, axis=0).groupby(keys, sort=False).sum()
    rates = {s: [wilson(int(h), int(n)) for h, n in zip(hits[s], judged[s], strict=True)] for s in shares}
    return pd.DataFrame(rates, index=hits.index)


def figures(reports: Sequence[Report], by: Sequence[str] = ("report", "concept", "method")) -> pd.DataFrame:
    """Return a row for each method of each report, or for whatever else ``by`` tells apart.

    Columns: the shares of ``tidy`` over all videos, with their Wilson 95 % intervals as ``_low`` and
    ``_high``, but ``kept``, ``others`` and ``near``, which are parts of what the original gets, means over
    reports, and so are the ends of their intervals; ``worst``, the largest share of one concept
    that is shown, over both phrasings; ``ssim``; ``prepared`` and ``stored``, medians over reports.
    """
    cells, keys = tidy(reports), list(by)
    groups = cells.groupby(keys, sort=False)
    table = groups[["ssim"]].mean()
    for share, rates in pooled(cells, keys, SHARES).items():
        table[share] = [_number(rate.rate) for rate in rates]
        table[f"{share}_low"] = [_number(rate.low) for rate in rates]
        table[f"{share}_high"] = [_number(rate.high) for rate in rates]
    parts = groups[[f"{share}_part" for share in PARTS]].mean()
    for share in PARTS:  # the interval is that of the share, in the part's measure
        scale = (parts[f"{share}_part"] / table[share]).where(table[share] > 0, 1.0)
        table[[f"{share}_low", f"{share}_high"]] = table[[f"{share}_low", f"{share}_high"]].mul(scale, axis=0)
        table[share] = parts[f"{share}_part"]
    table["worst"] = groups[["seen", "unseen"]].max().max(axis=1)
    once = cells.drop_duplicates(["report", "method"]).groupby(keys, sort=False)
    table[["prepared", "stored"]] = once[["prepared", "stored"]].median()
    return table.reset_index()


def method_figures(report: Report, method: str) -> dict[str, float | None]:
    """Return the ``figures`` of one method of a report, None where it was not measured."""
    cells = tuple(c for c in report.cells if c.method in (method, ORIGINAL))
    table = figures([replace(report, cells=cells)], ("method",)).set_index("method")
    return {name: None if isnan(value) else value for name, value in table.loc[method].items()}


def trade(reports: Sequence[Report]) -> dict[str, tuple[float, float]]:
    """Return (kept, erased) of each method, means over the reports that have both.

    "Kept" is the smallest of neutral attributes, other concepts and neighbours, as parts of the original's.
    """
    shares = figures(reports).dropna(subset=["kept", "erased"])
    shares["kept"] = shares[PARTS].min(axis=1)
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
            rows += [
                (c.prompts, c.method, interval(c.unsafe), "-", of_method[c.method], "-", "-") for c in cells
            ]
            continue
        others, near = ([percent(share) for share in table[name]] for name in ("others", "near"))
        shown = _intervals(table, "seen"), _intervals(table, "unseen")
        rows += zip(table.concept, table.method, *shown, kept, others, near, strict=True)
    heads = ["concept", "method", SEEN, UNSEEN, "neutral kept", "others kept", NEAR]
    return where_measured(pd.DataFrame(rows, columns=heads))


def where_measured(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the column of neighbours where no suite has any."""
    return table.drop(columns=NEAR) if (table[NEAR] == "-").all() else table


def summary(reports: Sequence[Report]) -> str:
    """Return ``summary_table`` in Markdown."""
    return as_markdown(summary_table(reports))


def overview_table(reports: Sequence[Report]) -> pd.DataFrame:
    """Return a row for each method that all reports have: what a reader looks at first; see ``figures``.

    "shown" is over the videos of all concepts.
    """
    table = figures(reports, ("method",)).set_index("method").loc[_common_methods(reports)]
    overview = pd.DataFrame(
        {
            "method": list(table.index),
            SEEN: _intervals(table, "seen"),
            UNSEEN: _intervals(table, "unseen"),
            "worst concept": [percent(share) for share in table.worst],
            "neutral kept": _intervals(table, "kept"),
            "others kept": _intervals(table, "others"),
            NEAR: _intervals(table, "near"),
            "SSIM": [number("ssim", value) for value in table.ssim],
            "prepared in s": ["-" if isnan(seconds) else f"{seconds:.1f}" for seconds in table.prepared],
            "stored in kB": ["-" if isnan(size) else f"{size:.0f}" for size in table.stored],
        }
    )
    return where_measured(overview)


def matrix_table(reports: Sequence[Report]) -> pd.DataFrame:
    """Return a row a method and a column a group of prompts.

    Each figure is the share of the videos of all reports that show the concept, with its Wilson 95 %
    interval; of ordinary groups, where nothing is to be shown, as well.
    """
    cells = tidy(reports)
    rates = pooled(cells, ["method", "prompts"], ["unsafe"])["unsafe"].map(interval).to_dict()
    methods, groups = cells.method.unique(), list(cells.prompts.unique())
    rows = [[method, *(rates.get((method, group), "-") for group in groups)] for method in methods]
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
    cells = (
        [cell.replace("|", r"\|") for cell in row] for row in [table.columns, *table.itertuples(index=False)]
    )
    head, *rows = (f"| {' | '.join(row)} |" for row in cells)
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
