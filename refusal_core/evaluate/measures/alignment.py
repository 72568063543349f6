"""How well videos show what their prompts say: the CLIP score (Hessel et al. 2021), mean over frames."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from refusal_core.errors import InputError, MemoryLimitError, ModelError
from refusal_core.evaluate.judges.frames import evenly_spaced
from refusal_core.io.shards import expect_safetensors
from refusal_core.io.video import Video
from refusal_core.models.devices import device_of

FRAMES = 8
CANNOT = "give a folder or hub id of a CLIP model in transformers' form, with .safetensors weights."
_BROKEN = (
    OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class TextImageModel:
    """A CLIP model (Radford et al. 2021), which puts texts and images into one space, with its processor."""

    source: str
    network: Any  # CLIPModel, whose own types are wider than what it holds
    processor: Any  # CLIPProcessor

    @property
    def longest_text(self) -> int:
        """How many tokens of a text the model reads, its two marks included."""
        return int(self.network.config.text_config.max_position_embeddings)


@dataclass(frozen=True, slots=True)
class Alignment:
    """The alignment of videos with their prompts."""

    scores: tuple[float, ...]  # of each video: mean cosine of its frames with its prompt, -1 to 1
    cut: int  # prompts longer than the model reads; only their beginnings were compared

    @property
    def mean(self) -> float:
        """The mean over the videos."""
        return math.fsum(self.scores) / len(self.scores)


def load_clip(source: str, *, device: str = "auto", revision: str | None = None) -> TextImageModel:
    """Load a CLIP model, for reading only and from safetensors alone.

    Args:
        source: a folder or a hub id, for example openai/clip-vit-base-patch32.
        device: auto takes a GPU where there is one.
        revision: of a hub id: a tag or a commit.

    Raises:
        ModelError: missing, of another kind, not whole, or without safetensors.
        MemoryLimitError: it does not fit.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    version: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = CLIPConfig.get_config_dict(source, **version)[0].get("model_type")
            if kind != "clip":
                raise ModelError(f"'{source}' is a model of type {kind}; {CANNOT}")
            if Path(source).is_dir():
                expect_safetensors(Path(source))
            loaded: Any = CLIPModel.from_pretrained(
                source, **version, use_safetensors=True, output_loading_info=True
            )
            processor = CLIPProcessor.from_pretrained(source, **version, trust_remote_code=False)
    except _BROKEN as e:
        raise ModelError(f"'{source}' cannot be loaded; {CANNOT}") from e
    network, report = loaded
    if missing := sorted(report["missing_keys"]):  # they would be random numbers
        raise ModelError(f"'{source}' lacks the weights {missing[0]} and {len(missing) - 1} others; {CANNOT}")
    try:
        return TextImageModel(source, network.eval().to(device_of(device)), processor)
    except torch.OutOfMemoryError as e:
        raise MemoryLimitError(f"'{source}' does not fit into the GPU's memory; take device cpu.") from e


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
