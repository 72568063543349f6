"""Transformers whose blocks read the text by cross-attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from refusal_core.models.families.family import (
    APACHE,
    CARD,
    Blocks,
    Defaults,
    Family,
    Variant,
    cross_attention_sites,
    published,
)

_LTX_COMFYUI = {
    r"transformer_blocks\.(.+)": r"transformer_blocks.\1",
    r"caption_projection\.(.+)": r"caption_projection.\1",
}

_MASKED = ("encoder_hidden_states", "encoder_attention_mask")

_LTX_CLASS = "LTXVideoTransformer3DModel"
_LTX_13B: dict[str, Any] = {
    "attention_head_dim": 128,
    "cross_attention_dim": 4096,
    "num_layers": 48,
}
_LTX = Family(
    name="ltx",
    title="LTX-Video",
    pipelines=("LTXPipeline", "LTXImageToVideoPipeline"),
    blocks=(Blocks(("transformer_blocks.*",), cross_attention_sites("attn2", "ff")),),
    entry=("caption_projection.linear_1",),
    latents="packed",
    text_arguments=_MASKED,
    defaults=Defaults(161, 512, 704, 25.0, 50, 3.0, 128),
    size_multiple=32,
    comfyui=_LTX_COMFYUI,
    checkpoints=(published("Lightricks/LTX-Video", _LTX_CLASS, CARD),),
)

_KANDINSKY5_CLASS = "Kandinsky5Transformer3DModel"
_VIDEO = {"in_visual_dim": 16, "out_visual_dim": 16, "visual_cond": True}
_LITE: dict[str, Any] = _VIDEO | {"model_dim": 1792, "ff_dim": 7168}
_PRO: dict[str, Any] = _VIDEO | {
    "model_dim": 4096,
    "ff_dim": 16384,
    "time_dim": 1024,
    "num_text_blocks": 4,
    "num_visual_blocks": 60,
    "axes_dims": (32, 48, 48),
}
_KANDINSKY5 = Family(
    name="kandinsky5",
    title="Kandinsky 5 video",
    pipelines=("Kandinsky5T2VPipeline",),
    blocks=(
        Blocks(
            ("visual_transformer_blocks.*",),
            {
                "text": ("cross_attention.to_key", "cross_attention.to_value"),
                "cross-attention": ("cross_attention.out_layer",),
                "feed-forward": ("feed_forward.in_layer",),
                "feed-forward-out": ("feed_forward.out_layer",),
                "self-attention": ("self_attention.out_layer",),
            },
        ),
    ),
    entry=("text_embeddings.in_layer",),
    latents="BFHWC",
    text_arguments=("encoder_hidden_states", "pooled_projections", "text_rope_pos"),
    guidance="passes",
    defaults=Defaults(121, 512, 768, 24.0, 50, 5.0, 512),
    variants=(Variant(Defaults(241, 512, 768, 24.0, 50, 5.0, 512), named="-10s-"),),
    templated=True,
    checkpoints=(
        published("kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers", _KANDINSKY5_CLASS, "MIT", **_LITE),
    ),
)

CROSS_ATTENTION: tuple[Family, ...] = (
    _LTX,
    replace(
        _LTX,
        name="ltx-condition",
        title="LTX-Video from 0.9.5 on, text and image to video",
        pipelines=("LTXConditionPipeline",),
        latents="placed",
        image_optional=True,
        defaults=Defaults(161, 512, 704, 25.0, 50, 3.0, 256),
        checkpoints=(
            published("Lightricks/LTX-Video-0.9.5", _LTX_CLASS, CARD),
            published("Lightricks/LTX-Video-0.9.7-dev", _LTX_CLASS, CARD, **_LTX_13B),
        ),
    ),
    Family(
        name="latte",
        title="Latte",
        pipelines=("LattePipeline",),
        blocks=(
            Blocks(("transformer_blocks.*",), cross_attention_sites("attn2", "ff"), "frames-in-batch"),
            Blocks(
                ("temporal_transformer_blocks.*",),
                {"temporal": ("attn1.to_out.0", "ff.net.0.proj")},
                "pixels-in-batch",
                own_count=True,
            ),
        ),
        entry=("caption_projection.linear_1",),
        text_arguments=_MASKED,
        defaults=Defaults(16, 512, 512, 8.0, 50, 7.5, 120),
        size_multiple=8,
        arguments={"clean_caption": False},
        lora=None,
        checkpoints=(
            published(
                "maxin-cn/Latte-1",
                "LatteTransformer3DModel",
                APACHE,
                num_layers=28,
                num_attention_heads=16,
                attention_head_dim=72,
                in_channels=4,
                out_channels=8,
                caption_channels=4096,
                cross_attention_dim=1152,
                patch_size=2,
                sample_size=64,
                activation_fn="gelu-approximate",
                num_embeds_ada_norm=1000,
                attention_bias=True,
                norm_type="ada_norm_single",
                norm_elementwise_affine=False,
            ),
        ),
        note="diffusers has no LoRA loader for Latte: bake the edit.",
    ),
    Family(
        name="allegro",
        title="Allegro",
        pipelines=("AllegroPipeline",),
        blocks=(Blocks(("transformer_blocks.*",), cross_attention_sites("attn2", "ff")),),
        entry=("caption_projection.linear_1",),
        text_arguments=_MASKED,
        defaults=Defaults(88, 720, 1280, 15.0, 100, 7.5, 512),
        size_multiple=8,
        arguments={"clean_caption": False},
        lora=None,
        checkpoints=(published("rhymes-ai/Allegro", "AllegroTransformer3DModel", APACHE),),
        note="diffusers has no LoRA loader for Allegro: bake the edit.",
    ),
    _KANDINSKY5,
    replace(
        _KANDINSKY5,
        name="kandinsky5-i2v",
        title="Kandinsky 5, image to video",
        pipelines=("Kandinsky5I2VPipeline",),
        fewest_frames=17,  # those behind the fourth latent frame set the first ones' brightness
        checkpoints=(
            published("kandinskylab/Kandinsky-5.0-I2V-Lite-5s-Diffusers", _KANDINSKY5_CLASS, "MIT", **_LITE),
            published(
                "kandinskylab/Kandinsky-5.0-I2V-Pro-sft-5s-Diffusers", _KANDINSKY5_CLASS, "MIT", **_PRO
            ),
        ),
    ),
    Family(
        name="sana-video",
        title="Sana video",
        pipelines=("SanaVideoPipeline", "SanaImageToVideoPipeline"),
        blocks=(
            Blocks(
                ("transformer_blocks.*",),
                {
                    "text": ("attn2.to_k", "attn2.to_v"),
                    "cross-attention": ("attn2.to_out.0",),
                    "self-attention": ("attn1.to_out.0",),
                },
            ),
        ),
        entry=("caption_projection.linear_1",),
        text_arguments=_MASKED,
        defaults=Defaults(81, 480, 832, 16.0, 50, 6.0, 300),
        variants=(Variant(Defaults(81, 704, 1280, 16.0, 50, 6.0, 300), {"transformer.sample_size": 22}),),
        templated=True,
        size_multiple=32,
        arguments={"clean_caption": False, "use_resolution_binning": False},
        checkpoints=(
            published(
                "Efficient-Large-Model/SANA-Video_2B_480p_diffusers", "SanaVideoTransformer3DModel", CARD
            ),
        ),
        note="Its feed-forward is convolutional: no linear layer to edit there.",
    ),
)
