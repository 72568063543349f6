"""What tiny pipelines are made of: classes of diffusers by name, with the smallest sizes they take."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from refusal_core.models.tiny.recipe import Part, TinyRecipe, part
from refusal_core.models.tiny.sound import SOUND

_SHIFTED = part("FlowMatchEulerDiscreteScheduler", shift=7.0)
_DDIM = part("DDIMScheduler")

# --- autoencoders ------------------------------------------------------------------------------------

_EIGHTS, _THIRTY_TWOS = (8,) * 4, (32,) * 4
_IMAGE_VAE = part(
    "AutoencoderKL", block_out_channels=_THIRTY_TWOS, latent_channels=4, sample_size=32,
    down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
)  # fmt: skip
_WAN_VAE = part(
    "AutoencoderKLWan", base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
    temperal_downsample=[False, True, True],  # [sic] diffusers' spelling
)  # fmt: skip
_HUNYUAN_VAE = part(
    "AutoencoderKLHunyuanVideo", latent_channels=4, block_out_channels=_EIGHTS, layers_per_block=1, norm_num_groups=4,
    down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
)  # fmt: skip
_HUNYUAN15_VAE = part(
    "AutoencoderKLHunyuanVideo15", latent_channels=4, block_out_channels=(32,) * 5, layers_per_block=1
)
_LTX_VAE = part(
    "AutoencoderKLLTXVideo", latent_channels=8, patch_size=1,
    block_out_channels=_EIGHTS, decoder_block_out_channels=_EIGHTS,
    layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
    spatio_temporal_scaling=(True, True, False, False), decoder_spatio_temporal_scaling=(True, True, False, False),
)  # fmt: skip
_ALLEGRO_VAE = part(
    "AutoencoderKLAllegro", block_out_channels=_EIGHTS, layers_per_block=1, norm_num_groups=2,
    down_block_types=("AllegroDownBlock3D",) * 4, up_block_types=("AllegroUpBlock3D",) * 4,
)  # fmt: skip
_COG_VAE = part(
    "AutoencoderKLCogVideoX", block_out_channels=_EIGHTS, latent_channels=4, layers_per_block=1, norm_num_groups=2,
    down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
)  # fmt: skip
_MOCHI_VAE = part(
    "AutoencoderKLMochi", encoder_block_out_channels=_THIRTY_TWOS, decoder_block_out_channels=_THIRTY_TWOS,
    layers_per_block=(1,) * 5,
)  # fmt: skip
_MAGVIT_VAE = part(
    "AutoencoderKLMagvit",
    latent_channels=4,
    block_out_channels=[8] * 4,
    layers_per_block=1,
    norm_num_groups=2,
)

# --- denoisers ---------------------------------------------------------------------------------------

_UNET = {
    "sample_size": 8, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 2,
    "cross_attention_dim": 32, "attention_head_dim": 4,
}  # fmt: skip
_UNET3D = part(
    "UNet3DConditionModel", down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
    up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), **_UNET,
)  # fmt: skip
_UNET2D = part(
    "UNet2DConditionModel", down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **_UNET,
)  # fmt: skip
_SDXL = part(
    "UNet2DConditionModel", down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
    addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=80,
    **_UNET | {"cross_attention_dim": 64},
)  # fmt: skip
_MOTION = part(
    "MotionAdapter", block_out_channels=(8, 8), motion_layers_per_block=1, motion_norm_num_groups=2,
    motion_num_attention_heads=4,
)  # fmt: skip
_TWO = {"num_attention_heads": 2, "num_layers": 2}
_WAN_SIZES = _TWO | {"attention_head_dim": 12, "ffn_dim": 32, "text_dim": 32, "rope_max_seq_len": 32}
_EYE = {"in_channels": 36, "image_dim": 8, "added_kv_proj_dim": 24}  # the image enters every block, too
_WAN = part("WanTransformer3DModel", **_WAN_SIZES)
_WAN_I2V = part("WanTransformer3DModel", in_channels=36, **_WAN_SIZES)
_WAN_EYE = part("WanTransformer3DModel", **_EYE, **_WAN_SIZES)
_CHRONO = part("ChronoEditTransformer3DModel", **_EYE, **_WAN_SIZES)
_VACE = part("WanVACETransformer3DModel", vace_layers=[0], vace_in_channels=96, **_WAN_SIZES)
_HELIOS = part(
    "HeliosTransformer3DModel", **_TWO, attention_head_dim=12, ffn_dim=32, text_dim=32, rope_dim=(4, 4, 4)
)
_ANYFLOW = part("AnyFlowTransformer3DModel", **_WAN_SIZES)
_SKYREELS = part("SkyReelsV2Transformer3DModel", **_WAN_SIZES)
_SKYREELS_EYE = part("SkyReelsV2Transformer3DModel", **_EYE, **_WAN_SIZES)
_LTX = part(
    "LTXVideoTransformer3DModel", in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8,
    cross_attention_dim=32, num_layers=2, caption_channels=32,
)  # fmt: skip
_LATTE = part(
    "LatteTransformer3DModel", sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3,
    caption_channels=32, in_channels=4, cross_attention_dim=24, out_channels=8, attention_bias=True, video_length=4,
    activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
    norm_elementwise_affine=False,
)  # fmt: skip
_ALLEGRO = part(
    "AllegroTransformer3DModel", **_TWO, attention_head_dim=12, cross_attention_dim=24, caption_channels=32,
    sample_width=8, sample_height=8, sample_frames=8,
)  # fmt: skip
_KANDINSKY_SIZES = {
    "in_visual_dim": 4, "in_text_dim": 16, "in_text_dim2": 8, "time_dim": 16, "out_visual_dim": 4, "model_dim": 24,
    "ff_dim": 32, "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (4, 4, 4),
}  # fmt: skip
_KANDINSKY = part("Kandinsky5Transformer3DModel", **_KANDINSKY_SIZES)
_KANDINSKY_I2V = part("Kandinsky5Transformer3DModel", visual_cond=True, **_KANDINSKY_SIZES)
_SANA = part(
    "SanaVideoTransformer3DModel", **_TWO, attention_head_dim=12, num_cross_attention_heads=2,
    cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=16, sample_size=2,
)  # fmt: skip


def _cogvideox(channels: int = 4, **more: Any) -> Part:
    return part(
        "CogVideoXTransformer3DModel", num_attention_heads=4, attention_head_dim=16, in_channels=channels,
        out_channels=4, time_embed_dim=2, text_embed_dim=32, num_layers=2, sample_width=2, sample_height=2,
        sample_frames=9, max_text_seq_length=16, **more,
    )  # fmt: skip


# Version 1.5: a token spans two latent frames.
_COG15 = _cogvideox(patch_size_t=2, patch_bias=False, use_rotary_positional_embeddings=True)
_MOCHI = part(
    "MochiTransformer3DModel", **_TWO, attention_head_dim=8, pooled_projection_dim=16, text_embed_dim=32,
    time_embed_dim=4, max_sequence_length=16,
)  # fmt: skip


def _hunyuan(channels: int = 4, **more: Any) -> Part:
    return part(
        "HunyuanVideoTransformer3DModel", **_TWO, in_channels=channels, out_channels=4, attention_head_dim=10,
        num_single_layers=2, num_refiner_layers=1, patch_size=1, text_embed_dim=16, pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4), **more,
    )  # fmt: skip


def _hunyuan15(task: str) -> Part:
    return part(
        "HunyuanVideo15Transformer3DModel", **_TWO, in_channels=9, out_channels=4, attention_head_dim=10,
        num_refiner_layers=1, text_embed_dim=16, text_embed_2_dim=32, image_embed_dim=8, rope_axes_dim=(2, 4, 4),
        task_type=task, target_size=32,
    )  # fmt: skip


def _motif(**more: Any) -> Part:
    return part(
        "MotifVideoTransformer3DModel", **_TWO, attention_head_dim=12, num_single_layers=3, num_decoder_layers=1,
        text_embed_dim=16, rope_axes_dim=(4, 4, 4), enable_text_cross_attention_single=True, **more,
    )  # fmt: skip


_EASY = part(
    "EasyAnimateTransformer3DModel", **_TWO, attention_head_dim=16, in_channels=4, out_channels=4, patch_size=2,
    mmdit_layers=2, time_embed_dim=8, text_embed_dim=16,
)  # fmt: skip

# --- pipelines ---------------------------------------------------------------------------------------

_T5, _UMT5, _CLIP, _QWEN = ("t5",), ("umt5",), ("clip",), ("qwen",)
_LLAMA, _QWEN_CLIP, _QWEN_BYT5 = ("llama", "narrow clip"), ("qwen", "narrow clip"), ("qwen", "byt5")
_PLAIN = {"prompt_template": {"template": "{}", "crop_start": 0}}
_TURNS = "a <|end_header_id|> <image> the <|end_header_id|> {} the a the <|end_header_id|>"
_SEEN = {
    "prompt_template": {
        "template": _TURNS,
        "crop_start": 5,
        "image_emb_start": 2,
        "image_emb_end": 6,
        "image_emb_len": 4,
    }
}
_UNTOLD = {"complex_human_instruction": None}
_MOTION_DDIM = part("DDIMScheduler", beta_schedule="linear", clip_sample=False)
_UNIPC = part(
    "UniPCMultistepScheduler", flow_shift=8.0, use_flow_sigmas=True, prediction_type="flow_prediction"
)
_GUIDER = {"guider": part("ClassifierFreeGuidance", guidance_scale=3.0)}
_T5GEMMA2 = ("t5gemma2",)
_NINE = (9, 16, 16)
_NINE_EYE = (9, 16, 512)  # its blocks take what is beyond 512 tokens for the image


def _wan(kind: str, denoiser: Part, size: tuple[int, int, int] = _NINE, **more: Any) -> TinyRecipe:
    """Return a recipe around Wan's text encoder and autoencoder; a boundary makes it one of two experts."""
    if "boundary_ratio" in more:
        more["transformer_2"] = denoiser
    return TinyRecipe(kind, _UMT5, _WAN_VAE, denoiser, size, _SHIFTED, more, "clip" * (size == _NINE_EYE))


