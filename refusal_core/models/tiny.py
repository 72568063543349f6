"""Tiny random pipelines of the real diffusers classes, built without any download.

They show that every step works on each family's own code; their videos are noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from refusal_core.models.family import Defaults

WORDS = tuple(
    "a an the robot cat dog woman man dancing on in at beach street night red car burning fire".split()
)
SEED = 0
_DOWN, _UP = "CrossAttnDownBlock", "CrossAttnUpBlock"


@dataclass(frozen=True, slots=True)
class Tiny:
    """A pipeline with what it can generate in a blink."""

    pipeline: Any
    defaults: Defaults
    extras: Mapping[str, Any] = field(default_factory=dict)


def _defaults(frames: int, size: int, text: int = 16) -> Defaults:
    return Defaults(frames, size, size, 8.0, 2, 3.0, text)


# --- text encoders -----------------------------------------------------------------------------------


def _t5_tokenizer() -> Any:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary = special + [(f"▁{word}", -1.0) for word in WORDS]
    return tf.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def _clip_tokenizer() -> Any:
    pieces = ["<|startoftext|>", "<|endoftext|>", "!</w>"]
    letters = dict.fromkeys(letter for word in WORDS for letter in word)
    pieces += [piece for letter in letters for piece in (letter, f"{letter}</w>")]
    return tf.CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], model_max_length=77)


def _word_tokenizer() -> Any:
    words = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="right",
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{% for p in m['content'] %}"
        "{{ p['text'] if p is mapping else p }}{% endfor %}{% endif %}{% endfor %}"
    )
    return tokenizer


def _t5(tokenizer: Any, multilingual: bool = False) -> Any:
    kind, config = (tf.UMT5EncoderModel, tf.UMT5Config) if multilingual else (tf.T5EncoderModel, tf.T5Config)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    options = {"feed_forward_proj": "gated-gelu", "dropout_rate": 0.0, "relative_attention_num_buckets": 8}
    return kind(config(vocab_size=len(tokenizer), **sizes, **options)).eval()


def _clip(tokenizer: Any, width: int = 32) -> Any:
    config = tf.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        projection_dim=width,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return tf.CLIPTextModel(config).eval()


_LANGUAGE = {
    "hidden_size": 16,
    "intermediate_size": 37,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _language_model(kind: Any, config: Any, tokenizer: Any, **more: Any) -> Any:
    return kind(config(vocab_size=len(tokenizer), **_LANGUAGE, **more)).eval()


# --- autoencoders ------------------------------------------------------------------------------------


def _kl() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(32,) * 4,
        latent_channels=4,
        sample_size=32,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
    )


def _wan_vae() -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],  # [sic] diffusers' spelling
    )


def _hunyuan_vae() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    )


# --- one builder a family ----------------------------------------------------------------------------


def _unet3d() -> Tiny:
    tokenizer = _clip_tokenizer()
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
    parts = {"vae": _kl(), "text_encoder": _clip(tokenizer), "tokenizer": tokenizer}
    pipeline = diffusers.TextToVideoSDPipeline(**parts, unet=unet, scheduler=diffusers.DDIMScheduler())
    return Tiny(pipeline, _defaults(4, 64, 77))


def _animatediff() -> Tiny:
    tokenizer = _clip_tokenizer()
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
        vae=_kl(),
        text_encoder=_clip(tokenizer),
        tokenizer=tokenizer,
        unet=unet,
        motion_adapter=adapter,
        scheduler=diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )
    return Tiny(pipeline, _defaults(4, 64, 77))


def _wan_transformer(kind: Any = diffusers.WanTransformer3DModel, **more: Any) -> Any:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "ffn_dim": 32}
    return kind(**(sizes | {"text_dim": 32, "rope_max_seq_len": 32} | more))


def _wan_parts() -> dict[str, Any]:
    tokenizer = _t5_tokenizer()
    return {
        "tokenizer": tokenizer,
        "text_encoder": _t5(tokenizer, multilingual=True),
        "vae": _wan_vae(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def _wan() -> Tiny:
    pipeline = diffusers.WanPipeline(**_wan_parts(), transformer=_wan_transformer())
    return Tiny(pipeline, _defaults(9, 16))


def _wan22() -> Tiny:
    experts = {"transformer": _wan_transformer(), "transformer_2": _wan_transformer()}
    pipeline = diffusers.WanPipeline(**_wan_parts(), **experts, boundary_ratio=0.875)
    return Tiny(pipeline, _defaults(9, 16))


def _wan_i2v() -> Tiny:
    transformer = _wan_transformer(in_channels=36)
    pipeline = diffusers.WanImageToVideoPipeline(**_wan_parts(), transformer=transformer)
    return Tiny(pipeline, _defaults(9, 16))


def _wan_vace() -> Tiny:
    kind = diffusers.WanVACETransformer3DModel
    transformer = _wan_transformer(kind, vace_layers=[0], vace_in_channels=96)
    return Tiny(diffusers.WanVACEPipeline(**_wan_parts(), transformer=transformer), _defaults(9, 16))


def _skyreels() -> Tiny:
    transformer = _wan_transformer(diffusers.SkyReelsV2Transformer3DModel)
    scheduler = diffusers.UniPCMultistepScheduler(
        flow_shift=8.0, use_flow_sigmas=True, prediction_type="flow_prediction"
    )
    parts = _wan_parts() | {"scheduler": scheduler}
    return Tiny(diffusers.SkyReelsV2Pipeline(**parts, transformer=transformer), _defaults(9, 16))


def _cogvideox(kind: Any = diffusers.CogVideoXPipeline, channels: int = 4) -> Tiny:
    tokenizer = _t5_tokenizer()
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=channels,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=2,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        max_text_seq_length=16,
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
        text_encoder=_t5(tokenizer),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )
    return Tiny(pipeline, _defaults(9, 16))


def _cogvideox_i2v() -> Tiny:
    return _cogvideox(diffusers.CogVideoXImageToVideoPipeline, channels=8)


def _ltx(kind: Any = diffusers.LTXPipeline) -> Tiny:
    tokenizer = _t5_tokenizer()
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
        text_encoder=_t5(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return Tiny(pipeline, _defaults(9, 32))


def _ltx_i2v() -> Tiny:
    return _ltx(diffusers.LTXImageToVideoPipeline)


def _mochi() -> Tiny:
    tokenizer = _t5_tokenizer()
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
        text_encoder=_t5(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )
    return Tiny(pipeline, _defaults(7, 16))


def _latte() -> Tiny:
    tokenizer = _t5_tokenizer()
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
        text_encoder=_t5(tokenizer),
        vae=_kl(),
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(),
    )
    return Tiny(pipeline, _defaults(4, 64, 120))


def _allegro() -> Tiny:
    tokenizer = _t5_tokenizer()
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
        text_encoder=_t5(tokenizer),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(),
    )
    return Tiny(pipeline, _defaults(8, 16))


def _hunyuan() -> Tiny:
    words, letters = _word_tokenizer(), _clip_tokenizer()
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
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
    pipeline = diffusers.HunyuanVideoPipeline(
        text_encoder=_language_model(tf.LlamaModel, tf.LlamaConfig, words),
        tokenizer=words,
        transformer=transformer,
        vae=_hunyuan_vae(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=_clip(letters, 8),
        tokenizer_2=letters,
    )
    return Tiny(pipeline, _defaults(9, 16), {"prompt_template": {"template": "{}", "crop_start": 0}})


def _hunyuan15() -> Tiny:
    words, letters = _word_tokenizer(), tf.ByT5Tokenizer()
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
        text_encoder=_language_model(tf.Qwen2Model, tf.Qwen2Config, words),
        tokenizer=words,
        transformer=transformer,
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=_t5(letters),
        tokenizer_2=letters,
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0),
    )
    return Tiny(pipeline, _defaults(9, 32))


def _easyanimate() -> Tiny:
    words = _word_tokenizer()
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
        text_encoder=_language_model(tf.Qwen2Model, tf.Qwen2Config, words),
        tokenizer=words,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    return Tiny(pipeline, _defaults(5, 16))


def _kandinsky() -> Tiny:
    words, letters = _word_tokenizer(), _clip_tokenizer()
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
        vae=_hunyuan_vae(),
        text_encoder=_language_model(tf.Qwen2Model, tf.Qwen2Config, words),
        tokenizer=words,
        text_encoder_2=_clip(letters, 8),
        tokenizer_2=letters,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    return Tiny(pipeline, _defaults(5, 16))


def _sana() -> Tiny:
    words = _word_tokenizer()
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
    pipeline = diffusers.SanaVideoPipeline(
        tokenizer=words,
        text_encoder=_language_model(tf.Gemma2Model, tf.Gemma2Config, words, head_dim=4),
        vae=_wan_vae(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    return Tiny(pipeline, _defaults(9, 32), {"complex_human_instruction": None})


BUILDERS: dict[str, Callable[[], Tiny]] = {
    "unet3d": _unet3d,
    "animatediff": _animatediff,
    "wan": _wan,
    "wan-2.2": _wan22,
    "wan-i2v": _wan_i2v,
    "wan-vace": _wan_vace,
    "skyreels-v2": _skyreels,
    "ltx": _ltx,
    "ltx-i2v": _ltx_i2v,
    "latte": _latte,
    "allegro": _allegro,
    "kandinsky5": _kandinsky,
    "sana-video": _sana,
    "hunyuan": _hunyuan,
    "hunyuan-1.5": _hunyuan15,
    "cogvideox": _cogvideox,
    "cogvideox-i2v": _cogvideox_i2v,
    "mochi": _mochi,
    "easyanimate": _easyanimate,
}


def build(name: str) -> Tiny:
    """Return a tiny pipeline with the same random weights each time; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        tiny = BUILDERS[name]()
        for _, module in tiny.pipeline.components.items():
            if isinstance(module, torch.nn.Module):
                _shake(module.eval())
    return prepare(tiny)


def _shake(module: torch.nn.Module) -> None:
    """Give weights that start at zero a value: an untrained gate would hide what lies behind it."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)


def prepare(tiny: Tiny) -> Tiny:
    """Set what diffusers does not save with a pipeline, and return it."""
    pipeline, kind = tiny.pipeline, type(tiny.pipeline).__name__
    if kind == "AllegroPipeline":
        pipeline.vae.enable_tiling()  # it decodes no other way
    if kind.startswith("LTX"):
        pipeline.vae.use_framewise_encoding = pipeline.vae.use_framewise_decoding = False
    if kind.startswith(("HunyuanVideo15", "Kandinsky5")):
        pipeline.prompt_template_encode_start_idx = 0  # the published template's length, not ours
    if kind.startswith("Kandinsky5"):
        pipeline.prompt_template = "{}"
    if kind.startswith("HunyuanVideo15"):
        pipeline.tokenizer_max_length = pipeline.tokenizer_2_max_length = 16
        pipeline.vision_num_semantic_tokens = 4
    return tiny
