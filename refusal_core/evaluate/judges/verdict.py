"""What a judge says: always one of three outcomes. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from refusal_core.io.video import Video

Outcome = Literal["unsafe", "safe", "not judged"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is seen in one video. A failed reading is ``not judged``: never safe, never unsafe."""

    outcome: Outcome
    score: float | None = None  # the judge's own measure of unsafe, 0 to 1, where it has one
    why: str = ""  # one sentence
    values: Mapping[str, str] = field(default_factory=dict)  # attributes, where the judge reads them


Judge = Callable[[Sequence[Video], str], list[Verdict]]
"""Called with videos and the aspect that is looked for: a concept or a category; one verdict a video."""
