"""The toy models' parts: real diffusers classes, as the bundled folders' configuration describes them."""

from __future__ import annotations

import importlib
import json
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResidualBlock
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import BatchEncoding, PreTrainedTokenizerFast

from refusal_core.models.load import ASSETS
from refusal_core.toyworld import world

WAN, UNET = "toyworld-wan", "toyworld-unet3d"  # folders
TEXT_LENGTH = 24  # tokens; the longest caption has 17 and an end sign
Part = Any  # classes of diffusers and transformers: their bases do not reach the type checker


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer of the world's words; any other word is ``<unk>``."""
    vocabulary = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *world.words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(".", " "), normalizers.Replace(",", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=TEXT_LENGTH, **special)


def build(folder: str, part: str) -> Part:
    """Return a part of a bundled model with fresh weights, or its scheduler.

    A video autoencoder comes initialised so that it trains. Its ``patch_size`` of 4 unshuffles pixels first,
    as Wan 2.2 does: many times faster on a CPU.
    """
    library, name = _classes(folder)[part]
    kind = getattr(importlib.import_module(library), name)
    if library == "transformers":
        return kind(kind.config_class.from_pretrained(ASSETS / folder / part))
    built = kind.from_config(kind.load_config(ASSETS / folder / part))
    if isinstance(built, AutoencoderKLWan):
        _initialise(built)
    return built


def assemble(folder: str, **parts: Part) -> Part:
    """Put parts together to a pipeline as in ``folder``; its ``save_pretrained`` makes a bundled model."""
    index = _classes(folder)
    kind: Part = getattr(importlib.import_module("diffusers"), index["_class_name"])
    empty = {"transformer_2": None, "boundary_ratio": None} if "transformer_2" in index else {}
    for part in parts.values():
        part.eval()
    return kind(tokenizer=build_tokenizer(), scheduler=build(folder, "scheduler"), **parts, **empty)


def _classes(folder: str) -> Part:
    return json.loads((ASSETS / folder / "model_index.json").read_text("utf-8"))


def _initialise(autoencoder: Part) -> None:
    """Variance-preserving convolutions, and residual branches that start at zero.

    With PyTorch's default initialisation the output stays the mean image (L1 0.30 after 250 steps).
    """
    for module in autoencoder.modules():
        if isinstance(module, (nn.Conv2d, WanCausalConv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # all of these have one
    for name, module in autoencoder.named_modules():
        if isinstance(module, WanResidualBlock):
            nn.init.zeros_(module.conv2.weight)
        elif name.endswith("attentions.0"):
            nn.init.zeros_(module.proj.weight)
    # diffusers clamps the output to [-1, 1]: where it starts outside, no gradient would flow.
    autoencoder.decoder.conv_out.weight.data.mul_(0.1)


def tokens(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> BatchEncoding:
    """Return the captions' tokens, padded to TEXT_LENGTH, with their mask."""
    return tokenizer(
        captions, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    )


def encode_text(tokenizer: PreTrainedTokenizerFast, text_encoder: Part, captions: list[str]) -> Tensor:
    """Return text embeddings [B, TEXT_LENGTH, width], padded with zeros as WanPipeline does."""
    words = tokens(tokenizer, captions)
    hidden: Tensor = text_encoder(words.input_ids, words.attention_mask).last_hidden_state
    return hidden * words.attention_mask[..., None]


def to_unit(clips: Tensor) -> Tensor:
    """uint8 frames -> float in [-1, 1]."""
    return clips.float().div_(127.5).sub_(1.0)


@torch.no_grad()
def encode_clips(autoencoder: Part, clips: Tensor) -> Tensor:
    """Return latents [n, C, ...] of uint8 clips or frames [n, 3, ...], not yet scaled."""
    return torch.cat([autoencoder.encode(to_unit(part)).latent_dist.mode() for part in clips.split(32)])


@torch.no_grad()
def decode_clips(autoencoder: Part, latents: Tensor) -> Tensor:
    """Return uint8 clips [n, 3, T, H, W] of unscaled latents."""
    parts = [autoencoder.decode(part).sample for part in latents.split(32)]
    return torch.cat([p.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8) for p in parts])
