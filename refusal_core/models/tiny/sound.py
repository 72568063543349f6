"""Tiny pipelines that make the sound together with the picture."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from refusal_core.models.tiny.recipe import Part, TinyRecipe, part

_LTX2_VAE = part(
    "AutoencoderKLLTX2Video", latent_channels=4, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 3,
    layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 4, upsample_residual=(False,) * 3,
    upsample_factor=(1,) * 3, decoder_causal=False, decoder_spatial_padding_mode="zeros",
    spatial_compression_ratio=32, temporal_compression_ratio=8,
)  # fmt: skip
_LTX2_SOUND_VAE = part(
    "AutoencoderKLLTX2Audio", base_channels=4, ch_mult=(1,), num_res_blocks=1, resolution=32, latent_channels=2,
    mel_bins=8,
)  # fmt: skip
_LTX2_VOCODER = part(
    "pipelines.ltx2.LTX2Vocoder", in_channels=16, hidden_channels=16, upsample_kernel_sizes=[16, 10],
    upsample_factors=[16, 10], resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]], output_sampling_rate=16000,
)  # fmt: skip


def _ltx2(**more: Any) -> Part:
    return part(
        "LTX2VideoTransformer3DModel", in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2,
        audio_attention_head_dim=4, audio_cross_attention_dim=8, num_layers=2, caption_channels=16, **more,
    )  # fmt: skip


def _connectors(**more: Any) -> Part:
    sizes = {
        f"{stream}_connector_{name}": value
        for stream, heads in (("video", 2), ("audio", 1 if more else 2))
        for name, value in (
            ("num_attention_heads", heads),
            ("attention_head_dim", 8),
            ("num_layers", 1),
            ("num_learnable_registers", 16),
        )
    }
    return part(
        "pipelines.ltx2.LTX2TextConnectors", caption_channels=16, text_proj_in_factor=4, **sizes, **more
    )


def _recipe(kind: str, denoiser: Part, connectors: Part) -> TinyRecipe:
    more = {"audio_vae": _LTX2_SOUND_VAE, "vocoder": _LTX2_VOCODER, "connectors": connectors}
    return TinyRecipe(kind, ("gemma3",), _LTX2_VAE, denoiser, (9, 32, 32), more=more)


_HUNYUAN_VAE = part(
    "AutoencoderKLHunyuanVideo", latent_channels=4, block_out_channels=(8,) * 4, layers_per_block=1,
    norm_num_groups=4, down_block_types=("HunyuanVideoDownBlock3D",) * 4,
    up_block_types=("HunyuanVideoUpBlock3D",) * 4,
)  # fmt: skip
_KANDINSKY6 = part(
    "Kandinsky6Transformer3DModel", in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16,
    model_dim=24, ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 4, 4), in_audio_dim=4,
    out_audio_dim=4, model_dim_a=12, time_dim_a=12, ff_dim_a=16, text_token_padding=True, ca_rope=True,
    cross_gates=True, fix_modulation=True, visual_token_type_num_embeddings=2,
)  # fmt: skip
_MMAUDIO: dict[str, Part] = {
    "audio_vae": part(
        "MMAudioVAE", mel_bins=8, latent_channels=4, hidden_channels=8, channel_multipliers=(1, 2), layers_per_block=1,
        sample_rate=16000, n_fft=64, hop_length=16,
    ),
    "vocoder": part(
        "MMAudioVocoder", num_mels=8, upsample_initial_channel=8, upsample_rates=(4, 4), upsample_kernel_sizes=(4, 4),
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),),
    ),
}  # fmt: skip

SOUND: dict[str, TinyRecipe] = {
    "ltx2": _recipe("LTX2Pipeline", _ltx2(), _connectors()),
    # As LTX-2.3: each stream has a projection of its own, and the timestep scales the text at every block.
    "ltx2.3": _recipe(
        "LTX2Pipeline",
        _ltx2(use_prompt_embeddings=False, cross_attn_mod=True, audio_cross_attn_mod=True),
        _connectors(per_modality_projections=True, video_hidden_dim=16, audio_hidden_dim=8),
    ),
    "ltx2-i2v": _recipe("LTX2ImageToVideoPipeline", _ltx2(), _connectors()),
    "kandinsky6": TinyRecipe(
        "Kandinsky6TI2VAPipeline",
        ("qwen of kandinsky6", "narrow clip"),
        _HUNYUAN_VAE,
        _KANDINSKY6,
        (5, 16, 16),
        more=_MMAUDIO,
    ),
    "ltx2-condition": _recipe("LTX2ConditionPipeline", _ltx2(), _connectors()),
}
