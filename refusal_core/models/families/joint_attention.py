"""Transformers in which text and video attend to each other as one sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from refusal_core.models.families.family import (
    APACHE,
    CARD,
    Blocks,
    Defaults,
    Family,
    Stacked,
    Variant,
    joint_attention_sites,
    published,
)

_MASKED = ("encoder_hidden_states", "encoder_attention_mask")

_TEXT_STREAM = (
    "Of the text's own stream its keys and values are sites: they are all that the video reads of it."
)

_SHARED_CROSS = (
    "cross_attn.to_k?",
    "cross_attn.to_v?",
)  # checkpoints have it in one kind of block or in both

_EASY = "EasyAnimateTransformer3DModel"
_EASY_SIZES: dict[str, Any] = {"in_channels": 16, "out_channels": 16, "patch_size": 2}
_COG = "CogVideoXTransformer3DModel"
_COG_5B: dict[str, Any] = {
    "num_attention_heads": 48,
    "num_layers": 42,
    "use_rotary_positional_embeddings": True,
}

_COMMUNITY = "hunyuanvideo-community"
_REPLACED = {"image_condition_type": "token_replace"}
_CONCATENATED: dict[str, Any] = {
    "image_condition_type": "latent_concat",
    "in_channels": 33,
    "out_channels": 16,
    "guidance_embeds": False,
}
_HUNYUAN_CLASS = "HunyuanVideoTransformer3DModel"
_HUNYUAN = Family(
    name="hunyuan",
    title="HunyuanVideo",
    pipelines=("HunyuanVideoPipeline", "HunyuanSkyreelsImageToVideoPipeline"),
    blocks=(
        Blocks(("transformer_blocks.*",), joint_attention_sites("attn"), text="text-stream"),
        Blocks(
            ("single_transformer_blocks.*",),
            {"feed-forward": ("proj_mlp",), "feed-forward-out": ("proj_out",)},
            "text-last",
        ),
    ),
    entry=("context_embedder.proj_in",),
    text_arguments=(*_MASKED, "pooled_projections"),
    guidance="embedded",
    defaults=Defaults(129, 720, 1280, 24.0, 50, 6.0, 256),
    variants=(
        # SkyReels V1, image to video: guided by a second pass, not by the scale that is an input
        Variant(Defaults(97, 544, 960, 24.0, 50, 1.0, 256), {"transformer.in_channels": 32}),
    ),
    templated=True,
    unguided={"true_cfg_scale": 1.0},  # the guidance scale is an input of the network, not a second pass
    comfyui={
        r"context_embedder\.proj_in": "txt_in.input_embedder",
        r"transformer_blocks\.(\d+)\.attn\.add_k_proj": Stacked(r"double_blocks.\1.txt_attn_qkv", 1, 1),
        r"transformer_blocks\.(\d+)\.attn\.add_v_proj": Stacked(r"double_blocks.\1.txt_attn_qkv", 2),
        r"transformer_blocks\.(\d+)\.attn\.to_out\.0": r"double_blocks.\1.img_attn_proj",
        r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj": r"double_blocks.\1.img_mlp.fc1",
        r"transformer_blocks\.(\d+)\.ff\.net\.2": r"double_blocks.\1.img_mlp.fc2",
        r"single_transformer_blocks\.(\d+)\.proj_mlp": Stacked(r"single_blocks.\1.linear1", 3),
        r"single_transformer_blocks\.(\d+)\.proj_out": r"single_blocks.\1.linear2",
    },
    checkpoints=(published(f"{_COMMUNITY}/HunyuanVideo", _HUNYUAN_CLASS, CARD),),
    note=f"{_TEXT_STREAM} In a single block feed-forward-out reads attention and feed-forward alike.",
)

_HUNYUAN15_CLASS = "HunyuanVideo15Transformer3DModel"
_HUNYUAN15 = Family(
    name="hunyuan-1.5",
    title="HunyuanVideo 1.5",
    pipelines=("HunyuanVideo15Pipeline",),
    blocks=(Blocks(("transformer_blocks.*",), joint_attention_sites("attn"), text="text-stream"),),
    entry=("context_embedder.proj_in",),
    text_arguments=(*_MASKED, "encoder_hidden_states_2", "encoder_attention_mask_2"),
    defaults=Defaults(121, 480, 832, 24.0, 50, 6.0, 1000),
    variants=(Variant(Defaults(121, 720, 1280, 24.0, 50, 6.0, 1000), {"transformer.target_size": 960}),),
    templated=True,
    unguided={},
    guidance="component",
    guided_by="guider",
    lora="model",
    checkpoints=(published(f"{_COMMUNITY}/HunyuanVideo-1.5-Diffusers-480p_t2v", _HUNYUAN15_CLASS, CARD),),
    note=_TEXT_STREAM,
)

JOINT_ATTENTION: tuple[Family, ...] = (
    _HUNYUAN,
    replace(
        _HUNYUAN,
        name="hunyuan-i2v",
        title="HunyuanVideo, image to video",
        pipelines=("HunyuanVideoImageToVideoPipeline",),
        image_in_text=4,
        variants=(Variant(Defaults(129, 720, 1280, 24.0, 50, 1.0, 256), {"transformer.in_channels": 33}),),
        checkpoints=(
            published(f"{_COMMUNITY}/HunyuanVideo-I2V", _HUNYUAN_CLASS, CARD, **_REPLACED),
            published(f"{_COMMUNITY}/HunyuanVideo-I2V-33ch", _HUNYUAN_CLASS, CARD, **_CONCATENATED),
        ),
        note=f"{_TEXT_STREAM} Its text encoder reads the image with the prompt: give pairs their images.",
    ),
    _HUNYUAN15,
    replace(
        _HUNYUAN15,
        name="hunyuan-1.5-i2v",
        title="HunyuanVideo 1.5, image to video",
        pipelines=("HunyuanVideo15ImageToVideoPipeline",),
        defaults=Defaults(121, 480, 848, 24.0, 50, 6.0, 1000),
        checkpoints=(
            published(
                f"{_COMMUNITY}/HunyuanVideo-1.5-Diffusers-480p_i2v", _HUNYUAN15_CLASS, CARD, task_type="i2v"
            ),
            published(
                f"{_COMMUNITY}/HunyuanVideo-1.5-Diffusers-720p_i2v",
                _HUNYUAN15_CLASS,
                CARD,
                task_type="i2v",
                target_size=960,
            ),
        ),
        note=f"{_TEXT_STREAM} The image stands in that stream, too, before the text.",
    ),
    Family(
        name="motif",
        title="Motif-Video",
        pipelines=("MotifVideoPipeline", "MotifVideoImage2VideoPipeline"),
        blocks=(
            Blocks(
                ("transformer_blocks.*",),
                joint_attention_sites("attn")
                | {"text": ("attn.add_k_proj", "attn.add_v_proj", *_SHARED_CROSS)},
                text="text-stream",
            ),
            Blocks(
                ("single_transformer_blocks.*",),
                {"text": _SHARED_CROSS, "feed-forward": ("proj_mlp",), "feed-forward-out": ("proj_out",)},
                "text-last",
                text="text-stream",
                without_last="num_decoder_layers",
            ),
        ),
        entry=("context_embedder.linear_1",),
        text_arguments=_MASKED,
        defaults=Defaults(121, 736, 1280, 24.0, 50, 8.0, 512),
        unguided={},
        guidance="component",
        guided_by="guider",
        lora="model",
        note=f"{_TEXT_STREAM} The blocks of its decoder see no text, and are left as they are.",
    ),
    Family(
        name="cogvideox",
        title="CogVideoX, text and image to video",
        pipelines=("CogVideoXPipeline", "CogVideoXImageToVideoPipeline"),
        blocks=(
            Blocks(
                ("transformer_blocks.*",),
                {
                    "cross-attention": ("attn1.to_out.0",),
                    "feed-forward": ("ff.net.0.proj",),
                    "feed-forward-out": ("ff.net.2",),
                },
                "text-first",
            ),
        ),
        entry=("patch_embed.text_proj",),
        default_kinds=("text-entry",),
        latents="BFCHW",
        text_arguments=("encoder_hidden_states",),
        defaults=Defaults(49, 480, 720, 8.0, 50, 6.0, 226),
        variants=(Variant(Defaults(81, 768, 1360, 16.0, 50, 6.0, 226), {"transformer.patch_size_t": 2}),),
        size_multiple=8,
        checkpoints=(
            published("THUDM/CogVideoX-2b", _COG, APACHE, num_attention_heads=30, num_layers=30),
            published("THUDM/CogVideoX-5b", _COG, CARD, **_COG_5B),
            published("THUDM/CogVideoX1.5-5B", _COG, CARD, patch_size_t=2, patch_bias=False, **_COG_5B),
            published("THUDM/CogVideoX-5b-I2V", _COG, CARD, in_channels=32, **_COG_5B),
        ),
        note="Text and video share every weight of a block: the text side has its entry only.",
    ),
    Family(
        name="mochi",
        title="Mochi 1",
        pipelines=("MochiPipeline",),
        blocks=(Blocks(("transformer_blocks.*",), joint_attention_sites("attn1"), text="text-stream"),),
        entry=("time_embed.caption_proj",),
        text_arguments=_MASKED,
        defaults=Defaults(19, 480, 848, 30.0, 64, 4.5, 256),
        checkpoints=(published("genmo/mochi-1-preview", "MochiTransformer3DModel", APACHE),),
        note=f"{_TEXT_STREAM} The pooled text that steers all blocks at once is left as it is.",
    ),
    Family(
        name="easyanimate",
        title="EasyAnimate V5.1",
        pipelines=("EasyAnimatePipeline",),
        blocks=(Blocks(("transformer_blocks.*",), joint_attention_sites("attn1"), text="text-stream"),),
        entry=("text_proj",),
        text_arguments=("encoder_hidden_states", "encoder_hidden_states_t5"),
        defaults=Defaults(49, 512, 512, 8.0, 50, 5.0, 256),
        templated=True,
        lora=None,
        checkpoints=(
            published("alibaba-pai/EasyAnimateV5.1-12b-zh-diffusers", _EASY, APACHE, **_EASY_SIZES),
        ),
        needs_negative=True,
        note=f"{_TEXT_STREAM} diffusers has no LoRA loader for EasyAnimate: bake the edit.",
    ),
)
