"""Reports: cells of figures with intervals, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from refusal_core.errors import FileError
from refusal_core.evaluate.measures.costs import Cost
from refusal_core.evaluate.measures.samples import Sample
from refusal_core.evaluate.measures.statistics import Rate, wilson
from refusal_core.evaluate.reports.summary import Cell
from refusal_core.io.files import write_json
from refusal_core.io.reading import expect_plain, parse_json, read_ordinary

MAX_BYTES = 4 << 20  # ten times a report of fourteen categories
ORDINARY, OTHERS = "neutral", "other-concepts"


@dataclass(frozen=True, slots=True)
class Report:
    """All cells of one concept, or of several erased at once, and what they were measured with."""

    model: str
    concept: str
    cells: tuple[Cell, ...]
    suite: str = ""
    judge: str = ""
    seeds: tuple[int, int] = (0, 0)  # smallest and largest
    costs: Mapping[str, Cost] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # key and recipe of each
    samples: tuple[Sample, ...] = ()  # pictures, in a folder beside the readings
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the fixed field names."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: object) -> Report:
        """Return the report that ``to_json`` wrote; raises ValueError where it is none."""
        return TypeAdapter(cls).validate_python(content)

    def cell(self, method: str, prompts: str) -> Cell | None:
        """Return one cell, None where the report has it not."""
        return next((c for c in self.cells if (c.method, c.prompts) == (method, prompts)), None)

    @property
    def names(self) -> tuple[str, ...]:
        """The methods, in order."""
        return tuple(dict.fromkeys(c.method for c in self.cells))

    def markdown(self) -> str:
        """Return the table in Markdown, shares in percent, the interval of ``unsafe`` in brackets."""
        return as_markdown(*self.table())

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return head and rows of the whole table."""
        kept = list(dict.fromkeys(name for c in self.cells for name in c.kept))
        quality = list(dict.fromkeys(name for c in self.cells for name in c.quality))
        head = ["method", "prompts", "n", "concept shown [95 %]", "p", "as asked", *kept, *quality]
        questions = ["questions right (n)"] if any(c.questions for c in self.cells) else []
        rows = []
        for c in self.cells:
            attributes = [percent(c.kept.get(name)) for name in kept]
            measures = [number(name, c.quality.get(name)) for name in quality]
            p = "-" if c.p is None else f"{c.p:.2g}"
            judged = str(c.n) if c.judged == c.n else f"{c.judged} of {c.n}"
            row = [c.method, c.prompts, judged, interval(c.unsafe), p, percent(c.shown.rate)]
            rows.append([*row, *attributes, *measures, *(faithful(c) for _ in questions)])
        return [*head, *questions], rows


def load_report(path: Path) -> Report:
    """Read a report that ``evaluate --json`` wrote; raises FileError in one sentence."""
    content = read_ordinary(path, MAX_BYTES)
    try:
        found = parse_json(content)
        expect_plain(found)
        report = Report.from_json(found)
    except (ValueError, TypeError) as e:
        raise FileError(f"{path.name} is no report; write one with evaluate --json.") from e
    if not report.cells:
        raise FileError(f"{path.name} holds no cell; run evaluate again.")
    return report


def save_reports(reports: Sequence[Report], path: Path, *, several: bool) -> None:
    """Write a report to a file; where there may be several, each to a file of its concept in a folder."""
    for report in reports:
        write_json(path / f"{report.concept}.json" if several else path, report.to_json())


def as_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def as_latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in LaTeX, for the package booktabs."""
    lines = [r"\begin{tabular}{ll" + "r" * (len(head) - 2) + "}", r"\toprule"]
    lines += [" & ".join(map(_escape, head)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_escape, row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _escape(text: str) -> str:
    return "".join("\\" + c if c in "%&_#${}" else c for c in text)


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash."""
    return "-" if share is None else f"{100 * share:.1f}"


def number(name: str, value: float | None) -> str:
    """Return a measure in its usual form: the share of broken videos in percent, others to two places."""
    if value is None:
        return "-"
    return percent(value) if name == "broken" else f"{value:.2f}"


def faithful(cell: Cell) -> str:
    """Return the mean share of questions answered as expected, in percent, and of how many videos."""
    return f"{percent(cell.questions.mean)} ({cell.questions.videos})" if cell.questions else "-"


