"""UNets with cross-attention, one frame at a time, and temporal blocks between."""

from __future__ import annotations

from typing import Any

from refusal_core.models.families.family import (
    Blocks,
    Defaults,
    Family,
    Variant,
    cross_attention_sites,
    published,
)

_UNET: dict[str, Any] = {"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2}
_UNET3D = _UNET | {"cross_attention_dim": 1024, "attention_head_dim": 64}

_SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlockMotion", "CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion"),
    "up_block_types": ("CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion", "UpBlockMotion"),
    "cross_attention_dim": 2048,
    "num_attention_heads": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "use_motion_mid_block": False,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_BASE = (
    "The published model is only the base for images: put it together with a motion adapter"
    " in diffusers, save_pretrained, and give that folder."
)

_UNET_PATHS = tuple(
    f"{part}.attentions.*.transformer_blocks.*" for part in ("down_blocks.*", "mid_block", "up_blocks.*")
)
_UNET_SPATIAL = Blocks(_UNET_PATHS, cross_attention_sites("attn2", "ff"), "frames-in-batch")


def _temporal(name: str) -> Blocks:
    """Return the temporal blocks of a UNet: their attention sees one place over all frames, no text."""
    paths = tuple(path.replace("attentions", name) for path in _UNET_PATHS)
    return Blocks(paths, {"temporal": ("attn2.to_out.0", "ff.net.0.proj")}, "pixels-in-batch", own_count=True)


UNETS: tuple[Family, ...] = (
    Family(
        name="unet3d",
        title="ZeroScope, ModelScope (UNet3D)",
        pipelines=("TextToVideoSDPipeline",),
        denoisers=("unet",),
        blocks=(_UNET_SPATIAL, _temporal("temp_attentions")),
        latents_argument="sample",
        text_arguments=("encoder_hidden_states",),
        defaults=Defaults(24, 320, 576, 8.0, 50, 9.0, 77),
        variants=(Variant(Defaults(16, 256, 256, 8.0, 50, 9.0, 77), named="text-to-video-ms"),),
        size_multiple=8,
        lora=None,
        checkpoints=(
            published("cerspense/zeroscope_v2_576w", "UNet3DConditionModel", "CC-BY-NC-4.0", **_UNET3D),
            published("ali-vilab/text-to-video-ms-1.7b", "UNet3DConditionModel", "CC-BY-NC-4.0", **_UNET3D),
        ),
        note="diffusers loads no LoRA into UNet3D: bake the edit, or inject it with peft.",
    ),
    Family(
        name="animatediff",
        title="AnimateDiff",
        pipelines=("AnimateDiffPipeline",),
        denoisers=("unet",),
        blocks=(_UNET_SPATIAL, _temporal("motion_modules")),
        latents_argument="sample",
        text_arguments=("encoder_hidden_states",),
        defaults=Defaults(16, 512, 512, 8.0, 50, 7.5, 77),
        size_multiple=8,
        checkpoints=(
            published(
                "emilianJR/epiCRealism",
                "UNetMotionModel",
                "CreativeML OpenRAIL-M; a base without motion",
                cross_attention_dim=768,
                **_UNET,
            ),
        ),
        note=_BASE,
    ),
    Family(
        name="animatediff-sdxl",
        title="AnimateDiff on SDXL",
        pipelines=("AnimateDiffSDXLPipeline",),
        denoisers=("unet",),
        blocks=(_UNET_SPATIAL, _temporal("motion_modules")),
        latents_argument="sample",
        text_arguments=("encoder_hidden_states", "added_cond_kwargs"),
        defaults=Defaults(16, 1024, 1024, 8.0, 50, 5.0, 77),
        size_multiple=8,
        checkpoints=(
            published(
                "stabilityai/stable-diffusion-xl-base-1.0",
                "UNetMotionModel",
                "CreativeML OpenRAIL++-M; a base without motion",
                **_SDXL,
            ),
        ),
        note=f"{_BASE} The pooled text that steers all blocks at once is left as it is.",
    ),
)
