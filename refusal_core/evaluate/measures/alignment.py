"""How well videos show what their prompts say: the CLIP score (Hessel et al. 2021), mean over frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from refusal_core.errors import InputError, ModelError
from refusal_core.evaluate.judges.frames import evenly_spaced
from refusal_core.io.video import Video
from refusal_core.models.clip import TextImageModel

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
    clip: TextImageModel, videos: Sequence[Video], prompts: Sequence[str], *, frames: int = FRAMES
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
    scores, cut = [], 0
    for video, prompt in zip(videos, prompts, strict=True):
        cut += len(clip.processor.tokenizer(prompt, verbose=False)["input_ids"]) > clip.longest_text
        packed = clip.processor(
            text=[prompt],
            images=list(evenly_spaced(video, frames)),
            text_kwargs={"truncation": True, "max_length": clip.longest_text},
            images_kwargs={"input_data_format": "channels_last"},
            return_tensors="pt",
        ).to(clip.network.device)
        with torch.inference_mode():
            embedded = clip.network(**packed)  # its vectors have length one
        scores.append(float((embedded.image_embeds @ embedded.text_embeds.T).mean()))
    if not all(map(math.isfinite, scores)):
        raise ModelError(f"'{clip.source}' gives NaN; its weights are damaged, get the model again.")
    return Alignment(tuple(scores), cut)
