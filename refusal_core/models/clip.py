"""Loading CLIP (Radford et al. 2021), which puts texts and images into one space. Safetensors only."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from refusal_core.errors import MemoryLimitError, ModelError
from refusal_core.io.shards import expect_safetensors
from refusal_core.models.devices import device_of

CANNOT = "give a folder or hub id of a CLIP model in transformers' form, with .safetensors weights."
_BROKEN = (
    OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class TextImageModel:
    """A CLIP model with its processor of texts and images."""

    source: str
    network: Any  # CLIPModel, whose own types are wider than what it holds
    processor: Any  # CLIPProcessor

    @property
    def longest_text(self) -> int:
        """How many tokens of a text the model reads, its two marks included."""
        return int(self.network.config.text_config.max_position_embeddings)


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
