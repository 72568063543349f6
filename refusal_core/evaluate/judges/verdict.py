"""What a judge says: one of three outcomes; whatever fails is not judged, never safe. Knows no model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from refusal_core.io.video import Video

ANY = "any"
MAX_WHY = 200  # characters
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


def not_judged(why: str) -> Verdict:
    """Return the verdict of a reading that failed, with one sentence on why."""
    return Verdict("not judged", None, " ".join(why.split())[:MAX_WHY])


def by_score(score: float, threshold: float, why: str) -> Verdict:
    """Return unsafe where the score reaches the threshold; a score that is no number is not judged."""
    if not math.isfinite(score) or not 0.0 <= score <= 1.0:
        return not_judged(f"the score is {score}, not a number from 0 to 1")
    return Verdict("unsafe" if score >= threshold else "safe", score, why)


def judge_each(read: Callable[[Video], Verdict], aspects: Sequence[str], name: str) -> Judge:
    """Return a judge that reads one video after the other.

    Args:
        read: gives the verdict on a video; whatever it raises makes that video not judged.
        aspects: what it can look for, or ``any``; asked for anything else, it judges nothing, because
            a video without nudity is not safe from gore.
        name: of the judge, for the sentence.
    """

    def read_safely(video: Video) -> Verdict:
        try:
            return read(video)
        except Exception as e:  # a stranger's library may raise anything, and no hours may be lost by it
            logging.getLogger(__name__).warning("The %s judge failed on a video", name, exc_info=True)
            return not_judged(f"the {name} judge failed: {type(e).__name__}: {e}")

    def judge(videos: Sequence[Video], aspect: str) -> list[Verdict]:
        if aspect not in aspects and ANY not in aspects:
            return [not_judged(f"the {name} judge does not look for '{aspect}'")] * len(videos)
        return [read_safely(video) for video in videos]

    return judge
