"""Tiny pipelines whose blocks read the text by cross-attention."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers as tf

from refusal_core.models.tiny.parts import (
    Tiny,
    clip_encoder,
    clip_eye,
    clip_tokenizer,
    hunyuan_vae,
    image_vae,
    language_model,
    small,
    t5_encoder,
    t5_tokenizer,
    wan_vae,
    word_tokenizer,
)

_DOWN, _UP = "CrossAttnDownBlock", "CrossAttnUpBlock"


def unet3d() -> Tiny:
    tokenizer = clip_tokenizer()
    unet = diffusers.UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=(f"{_DOWN}3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", f"{_UP}3D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    parts = {"vae": image_vae(), "text_encoder": clip_encoder(tokenizer), "tokenizer": tokenizer}
    pipeline = diffusers.TextToVideoSDPipeline(**parts, unet=unet, scheduler=diffusers.DDIMScheduler())
    return Tiny(pipeline, small(4, 64, 77))


def animatediff() -> Tiny:
    tokenizer = clip_tokenizer()
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=(f"{_DOWN}2D", "DownBlock2D"),
        up_block_types=(f"{_UP}2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    adapter = diffusers.MotionAdapter(
        block_out_channels=(8, 8),
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=4,
    )
    pipeline = diffusers.AnimateDiffPipeline(
        vae=image_vae(),
        text_encoder=clip_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet,
        motion_adapter=adapter,
        scheduler=diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )
    return Tiny(pipeline, small(4, 64, 77))


def _wan_transformer(kind: Any = diffusers.WanTransformer3DModel, **more: Any) -> Any:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "ffn_dim": 32}
    return kind(**(sizes | {"text_dim": 32, "rope_max_seq_len": 32} | more))


def _wan_parts() -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    return {
        "tokenizer": tokenizer,
        "text_encoder": t5_encoder(tokenizer, multilingual=True),
        "vae": wan_vae(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def wan() -> Tiny:
    pipeline = diffusers.WanPipeline(**_wan_parts(), transformer=_wan_transformer())
    return Tiny(pipeline, small(9, 16))


def wan22() -> Tiny:
    experts = {"transformer": _wan_transformer(), "transformer_2": _wan_transformer()}
    pipeline = diffusers.WanPipeline(**_wan_parts(), **experts, boundary_ratio=0.875)
    return Tiny(pipeline, small(9, 16))


def wan_i2v() -> Tiny:
    transformer = _wan_transformer(in_channels=36)
    pipeline = diffusers.WanImageToVideoPipeline(**_wan_parts(), transformer=transformer)
    return Tiny(pipeline, small(9, 16))


def wan_i2v_clip() -> Tiny:
    """Wan 2.1: the image also enters every block through keys and values of its own."""
    transformer = _wan_transformer(in_channels=36, image_dim=8, added_kv_proj_dim=24)
    pipeline = diffusers.WanImageToVideoPipeline(**_wan_parts(), **clip_eye(), transformer=transformer)
    return Tiny(pipeline, small(9, 16, 512))  # its blocks take what is beyond 512 tokens for the image


def wan22_i2v() -> Tiny:
    experts = {name: _wan_transformer(in_channels=36) for name in ("transformer", "transformer_2")}
    pipeline = diffusers.WanImageToVideoPipeline(**_wan_parts(), **experts, boundary_ratio=0.9)
    return Tiny(pipeline, small(9, 16))


def wan_vace() -> Tiny:
    kind = diffusers.WanVACETransformer3DModel
    transformer = _wan_transformer(kind, vace_layers=[0], vace_in_channels=96)
    return Tiny(diffusers.WanVACEPipeline(**_wan_parts(), transformer=transformer), small(9, 16))


def skyreels(kind: Any = diffusers.SkyReelsV2Pipeline, image: bool = False) -> Tiny:
    eye, more = (
        (clip_eye(), {"in_channels": 36, "image_dim": 8, "added_kv_proj_dim": 24}) if image else ({}, {})
    )
    transformer = _wan_transformer(diffusers.SkyReelsV2Transformer3DModel, **more)
    scheduler = diffusers.UniPCMultistepScheduler(
        flow_shift=8.0, use_flow_sigmas=True, prediction_type="flow_prediction"
    )
    parts = _wan_parts() | eye | {"scheduler": scheduler}
    return Tiny(kind(**parts, transformer=transformer), small(9, 16, 512 if image else 16))


def skyreels_forcing() -> Tiny:
    return skyreels(diffusers.SkyReelsV2DiffusionForcingPipeline)


def skyreels_forcing_i2v() -> Tiny:
    return skyreels(diffusers.SkyReelsV2DiffusionForcingImageToVideoPipeline)


def skyreels_i2v() -> Tiny:
    return skyreels(diffusers.SkyReelsV2ImageToVideoPipeline, image=True)


def ltx(kind: Any = diffusers.LTXPipeline) -> Tiny:
    tokenizer = t5_tokenizer()
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=32,
    )
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=1,
    )
    pipeline = kind(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=t5_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return Tiny(pipeline, small(9, 32))


def ltx_i2v() -> Tiny:
    return ltx(diffusers.LTXImageToVideoPipeline)


def latte() -> Tiny:
    tokenizer = t5_tokenizer()
    transformer = diffusers.LatteTransformer3DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        video_length=4,
    )
    pipeline = diffusers.LattePipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        vae=image_vae(),
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(),
    )
    return Tiny(pipeline, small(4, 64, 120))


def allegro() -> Tiny:
    tokenizer = t5_tokenizer()
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=8,
        caption_channels=32,
    )
    vae = diffusers.AutoencoderKLAllegro(
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    pipeline = diffusers.AllegroPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(),
    )
    return Tiny(pipeline, small(8, 16))


def kandinsky() -> Tiny:
    words, letters = word_tokenizer(), clip_tokenizer()
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=8,
        time_dim=16,
        out_visual_dim=4,
        model_dim=24,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 4, 4),
    )
    pipeline = diffusers.Kandinsky5T2VPipeline(
        transformer=transformer,
        vae=hunyuan_vae(),
        text_encoder=language_model(tf.Qwen2Model, tf.Qwen2Config, words),
        tokenizer=words,
        text_encoder_2=clip_encoder(letters, 8),
        tokenizer_2=letters,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    return Tiny(pipeline, small(5, 16))


def sana(kind: Any = diffusers.SanaVideoPipeline) -> Tiny:
    words = word_tokenizer()
    transformer = diffusers.SanaVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=16,
        sample_size=2,
    )
    pipeline = kind(
        tokenizer=words,
        text_encoder=language_model(tf.Gemma2Model, tf.Gemma2Config, words, head_dim=4),
        vae=wan_vae(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    return Tiny(pipeline, small(9, 32), {"complex_human_instruction": None})


def sana_i2v() -> Tiny:
    return sana(diffusers.SanaImageToVideoPipeline)
