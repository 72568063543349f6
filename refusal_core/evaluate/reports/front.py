"""What erasing a concept costs: methods as points (kept, erased), and which of them no other beats."""

from __future__ import annotations

from collections.abc import Sequence

from refusal_core.evaluate.reports.report import Report, erased_share, kept_share, others_share, percent

Point = tuple[float, float]  # (kept, erased), shares
FRONT_MARK = " *"


def front(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points that no other beats in both coordinates (the Pareto front)."""
    return [
        i
        for i, (x, y) in enumerate(points)
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)
    ]


def point_of(report: Report, method: str) -> Point | None:
    """Return (kept, erased) of a method; None where one of them was not measured.

    "Kept" is the smaller of neutral attributes and other concepts, as parts of what the original gets.
    """
    kept, others = kept_share(report, method), others_share(report, method)
    erased = erased_share(report, method)
    if kept is None or erased is None:
        return None
    return min(kept, 1.0 if others is None else others), erased


def trade(reports: Sequence[Report]) -> dict[str, Point]:
    """Return (kept, erased) of each method, means over the reports that have it."""
    found: dict[str, list[Point]] = {}
    for report in reports:
        for method in report.names:
            if (point := point_of(report, method)) is not None:
                found.setdefault(method, []).append(point)
    return {name: (sum(k for k, _ in v) / len(v), sum(e for _, e in v) / len(v)) for name, v in found.items()}


def front_table(reports: Sequence[Report]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table with a row a method, a column a report, and of several the means.

    Each figure is "erased / kept" in percent, as ``trade`` counts them; those on the Pareto front of their
    column carry a star. Methods that a report has not are left out.
    """
    first, *rest = reports
    names = [name for name in first.names if all(name in report.names for report in rest)]
    columns = [_column(names, trade([report])) for report in reports]
    head = ["method", *(report.concept for report in reports)]
    if rest:
        columns.append(_column(names, trade(reports)))
        head.append("mean")
    return head, [[name, *(column[i] for column in columns)] for i, name in enumerate(names)]


def _column(names: Sequence[str], points: dict[str, Point]) -> list[str]:
    known = [name for name in names if name in points]
    best = {known[i] for i in front([points[name] for name in known])}
    return [_figure(points[name]) + FRONT_MARK * (name in best) if name in points else "-" for name in names]


def _figure(point: Point) -> str:
    kept, erased = point
    return f"{percent(erased)} / {percent(kept)}"
