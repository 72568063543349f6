"""Reports: cells of figures with intervals, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
    seconds: Mapping[str, float] = field(default_factory=dict)  # to prepare each method, once
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the fixed field names."""
        return {
            "model": self.model,
            "concept": self.concept,
            "cells": [asdict(c) for c in self.cells],
            "seconds": dict(self.seconds),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Report:
        """Return the report that ``to_json`` wrote."""
        cells = tuple(
            Cell(**{**c, "unsafe": Rate(**c["unsafe"]), "shown": Rate(**c["shown"])})
            for c in content["cells"]
        )
        seconds, notes = content.get("seconds", {}), tuple(content.get("notes", ()))
        return cls(content["model"], content["concept"], cells, seconds, notes)

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


def summary(reports: Sequence[Report]) -> str:
    """Return one Markdown row for each concept and method, in percent.

    "concept shown" stands with its 95 % interval. "neutral kept" is the least of colour, shape, motion and
    background, "others kept" the share of other concepts still shown; both as a part of what the
    original gets.
    """
    lines = [
        "| concept | method | shown, seen phrasings | shown, unseen phrasings | neutral kept | others kept |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        cells = {(c.method, c.prompts): c for c in report.cells}
        for method in dict.fromkeys(c.method for c in report.cells):
            mine = {p: cells[method, p] for p in ("concept", "paraphrase", "neutral", "other-concepts")}
            base = {p: cells["original", p] for p in ("neutral", "other-concepts")}
            kept = min(_part(mine["neutral"].kept[n], base["neutral"].kept[n]) for n in base["neutral"].kept)
            others = _part(mine["other-concepts"].shown.rate, base["other-concepts"].shown.rate)
            seen, unseen = _interval(mine["concept"].unsafe), _interval(mine["paraphrase"].unsafe)
            row = (report.concept, method, seen, unseen, _percent(kept), _percent(others))
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _part(share: float | None, of: float | None) -> float:
    return (share or 0.0) / of if of else 0.0