def _skyreels(kind: str, denoiser: Part = _SKYREELS, size: tuple[int, int, int] = _NINE) -> TinyRecipe:
    return TinyRecipe(
        f"SkyReelsV2{kind}", _UMT5, _WAN_VAE, denoiser, size, _UNIPC, {}, "clip" * (size == _NINE_EYE)
    )


def _hunyuan_i2v(denoiser: Part) -> TinyRecipe:
    return TinyRecipe(
        "HunyuanVideoImageToVideoPipeline", ("llava", "narrow clip"), _HUNYUAN_VAE, denoiser, _NINE, _SHIFTED, {},
        "processor", _SEEN,
    )  # fmt: skip


RECIPES: dict[str, TinyRecipe] = {
    "unet3d": TinyRecipe("TextToVideoSDPipeline", _CLIP, _IMAGE_VAE, _UNET3D, (4, 64, 77), _DDIM),
    "animatediff": TinyRecipe(
        "AnimateDiffPipeline",
        _CLIP,
        _IMAGE_VAE,
        _UNET2D,
        (4, 64, 77),
        _MOTION_DDIM,
        {"motion_adapter": _MOTION},
    ),
    "animatediff-sdxl": TinyRecipe(
        "AnimateDiffSDXLPipeline",
        ("clip", "projecting clip"),
        _IMAGE_VAE,
        _SDXL,
        (4, 64, 77),
        _MOTION_DDIM,
        {"motion_adapter": part("MotionAdapter", use_motion_mid_block=False, **_MOTION.config)},
    ),
    "wan": _wan("WanPipeline", _WAN),
    "wan-2.2": _wan("WanPipeline", _WAN, boundary_ratio=0.875),
    "wan-i2v": _wan("WanImageToVideoPipeline", _WAN_I2V),
    "wan-2.1-i2v": _wan("WanImageToVideoPipeline", _WAN_EYE, _NINE_EYE),
    "wan-2.2-i2v": _wan("WanImageToVideoPipeline", _WAN_I2V, boundary_ratio=0.9),
    "chronoedit": TinyRecipe(
        "ChronoEditPipeline", _UMT5, _WAN_VAE, _CHRONO, (5, 16, 512), _SHIFTED, eye="clip"
    ),
    "wan-vace": _wan("WanVACEPipeline", _VACE),
    "anyflow": TinyRecipe(
        "AnyFlowPipeline", _UMT5, _WAN_VAE, _ANYFLOW, _NINE, part("FlowMapEulerDiscreteScheduler", shift=5.0)
    ),
    "helios": TinyRecipe(
        "HeliosPipeline",
        _UMT5,
        _WAN_VAE,
        _HELIOS,
        (10, 16, 16),
        part("HeliosScheduler", stages=1, stage_range=[0, 1]),
        extras={"num_latent_frames_per_chunk": 2},
    ),
    "skyreels-v2": _skyreels("Pipeline"),
    "skyreels-v2-df": _skyreels("DiffusionForcingPipeline"),
    "skyreels-v2-df-i2v": _skyreels("DiffusionForcingImageToVideoPipeline"),
    "skyreels-v2-i2v": _skyreels("ImageToVideoPipeline", _SKYREELS_EYE, _NINE_EYE),
    "ltx": TinyRecipe("LTXPipeline", _T5, _LTX_VAE, _LTX, (9, 32, 16)),
    "ltx-i2v": TinyRecipe("LTXImageToVideoPipeline", _T5, _LTX_VAE, _LTX, (9, 32, 16)),
    "ltx-condition": TinyRecipe("LTXConditionPipeline", _T5, _LTX_VAE, _LTX, (9, 32, 16)),
    "latte": TinyRecipe("LattePipeline", _T5, _IMAGE_VAE, _LATTE, (4, 64, 120), _DDIM),
    "allegro": TinyRecipe("AllegroPipeline", _T5, _ALLEGRO_VAE, _ALLEGRO, (8, 16, 16), _DDIM),
    "kandinsky5": TinyRecipe("Kandinsky5T2VPipeline", _QWEN_CLIP, _HUNYUAN_VAE, _KANDINSKY, (5, 16, 16)),
    "kandinsky5-i2v": TinyRecipe(
        "Kandinsky5I2VPipeline", _QWEN_CLIP, _HUNYUAN_VAE, _KANDINSKY_I2V, (17, 16, 16)
    ),
    "sana-video": TinyRecipe("SanaVideoPipeline", ("gemma",), _WAN_VAE, _SANA, (9, 32, 16), extras=_UNTOLD),
    "sana-i2v": TinyRecipe(
        "SanaImageToVideoPipeline", ("gemma",), _WAN_VAE, _SANA, (9, 32, 16), extras=_UNTOLD
    ),
    "hunyuan": TinyRecipe(
        "HunyuanVideoPipeline", _LLAMA, _HUNYUAN_VAE, _hunyuan(), _NINE, _SHIFTED, extras=_PLAIN
    ),
    "hunyuan-i2v": _hunyuan_i2v(_hunyuan(image_condition_type="token_replace")),
    "hunyuan-i2v-33ch": _hunyuan_i2v(
        _hunyuan(9, image_condition_type="latent_concat", guidance_embeds=False)
    ),
    "hunyuan-skyreels-i2v": TinyRecipe(
        "HunyuanSkyreelsImageToVideoPipeline",
        _LLAMA,
        _HUNYUAN_VAE,
        _hunyuan(8),
        _NINE,
        _SHIFTED,
        extras=_PLAIN,
    ),
    "hunyuan-1.5": TinyRecipe(
        "HunyuanVideo15Pipeline",
        _QWEN_BYT5,
        _HUNYUAN15_VAE,
        _hunyuan15("t2v"),
        (9, 32, 16),
        _SHIFTED,
        _GUIDER,
    ),
    "hunyuan-1.5-i2v": TinyRecipe(
        "HunyuanVideo15ImageToVideoPipeline",
        _QWEN_BYT5,
        _HUNYUAN15_VAE,
        _hunyuan15("i2v"),
        (9, 32, 16),
        _SHIFTED,
        _GUIDER,
        "siglip",
    ),
    "motif": TinyRecipe("MotifVideoPipeline", _T5GEMMA2, _WAN_VAE, _motif(), _NINE, more=_GUIDER),
    "motif-i2v": TinyRecipe(
        "MotifVideoImage2VideoPipeline",
        _T5GEMMA2,
        _WAN_VAE,
        _motif(image_embed_dim=8),
        _NINE,
        more=_GUIDER,
        eye="siglip of text",
    ),
    "cogvideox": TinyRecipe(
        "CogVideoXPipeline", _T5, _COG_VAE, _cogvideox(), _NINE, part("CogVideoXDDIMScheduler")
    ),
    "cogvideox-1.5": TinyRecipe(
        "CogVideoXPipeline", _T5, _COG_VAE, _COG15, _NINE, part("CogVideoXDDIMScheduler")
    ),
    "cogvideox-i2v": TinyRecipe(
        "CogVideoXImageToVideoPipeline", _T5, _COG_VAE, _cogvideox(8), _NINE, part("CogVideoXDDIMScheduler")
    ),
    "mochi": TinyRecipe("MochiPipeline", _T5, _MOCHI_VAE, _MOCHI, (7, 16, 16)),
    "easyanimate": TinyRecipe("EasyAnimatePipeline", _QWEN, _MAGVIT_VAE, _EASY, (5, 16, 16)),
    **SOUND,
}
