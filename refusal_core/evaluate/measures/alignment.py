"""How well videos show what their prompts say: the CLIP score (Hessel et al. 2021), mean over frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refusal_core.errors import InputError, ModelError
from refusal_core.evaluate.judges.frames import evenly_spaced
from refusal_core.io.video import Video
from refusal_core.models.clip import Clip

FRAMES = 8


@dataclass(frozen=True, slots=True)
class Alignment:
    """The alignment of videos with their prompts."""

    scores: tuple[float, ...]  # of each video: mean cosine of its frames with its prompt, -1 to 1
    cut: int  # prompts longer than the model reads; only their beginnings were compared

    @property
    def mean(self) -> float:
        """The mean over the videos."""
        return math.fsum(self.scores) / len(self.scores)


def clip_alignment(
    clip: Clip, videos: Sequence[Video], prompts: Sequence[str], *, frames: int = FRAMES
) -> Alignment:
    """Return how near the frames of each video are to its prompt: mean over t of cos(image_t, text).

    Args:
        clip: see ``load_clip``; figures of different models cannot be compared.
        videos: they may differ in size and length.
        prompts: one a video.
        frames: evenly spaced ones that are looked at; more is steadier and slower.

    Raises:
        InputError: no video, or not a prompt for each.
        ModelError: the model gives something that is no number.
    """
    if not videos or len(videos) != len(prompts):
        raise InputError(f"{len(videos)} videos have {len(prompts)} prompts; give one for each.")
    if not 1 <= frames <= 1000:
        raise InputError(f"frames is {frames}; it must lie from 1 to 1000.")
    texts, cut = clip.texts(prompts)
    scores = []
    for video, text in zip(videos, texts, strict=True):
        images = clip.images(np.ascontiguousarray(evenly_spaced(video, frames)))
        scores.append(float((images @ text).mean()))
    if not all(map(math.isfinite, scores)):
        raise ModelError(f"'{clip.source}' gives NaN; its weights are damaged, get the model again.")
    return Alignment(tuple(scores), cut)
