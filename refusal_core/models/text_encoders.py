"""The published text encoders of families, built from their sizes alone: no weights are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from refusal_core.models.families.family import Family

_XXL: dict[str, Any] = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10_240,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


def text_encoder_on_meta(family: Family) -> nn.Module | None:
    """Return the published text encoder of a family on the meta device, where its size is known."""
    import transformers as t

    with torch.device("meta"):
        if family.name in ("wan", "skyreels-v2"):
            return t.UMT5EncoderModel(t.UMT5Config(vocab_size=256_384, num_layers=24, **_XXL))
        if family.name == "cogvideox":
            return t.T5EncoderModel(t.T5Config(vocab_size=32_128, num_layers=24, **_XXL))
        if family.name == "unet3d":
            wide: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
            return t.CLIPTextModel(t.CLIPTextConfig(num_hidden_layers=23, **wide))
    return None
