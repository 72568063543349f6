"""One row a method over several concepts: what a reader looks at first."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

from refusal_core.evaluate.measures.statistics import Rate
from refusal_core.evaluate.reports.report import (
    ORDINARY,
    Report,
    interval,
    kept_share,
    least_kept,
    number,
    others_share,
    others_shown,
    percent,
    pooled,
    with_bounds,
)

OVERVIEW = (
    "method",
    "shown, seen phrasings",
    "shown, unseen phrasings",
    "worst concept",
    "neutral kept",
    "others kept",
    "SSIM",
    "prepared in s",
    "stored in kB",
)


def overview_table(reports: Sequence[Report]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table with a row for each method that all reports have, shares in percent.

    "shown" is over the videos of all concepts, with its Wilson 95 % interval; "worst concept" the largest
    share of one concept, over both phrasings; "kept" are means over the concepts, as parts of what the
    original gets, with the intervals of the shares before they are put beside the original; "SSIM" is between
    original and unlearned on neutral prompts; "prepared" is the median time from the loaded model to the
    edited one, "stored" the median size of what has to be kept for it.
    """
    first, *rest = reports
    names = [name for name in first.names if all(name in report.names for report in rest)]
    return list(OVERVIEW), [_row(reports, name) for name in names]


def matrix_table(reports: Sequence[Report]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table with a row a method and a column a group of prompts.

    Each figure is the share, in percent, of the videos of all reports that show the concept, with its Wilson
    95 % interval; of ordinary groups, where nothing is to be shown, as well.
    """
    groups = list(dict.fromkeys(cell.prompts for report in reports for cell in report.cells))
    names = list(dict.fromkeys(name for report in reports for name in report.names))
    rows = [[name, *(interval(_shown(reports, name, group)) for group in groups)] for name in names]
    return ["method", *groups], rows


def _row(reports: Sequence[Report], method: str) -> list[str]:
    costs = [report.costs[method] for report in reports if method in report.costs]
    return [
        method,
        interval(_shown(reports, method, "concept")),
        interval(_shown(reports, method, "paraphrase")),
        percent(_worst(reports, method)),
        with_bounds(_mean([kept_share(r, method) for r in reports]), least_kept(reports, method)),
        with_bounds(_mean([others_share(r, method) for r in reports]), others_shown(reports, method)),
        number("ssim", _mean([_similarity(report, method) for report in reports])),
        f"{median(cost.prepare_seconds for cost in costs):.1f}" if costs else "-",
        f"{median(cost.stored_kilobytes for cost in costs):.0f}" if costs else "-",
    ]


def _shown(reports: Sequence[Report], method: str, prompts: str) -> Rate:
    return pooled([cell for report in reports if (cell := report.cell(method, prompts)) is not None])


def _worst(reports: Sequence[Report], method: str) -> float | None:
    cells = [report.cell(method, prompts) for report in reports for prompts in ("concept", "paraphrase")]
    return max((c.unsafe.rate for c in cells if c is not None and c.unsafe.rate is not None), default=None)


def _similarity(report: Report, method: str) -> float | None:
    cell = report.cell(method, ORDINARY)
    return cell.quality.get("ssim") if cell is not None else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
