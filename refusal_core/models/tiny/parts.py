"""What tiny pipelines are made of: tokenizers, text encoders, autoencoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from refusal_core.models.family import Defaults

WORDS = tuple(
    "a an the robot cat dog woman man dancing on in at beach street night red car burning fire".split()
)


@dataclass(frozen=True, slots=True)
class Tiny:
    """A pipeline with what it can generate in a blink."""

    pipeline: Any
    defaults: Defaults
    extras: Mapping[str, Any] = field(default_factory=dict)


def small(frames: int, size: int, text: int = 16) -> Defaults:
    return Defaults(frames, size, size, 8.0, 2, 3.0, text)


def t5_tokenizer() -> Any:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary = special + [(f"▁{word}", -1.0) for word in WORDS]
    return tf.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def clip_tokenizer() -> Any:
    pieces = ["<|startoftext|>", "<|endoftext|>", "!</w>"]
    letters = dict.fromkeys(letter for word in WORDS for letter in word)
    pieces += [piece for letter in letters for piece in (letter, f"{letter}</w>")]
    return tf.CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], model_max_length=77)


def word_tokenizer() -> Any:
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


def t5_encoder(tokenizer: Any, multilingual: bool = False) -> Any:
    kind, config = (tf.UMT5EncoderModel, tf.UMT5Config) if multilingual else (tf.T5EncoderModel, tf.T5Config)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    options = {"feed_forward_proj": "gated-gelu", "dropout_rate": 0.0, "relative_attention_num_buckets": 8}
    return kind(config(vocab_size=len(tokenizer), **sizes, **options)).eval()


def clip_encoder(tokenizer: Any, width: int = 32) -> Any:
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


def clip_eye() -> dict[str, Any]:
    """Return what reads the first image in Wan 2.1 and SkyReels V2."""
    config = tf.CLIPVisionConfig(
        hidden_size=8,
        projection_dim=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    size = {"height": 32, "width": 32}
    return {
        "image_encoder": tf.CLIPVisionModelWithProjection(config).eval(),
        "image_processor": tf.CLIPImageProcessor(size=32, crop_size=size),
    }


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


def language_model(kind: Any, config: Any, tokenizer: Any, **more: Any) -> Any:
    return kind(config(vocab_size=len(tokenizer), **_LANGUAGE, **more)).eval()


def image_vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(32,) * 4,
        latent_channels=4,
        sample_size=32,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
    )


def wan_vae() -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],  # [sic] diffusers' spelling
    )


def hunyuan_vae() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    )