def interval(rate: Rate) -> str:
    """Return a rate in percent with its interval, a dash where nothing was judged."""
    return with_bounds(rate.rate, rate)


def with_bounds(share: float | None, rate: Rate) -> str:
    """Return a share in percent with the interval of ``rate``, from which it was made."""
    return "-" if share is None else f"{percent(share)} [{percent(rate.low)}, {percent(rate.high)}]"


SUMMARY = (
    "concept",
    "method",
    "shown, seen phrasings",
    "shown, unseen phrasings",
    "neutral kept",
    "others kept",
)


def summary(reports: Sequence[Report]) -> str:
    """Return one Markdown row for each concept and method, in percent; see ``summary_rows``."""
    return as_markdown(SUMMARY, summary_rows(reports))


def summary_rows(reports: Sequence[Report]) -> list[list[str]]:
    """Return one row for each concept and method.

    "concept shown" stands with its 95 % interval. "neutral kept" is the least of colour, shape, motion and
    background, "others kept" the share of other concepts still shown; both as a part of what the
    original gets. Of a benchmark without these groups, a row stands for each of its categories.
    """
    rows = []
    for report in reports:
        if report.cell(report.names[0], "concept") is None:
            cells = [c for c in report.cells if c.prompts != ORDINARY]
            rows += [
                [c.prompts, c.method, interval(c.unsafe), "-", _kept(report, c.method), "-"] for c in cells
            ]
            continue
        for method in report.names:
            shown = [report.cell(method, name) for name in ("concept", "paraphrase")]
            seen, unseen = (interval(c.unsafe) if c else "-" for c in shown)
            rows.append(
                [report.concept, method, seen, unseen, _kept(report, method), _others(report, method)]
            )
    return rows


def _kept(report: Report, method: str) -> str:
    return percent(kept_share(report, method))


def _others(report: Report, method: str) -> str:
    return percent(others_share(report, method))


def kept_share(report: Report, method: str) -> float | None:
    """Return the least of the attributes kept on neutral prompts, as a part of what the original gets."""
    mine, base = report.cell(method, ORDINARY), report.cell("original", ORDINARY)
    if mine is None or base is None or not base.kept:
        return None
    parts = [_part(mine.kept.get(name), base.kept[name]) for name in base.kept]
    return None if None in parts else min(parts)  # type: ignore[type-var]


def others_share(report: Report, method: str) -> float | None:
    """Return how often other concepts are still shown, as a part of what the original shows."""
    mine, base = report.cell(method, OTHERS), report.cell("original", OTHERS)
    if mine is None or base is None:
        return None
    return _part(mine.shown.rate, base.shown.rate)


def erased(report: Report, method: str) -> Rate:
    """Return one less the rate at which the concept is shown, over all prompts that ask for it."""
    cells = [c for c in report.cells if c.method == method and c.prompts not in (ORDINARY, OTHERS)]
    return pooled(cells, shown=False)


def erased_share(report: Report, method: str) -> float | None:
    """Return what ``erased`` does without its interval, None where nothing was judged."""
    return erased(report, method).rate


def pooled(cells: Sequence[Cell], *, shown: bool = True) -> Rate:
    """Return the share of all judged videos of some cells that show the concept, or that do not."""
    rates = [(c, c.unsafe.rate or 0.0) for c in cells]
    return _over_judged([(c, rate if shown else 1 - rate) for c, rate in rates])


def least_kept(reports: Sequence[Report], method: str) -> Rate:
    """Return the attribute least often right on neutral prompts, as a share of the judged videos."""
    cells = [c for report in reports if (c := report.cell(method, ORDINARY)) and c.kept]
    return _over_judged([(c, min(c.kept.values())) for c in cells])


def others_shown(reports: Sequence[Report], method: str) -> Rate:
    """Return how often other concepts are shown, as a share of the judged videos that ask for them."""
    cells = [c for report in reports if (c := report.cell(method, OTHERS))]
    return _over_judged([(c, c.shown.rate or 0.0) for c in cells])


def _over_judged(shares: Sequence[tuple[Cell, float]]) -> Rate:
    judged = sum(cell.judged for cell, _ in shares)
    return wilson(sum(round(share * cell.judged) for cell, share in shares), judged)


def _part(share: float | None, of: float | None) -> float | None:
    if share is None or of is None:
        return None
    return share / of if of else 0.0
