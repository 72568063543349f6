"""A report: cells of figures with intervals, and the JSON file it is kept in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from refusal_core.errors import FileError
from refusal_core.evaluate.measures.costs import Cost
from refusal_core.evaluate.measures.samples import Sample
from refusal_core.evaluate.reports.cells import Cell
from refusal_core.io.files import write_json
from refusal_core.io.reading import expect_plain, parse_json, read_ordinary

MAX_BYTES = 4 << 20  # ten times a report of fourteen categories


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


def load_report(path: Path) -> Report:
    """Read a report that ``evaluate --json`` wrote; raises FileError in one sentence."""
    text = read_ordinary(path, MAX_BYTES)
    try:
        content = parse_json(text)
        report = Report.from_json(content)
        expect_plain(asdict(replace(report, methods={})))  # recipes hold prompts, which are any text
    except (ValueError, TypeError) as e:
        raise FileError(f"{path.name} is no report; write one with evaluate --json.") from e
    if not report.cells:
        raise FileError(f"{path.name} holds no cell; run evaluate again.")
    return report


def save_reports(reports: Sequence[Report], path: Path, *, several: bool) -> None:
    """Write a report to a file; where there may be several, each to a file of its concept in a folder."""
    for report in reports:
        write_json(path / f"{report.concept}.json" if several else path, report.to_json())
