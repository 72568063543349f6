"""Tokenizers and text encoders of tiny pipelines, made of a few words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = tuple(
    "a an the robot cat dog woman man dancing on in at beach street night red car burning fire".split()
)


def _sentence_pieces() -> Any:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary = special + [(f"▁{word}", -1.0) for word in WORDS]
    return tf.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def _letters() -> Any:
    pieces = ["<|startoftext|>", "<|endoftext|>", "!</w>"]
    letters = dict.fromkeys(letter for word in WORDS for letter in word)
    pieces += [piece for letter in letters for piece in (letter, f"{letter}</w>")]
    return tf.CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], model_max_length=77)


def _words(before: int = 0) -> Any:
    """Return a tokenizer of words that puts so many tokens before a text."""
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    words = [*special.values(), *WORDS]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if before:
        start = " ".join(["<s>"] * before)
        inner.post_processor = processors.TemplateProcessing(f"{start} $A", special_tokens=[("<s>", 1)])
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="right", **special)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{% for p in m['content'] %}"
        "{{ p['text'] if p is mapping else p }}{% endfor %}{% endif %}{% endfor %}"
    )
    return tokenizer


def _marked_words() -> Any:
    tokenizer = _words()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<|end_header_id|>"]})
    return tokenizer


def _sizes(**sizes: Any) -> dict[str, Any]:
    return sizes


_T5 = _sizes(
    d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, dropout_rate=0.0,
    feed_forward_proj="gated-gelu", relative_attention_num_buckets=8,
)  # fmt: skip
_LANGUAGE = _sizes(
    hidden_size=16, intermediate_size=37, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
    max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
_CLIP = _sizes(
    hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, projection_dim=32,
    bos_token_id=0, eos_token_id=1, pad_token_id=1,
)  # fmt: skip

_VISION = _sizes(
    hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32,
    patch_size=16,
)  # fmt: skip
_LLAVA = _sizes(
    text_config=_LANGUAGE | {"model_type": "llama"},
    vision_config=_VISION | {"model_type": "clip_vision_model"},
    image_token_index=len(WORDS) + 4, pad_token_id=0,
)  # fmt: skip
_SEEING = {"text_config": _LANGUAGE | {"head_dim": 4, "dropout_rate": 0.0}, "vision_config": _VISION}

# By name: what makes the tokenizer, the class of the encoder in transformers, its configuration.
_ENCODERS: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    "t5": (_sentence_pieces, "T5EncoderModel", _T5),
    "umt5": (_sentence_pieces, "UMT5EncoderModel", _T5),
    "byt5": (tf.ByT5Tokenizer, "T5EncoderModel", _T5),
    "clip": (_letters, "CLIPTextModel", _CLIP),
    "projecting clip": (_letters, "CLIPTextModelWithProjection", _CLIP),
    "narrow clip": (_letters, "CLIPTextModel", _CLIP | {"hidden_size": 8, "projection_dim": 8}),
    "llama": (_words, "LlamaModel", _LANGUAGE),
    "qwen": (_words, "Qwen2Model", _LANGUAGE),
    "qwen of kandinsky6": (lambda: _words(2), "Qwen2Model", _LANGUAGE),  # whose template has as many tokens
    "gemma": (_words, "Gemma2Model", _LANGUAGE | {"head_dim": 4}),
    "t5gemma2": (_words, "T5Gemma2Encoder", _SEEING),
    "llava": (_marked_words, "LlavaForConditionalGeneration", _LLAVA),
    "gemma3": (_words, "Gemma3ForConditionalGeneration", _SEEING),
}


def text_parts(names: tuple[str, ...]) -> dict[str, Any]:
    """Return tokenizers and text encoders under the names that pipelines give them."""
    parts: dict[str, Any] = {}
    for name, end in zip(names, ("", "_2"), strict=False):
        make, kind, config = _ENCODERS[name]
        tokenizer, encoder = make(), getattr(tf, kind)
        parts[f"tokenizer{end}"] = tokenizer
        words = {"vocab_size": len(tokenizer)}
        inner = {"text_config": config["text_config"] | words} if "text_config" in config else words
        parts[f"text_encoder{end}"] = encoder(encoder.config_class(**config | inner))
    return parts


_SIDES = {"height": 32, "width": 32}


def image_parts(kind: str) -> dict[str, Any]:
    """Return what reads the first image beside the text, under the names that pipelines give it."""
    if not kind:
        return {}
    if kind.startswith("siglip"):
        parts: dict[str, Any] = {"feature_extractor": tf.SiglipImageProcessor(size=_SIDES)}
        if kind == "siglip":  # else the network is inside the text encoder
            parts["image_encoder"] = tf.SiglipVisionModel(tf.SiglipVisionConfig(**_VISION))
        return parts
    parts = {"image_processor": tf.CLIPImageProcessor(size=32, crop_size=_SIDES)}
    if kind == "clip":
        config = tf.CLIPVisionConfig(projection_dim=8, **_VISION)
        parts["image_encoder"] = tf.CLIPVisionModelWithProjection(config)
    return parts
