"""Text encoders built from their sizes alone, a folder's own or a family's published one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from refusal_core.errors import ModelError
from refusal_core.models.families.family import Family
from refusal_core.models.inventory import read_config

_XXL: dict[str, Any] = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10_240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
_UMT5 = ("UMT5EncoderModel", _XXL | {"vocab_size": 256_384})
_CLIP = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23}
_PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "wan": _UMT5,
    "skyreels-v2": _UMT5,
    "cogvideox": ("T5EncoderModel", _XXL | {"vocab_size": 32_128}),
    "unet3d": ("CLIPTextModel", _CLIP),
}
_CLASSES = {kind for kind, _ in _PUBLISHED.values()}


def text_encoder_on_meta(family: Family, source: str, layers: int | None = None) -> nn.Module | None:
    """Return the text encoder of a model on the meta device, where its sizes are known.

    Args:
        family: the model's.
        source: its folder, or a hub id, whose encoder is taken for the family's published one.
        layers: build so many instead of all.

    Raises:
        ModelError: its configuration in a folder is not sound.
    """
    import transformers

    own = Path(source) / "text_encoder" / "config.json"
    if Path(source).is_dir():
        config = read_config(own)
        kind = str((config.get("architectures") or [""])[0])
    else:
        kind, config = _PUBLISHED.get(family.name, ("", {}))
    if kind not in _CLASSES:
        return None
    build: Any = getattr(transformers, kind)
    if layers is not None:
        config = config | {"num_hidden_layers" if kind == "CLIPTextModel" else "num_layers": layers}
    try:
        with torch.device("meta"):
            encoder: nn.Module = build(build.config_class(**config))
    except (TypeError, ValueError, KeyError) as e:
        raise ModelError(f"The text encoder cannot be built from its configuration ({e}).") from e
    return encoder
