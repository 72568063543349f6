"""How videos become figures: a judge's verdicts, a comparison with the original's frames, more measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from refusal_core.evaluate.judges.verdict import Judge
from refusal_core.evaluate.measures.journal import Measured
from refusal_core.evaluate.measures.metrics import broken, likeness, steadiness
from refusal_core.evaluate.suites.items import Group, Item
from refusal_core.io.video import Video

BATCH = 25
Quality = dict[str, tuple[float, ...]]  # by the name of a measure: one number a video
Measure = Callable[[Sequence[Video], Sequence[Item]], Sequence[float]]
Asking = Callable[[Sequence[Video], Sequence[Item]], Mapping[str, Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Scoring:
    """How the videos of a run are scored."""

    judge: Judge
    name: str  # of the judge
    quality: bool = True  # also compare with the original frame by frame
    samples: Path | None = None  # a folder for a few frames of each group
    batch: int = BATCH  # videos at once, of a small model
    more: Mapping[str, Measure] = field(default_factory=dict)  # measured on every video, by name
    questions: Asking | None = None  # asked of every video, and counted as ``ask_questions`` does
    marks: tuple[str, ...] = ()  # what else decides the readings, such as the model of a measure

    def score(
        self, videos: Sequence[Video], items: Sequence[Item], group: Group, quality: Quality
    ) -> Measured:
        """Return verdicts and measures of a batch; ``quality`` is what its frames gave."""
        verdicts = tuple(self.judge(videos, group.aspect))
        quality = quality | {name: tuple(measure(videos, items)) for name, measure in self.more.items()}
        if self.questions is not None:
            quality |= {name: tuple(v) for name, v in self.questions(videos, items).items()}
        return Measured(verdicts, quality)


def frame_quality(originals: Sequence[Video] | None, videos: Sequence[Video], *, ordinary: bool) -> Quality:
    """Return what is measured on frames; without originals, what needs none.

    Only of ordinary prompts a video should look as before: there steadiness and likeness are measured too.
    """
    rows = [steadiness(video) if ordinary else {} for video in videos]
    if originals is not None:
        for i, (before, after) in enumerate(zip(originals, videos, strict=True)):
            near = likeness(before, after) if ordinary else {}
            rows[i] = {"broken": float(broken(before, after) is not None), **near, **rows[i]}
    return {name: tuple(row[name] for row in rows) for name in rows[0]}
