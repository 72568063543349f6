"""Loading CLIP (Radford et al. 2021), which puts texts and images into one space. Safetensors only."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from refusal_core.errors import MemoryLimitError, ModelError
from refusal_core.io.shards import expect_safetensors
from refusal_core.models.devices import device_of

BATCH = 64  # images at once
CANNOT = "give a folder or hub id of a CLIP model in transformers' form, with .safetensors weights."
_BROKEN = (
    OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A CLIP model with its tokenizer and its way of preparing images."""

    source: str
    network: Any  # CLIPModel
    tokenizer: Any
    prepare: Any  # the image processor

    @property
    def longest_text(self) -> int:
        """How many tokens of a text the model reads, its two marks included."""
        return int(self.network.config.text_config.max_position_embeddings)

    def texts(self, prompts: Sequence[str]) -> tuple[Tensor, int]:
        """Return unit vectors [n, d], float32 on the CPU, and how many prompts were too long and cut."""
        whole = self.tokenizer(list(prompts), verbose=False)["input_ids"]  # no warning: they are counted
        packed = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self.longest_text, return_tensors="pt"
        )
        with torch.inference_mode():
            found = self.network.get_text_features(**packed.to(self.network.device))
        return _unit(found), sum(len(tokens) > self.longest_text for tokens in whole)

    def images(self, frames: NDArray[np.uint8]) -> Tensor:
        """Return unit vectors [n, d], float32 on the CPU, of frames [n, height, width, 3]."""
        found = []
        for start in range(0, len(frames), BATCH):
            images = list(frames[start : start + BATCH])
            pixels = self.prepare(images=images, input_data_format="channels_last", return_tensors="pt")
            with torch.inference_mode():
                place = pixels["pixel_values"].to(self.network.device, self.network.dtype)
                found.append(_unit(self.network.get_image_features(pixel_values=place)))
        return torch.cat(found)


def load_clip(source: str, *, device: str = "auto", revision: str | None = None) -> Clip:
    """Load a CLIP model, for reading only.

    Args:
        source: a folder or a hub id, for example openai/clip-vit-base-patch32.
        device: auto takes a GPU where there is one.
        revision: of a hub id: a tag or a commit.

    Raises:
        ModelError: missing, of another kind, not whole, or without safetensors.
        MemoryLimitError: it does not fit.
    """
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPConfig, CLIPModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    place = device_of(device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config, _ = CLIPConfig.get_config_dict(source, revision=revision)
            if config.get("model_type") != "clip":
                raise ModelError(f"'{source}' is a model of type {config.get('model_type')}; {CANNOT}")
            if Path(source).is_dir():
                expect_safetensors(Path(source))
            network, loaded = CLIPModel.from_pretrained(
                source, revision=revision, use_safetensors=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
            prepare = AutoImageProcessor.from_pretrained(source, revision=revision, trust_remote_code=False)
    except _BROKEN as e:
        raise ModelError(f"'{source}' cannot be loaded; {CANNOT}") from e
    if missing := sorted(loaded["missing_keys"]):  # they would be random numbers
        raise ModelError(f"'{source}' lacks the weights {missing[0]} and {len(missing) - 1} others; {CANNOT}")
    try:
        return Clip(source, network.eval().to(place), tokenizer, prepare)
    except torch.OutOfMemoryError as e:
        raise MemoryLimitError(f"'{source}' does not fit into the GPU's memory; take device cpu.") from e


def _unit(found: Any) -> Tensor:
    """Return vectors of length one; transformers hands them out bare or in a record, by version."""
    vectors = (found if isinstance(found, Tensor) else found.pooler_output).float().cpu()
    return vectors / vectors.norm(dim=-1, keepdim=True)
