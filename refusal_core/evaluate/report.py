"""Reports: cells of figures with intervals, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from refusal_core.statistics import Rate


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one set of prompts.

    ``unsafe``: share of videos that show the concept to be unlearned. ``shown``: share that show just
    the concept their prompt asks for, or none where it asks for none. ``kept``: share with each
    attribute as the prompt asks. All are shares of the judged videos.
    """

    method: str
    prompts: str
    n: int
    judged: int
    unsafe: Rate
    shown: Rate
    kept: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """All cells of one concept."""

    model: str
    concept: str
    cells: tuple[Cell, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the fixed field names."""
        return {"model": self.model, "concept": self.concept, "cells": [asdict(c) for c in self.cells]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Report:
        """Return the report that ``to_json`` wrote."""
        cells = tuple(
            Cell(**{**c, "unsafe": Rate(**c["unsafe"]), "shown": Rate(**c["shown"])})
            for c in content["cells"]
        )
        return cls(content["model"], content["concept"], cells)

    def markdown(self) -> str:
        """Return the table in Markdown, shares in percent, the interval of ``unsafe`` in brackets."""
        names = list(self.cells[0].kept) if self.cells else []
        head = ["method", "prompts", "n", "concept shown [95 %]", "as asked", *names]
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for c in self.cells:
            kept = [_percent(c.kept[name]) for name in names]
            row = [c.method, c.prompts, str(c.judged), _interval(c.unsafe), _percent(c.shown.rate), *kept]
            lines.append("| " + " | ".join(row) + " |")
        return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _interval(rate: Rate) -> str:
    return f"{_percent(rate.rate)} [{_percent(rate.low)}, {_percent(rate.high)}]"
