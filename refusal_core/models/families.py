"""Facts on each family of video models, as data. A new family is one entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from refusal_core.settings import SiteKind


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a model generates when nothing else is asked."""

    frames: int
    height: int
    width: int
    fps: float
    steps: int
    guidance_scale: float
    text_length: int  # tokens the text encoder is given


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture: where its blocks are, and which linear each kind of site means.

    Paths in ``sites`` are relative to a block; those in ``entry`` to the denoiser. All block inputs
    are [batch, tokens, H] with tokens ordered frame by frame.
    """

    name: str
    pipelines: tuple[str, ...]
    denoisers: tuple[str, ...]  # attributes of the pipeline, in execution order
    blocks: str
    entry: tuple[str, ...]  # the linear through which the text encoder's output enters
    sites: Mapping[SiteKind, tuple[str, ...]]
    text_arguments: tuple[str, ...]  # of the denoiser's forward, swapped on replay
    defaults: Defaults


FAMILIES: tuple[Family, ...] = (
    Family(
        name="wan",
        pipelines=("WanPipeline",),
        denoisers=("transformer", "transformer_2"),
        blocks="blocks",
        entry=("condition_embedder.text_embedder.linear_1",),
        sites={
            "text": ("attn2.to_k", "attn2.to_v"),
            "cross-attention": ("attn2.to_out.0",),
            "feed-forward": ("ffn.net.0.proj",),
            "feed-forward-out": ("ffn.net.2",),
            "self-attention": ("attn1.to_out.0",),
        },
        text_arguments=("encoder_hidden_states",),
        defaults=Defaults(81, 480, 832, 16.0, 50, 5.0, 512),
    ),
)
