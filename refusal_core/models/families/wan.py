"""Wan and what is built like it: separate cross-attention in every block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from refusal_core.models.families.family import (
    APACHE,
    CARD,
    Blocks,
    Checkpoint,
    Defaults,
    Family,
    Network,
    Variant,
    cross_attention_sites,
    published,
)


def _two_experts(source: str, licence: str, **config: Any) -> Checkpoint:
    kind = "WanTransformer3DModel"
    networks = tuple(Network(name, kind, config) for name in ("transformer", "transformer_2"))
    return Checkpoint(source, networks, licence)


def _vace(source: str, **config: Any) -> Checkpoint:
    return published(source, "WanVACETransformer3DModel", APACHE, **config)


_WAN_COMFYUI = {
    r"blocks\.(\d+)\.attn2\.to_out\.0": r"blocks.\1.cross_attn.o",
    r"blocks\.(\d+)\.attn2\.to_(k|v)": r"blocks.\1.cross_attn.\2",
    r"blocks\.(\d+)\.attn1\.to_out\.0": r"blocks.\1.self_attn.o",
    r"blocks\.(\d+)\.ffn\.net\.0\.proj": r"blocks.\1.ffn.0",
    r"blocks\.(\d+)\.ffn\.net\.2": r"blocks.\1.ffn.2",
    r"condition_embedder\.text_embedder\.linear_1": "text_embedding.0",
}
_SMALL: dict[str, Any] = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
_5B: dict[str, Any] = {
    "num_attention_heads": 24,
    "ffn_dim": 14336,
    "num_layers": 30,
    "in_channels": 48,
    "out_channels": 48,
}
_IMAGE: dict[str, Any] = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
_LARGE_SKYREELS: dict[str, Any] = {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}

_LARGE = {"transformer.num_attention_heads": 40}
_TWO = {"transformer_2.num_attention_heads": 40}
# As upstream has them: 14B is made for 720p as well as for 480p, the two experts of 2.2 for fewer steps.
_720P = Defaults(81, 720, 1280, 16.0, 50, 5.0, 512)
_TI2V = Variant(Defaults(121, 704, 1280, 24.0, 50, 5.0, 512), {"transformer.in_channels": 48})

_TEXT = Family(
    name="wan",
    title="Wan 2.1 and 2.2, text to video",
    pipelines=("WanPipeline",),
    denoisers=("transformer", "transformer_2"),
    blocks=(Blocks(("blocks.*",), cross_attention_sites("attn2", "ffn")),),
    entry=("condition_embedder.text_embedder.linear_1",),
    text_arguments=("encoder_hidden_states",),
    guidance="passes",
    defaults=Defaults(81, 480, 832, 16.0, 50, 5.0, 512),
    comfyui=_WAN_COMFYUI,
    variants=(
        _TI2V,
        Variant(Defaults(81, 720, 1280, 16.0, 40, 4.0, 512), _TWO),
        Variant(_720P, _LARGE),
    ),
    checkpoints=(
        published("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "WanTransformer3DModel", APACHE, **_SMALL),
        published("Wan-AI/Wan2.1-T2V-14B-Diffusers", "WanTransformer3DModel", APACHE),
        _two_experts("Wan-AI/Wan2.2-T2V-A14B-Diffusers", APACHE),
        published("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "WanTransformer3DModel", APACHE, **_5B),
    ),
)
_ANYFLOW = "AnyFlowTransformer3DModel"
_SKYREELS = "SkyReelsV2Transformer3DModel"

WAN: tuple[Family, ...] = (
    _TEXT,
    replace(
        _TEXT,
        name="wan-i2v",
        title="Wan 2.1 and 2.2, image to video",
        pipelines=("WanImageToVideoPipeline",),
        checkpoints=(
            published("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "WanTransformer3DModel", APACHE, **_IMAGE),
            published("Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", "WanTransformer3DModel", APACHE, **_IMAGE),
            _two_experts("Wan-AI/Wan2.2-I2V-A14B-Diffusers", APACHE, in_channels=36),
        ),
        variants=(
            _TI2V,
            Variant(Defaults(81, 720, 1280, 16.0, 40, 3.5, 512), _TWO),
            Variant(_720P, named="720P"),  # its networks are those of 480P
        ),
        note="The image branch of Wan 2.1 is summed with the text before the output projection.",
    ),
    replace(
        _TEXT,
        name="chronoedit",
        title="ChronoEdit",
        pipelines=("ChronoEditPipeline",),
        denoisers=("transformer",),
        defaults=Defaults(5, 720, 1280, 16.0, 50, 5.0, 512),
        variants=(),
        checkpoints=(
            published("nvidia/ChronoEdit-14B-Diffusers", "ChronoEditTransformer3DModel", CARD, **_IMAGE),
        ),
        note="It edits the image: five frames lead to the result. Temporal reasoning is off.",
    ),
    replace(
        _TEXT,
        name="wan-vace",
        title="Wan VACE",
        pipelines=("WanVACEPipeline",),
        checkpoints=(
            _vace("Wan-AI/Wan2.1-VACE-1.3B-diffusers", vace_layers=list(range(0, 30, 2)), **_SMALL),
            _vace("Wan-AI/Wan2.1-VACE-14B-diffusers"),
        ),
        batches=False,
        variants=(Variant(_720P, _LARGE),),
        note="Control blocks (vace_blocks) are left as they are.",
    ),
    replace(
        _TEXT,
        name="skyreels-v2",
        title="SkyReels V2",
        pipelines=(
            "SkyReelsV2Pipeline",
            "SkyReelsV2ImageToVideoPipeline",
            "SkyReelsV2DiffusionForcingPipeline",
            "SkyReelsV2DiffusionForcingImageToVideoPipeline",
        ),
        denoisers=("transformer",),
        defaults=Defaults(97, 544, 960, 24.0, 50, 6.0, 512),
        variants=(Variant(Defaults(121, 720, 1280, 24.0, 50, 6.0, 512), named="720P"),),
        checkpoints=(
            published("Skywork/SkyReels-V2-T2V-14B-540P-Diffusers", _SKYREELS, CARD, **_LARGE_SKYREELS),
            published("Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers", _SKYREELS, CARD, **_SMALL),
        ),
    ),
    replace(
        _TEXT,
        name="anyflow",
        title="AnyFlow",
        pipelines=("AnyFlowPipeline",),
        denoisers=("transformer",),
        latents="BFCHW",
        guidance="batched",
        defaults=Defaults(
            81, 480, 832, 16.0, 4, 1.0, 512
        ),  # distilled: few steps, the guidance is in its weights
        variants=(),
        checkpoints=(
            published("nvidia/AnyFlow-Wan2.1-T2V-1.3B-Diffusers", _ANYFLOW, CARD, **_SMALL),
            published("nvidia/AnyFlow-Wan2.1-T2V-14B-Diffusers", _ANYFLOW, CARD),
        ),
    ),
    replace(
        _TEXT,
        name="helios",
        title="Helios",
        pipelines=("HeliosPipeline",),
        denoisers=("transformer",),
        blocks=(Blocks(("blocks.*",), cross_attention_sites("attn2", "ffn"), "piece-last"),),
        piece=("num_latent_frames_per_chunk", 9),
        image_optional=True,
        defaults=Defaults(132, 384, 640, 24.0, 50, 5.0, 512),
        variants=(),
        checkpoints=(published("BestWishYsh/Helios-Base", "HeliosTransformer3DModel", CARD),),
        note="It makes a video piece by piece; what is read at the video's side is of the first two.",
    ),
)
