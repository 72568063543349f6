"""Tiny pipelines in which text and video attend to each other as one sequence."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers as tf

from refusal_core.models.tiny.parts import (
    Tiny,
    clip_encoder,
    clip_tokenizer,
    hunyuan_vae,
    language_model,
    small,
    t5_encoder,
    t5_tokenizer,
    word_tokenizer,
)


def cogvideox(kind: Any = diffusers.CogVideoXPipeline, channels: int = 4, **more: Any) -> Tiny:
    tokenizer = t5_tokenizer()
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=2,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        max_text_seq_length=16,
        **more,
    )
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    pipeline = kind(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )
    return Tiny(pipeline, small(9, 16))


def cogvideox_i2v() -> Tiny:
    return cogvideox(diffusers.CogVideoXImageToVideoPipeline, channels=8)


def cogvideox15() -> Tiny:
    """Version 1.5: a token spans two latent frames."""
    return cogvideox(patch_size_t=2, patch_bias=False, use_rotary_positional_embeddings=True)


def mochi() -> Tiny:
    tokenizer = t5_tokenizer()
    transformer = diffusers.MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        text_embed_dim=32,
        time_embed_dim=4,
        max_sequence_length=16,
    )
    torch.nn.init.normal_(transformer.pos_frequencies, std=0.1)  # left uninitialised by its class
    vae = diffusers.AutoencoderKLMochi(
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    )
    pipeline = diffusers.MochiPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=t5_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return Tiny(pipeline, small(7, 16))


def hunyuan(kind: Any = diffusers.HunyuanVideoPipeline, channels: int = 4) -> Tiny:
    words, letters = word_tokenizer(), clip_tokenizer()
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=channels,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        patch_size=1,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    pipeline = kind(
        text_encoder=language_model(tf.LlamaModel, tf.LlamaConfig, words),
        tokenizer=words,
        transformer=transformer,
        vae=hunyuan_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=clip_encoder(letters, 8),
        tokenizer_2=letters,
    )
    return Tiny(pipeline, small(9, 16), {"prompt_template": {"template": "{}", "crop_start": 0}})


def hunyuan_skyreels() -> Tiny:
    return hunyuan(diffusers.HunyuanSkyreelsImageToVideoPipeline, channels=8)


def hunyuan15() -> Tiny:
    words, letters = word_tokenizer(), tf.ByT5Tokenizer()
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=2,
        num_refiner_layers=1,
        text_embed_dim=16,
        text_embed_2_dim=32,
        image_embed_dim=12,
        rope_axes_dim=(2, 4, 4),
        task_type="t2v",
    )
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(32,) * 5, layers_per_block=1
    )
    pipeline = diffusers.HunyuanVideo15Pipeline(
        text_encoder=language_model(tf.Qwen2Model, tf.Qwen2Config, words),
        tokenizer=words,
        transformer=transformer,
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=t5_encoder(letters),
        tokenizer_2=letters,
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0),
    )
    return Tiny(pipeline, small(9, 32))


def easyanimate() -> Tiny:
    words = word_tokenizer()
    transformer = diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        num_layers=2,
        mmdit_layers=2,
        time_embed_dim=8,
        text_embed_dim=16,
    )
    vae = diffusers.AutoencoderKLMagvit(
        latent_channels=4, block_out_channels=[8] * 4, layers_per_block=1, norm_num_groups=2
    )
    pipeline = diffusers.EasyAnimatePipeline(
        vae=vae,
        text_encoder=language_model(tf.Qwen2Model, tf.Qwen2Config, words),
        tokenizer=words,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    return Tiny(pipeline, small(5, 16))
