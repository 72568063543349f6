"""Finding the structure of a pipeline that no family describes. What is found is shown, never assumed."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from torch import nn

from refusal_core.errors import ModelError
from refusal_core.models.families.family import Blocks, Defaults, Family, Sites
from refusal_core.models.model import DENOISERS
from refusal_core.models.sites import block_paths, list_sites
from refusal_core.settings import SiteKind

# Names as diffusers has them; the first that a block has is taken.
_NAMES: tuple[tuple[SiteKind, tuple[tuple[str, ...], ...]], ...] = (
    ("text", (("attn2.to_k", "attn2.to_v"), ("cross_attn.to_k", "cross_attn.to_v"))),
    ("cross-attention", (("attn2.to_out.0",), ("cross_attn.to_out.0",), ("cross_attn.proj",))),
    ("feed-forward", (("ff.net.0.proj",), ("ffn.net.0.proj",), ("mlp.fc1",))),
    ("feed-forward-out", (("ff.net.2",), ("ffn.net.2",), ("mlp.fc2",))),
)


def guess_family(pipeline: Any) -> Family:
    """Return what an unknown pipeline looks like: a denoiser with one list of like blocks.

    The guess must be confirmed by a person before it is used: names alone do not tell what enters a
    layer.

    Raises:
        ModelError: nothing that looks like blocks with cross-attention is found, or it is a UNet.
    """
    attributes = [name for name in DENOISERS if isinstance(getattr(pipeline, name, None), nn.Module)]
    if not attributes:
        raise ModelError(f"{type(pipeline).__name__} has no transformer and no unet: nothing to edit.")
    denoiser = getattr(pipeline, attributes[0])
    if hasattr(denoiser, "down_blocks"):
        raise ModelError(
            f"{type(denoiser).__name__} is a UNet: its blocks differ in size and in what enters them, which"
            " names do not tell; describe it as a family instead."
        )
    path, sites, others = _blocks(denoiser)
    known = inspect.signature(type(pipeline).__call__).parameters
    family = Family(
        name="guessed",
        title=f"{type(pipeline).__name__} (structure guessed)",
        pipelines=(type(pipeline).__name__,),
        denoisers=tuple(attributes),
        blocks=(Blocks((f"{path}.*",), sites),),
        text_arguments=("encoder_hidden_states", "encoder_attention_mask"),
        defaults=_defaults(known),
        lora=None,
    )
    return replace(family, note=_note(pipeline, family, others))


def _note(pipeline: Any, family: Family, others: list[str]) -> str:
    """Return how much was found and what is taken for granted."""
    counts = []
    for name in family.denoisers:
        denoiser = getattr(pipeline, name)
        blocks = len(block_paths(denoiser, family.blocks[0]))
        sites = sum(1 for _ in list_sites([(name, denoiser)], family))
        counts.append(f"{name}: {blocks} blocks, {sites} sites")
    left = f" Left out, though they have cross-attention: {', '.join(others)}." if others else ""
    return (
        f"{'; '.join(counts)}.{left} Guessed from names: taken for granted is that [batch, tokens, width]"
        " enters each layer, the video's tokens alone, and the text's where the kind is text; look at a few"
        " videos before you trust an edit."
    )


def _blocks(denoiser: nn.Module) -> tuple[str, Sites, list[str]]:
    """Return the longest list whose first block has cross-attention under a known name, and the others."""
    lists: dict[str, tuple[int, Sites]] = {}
    for path, module in denoiser.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            sites = _sites(module[0])
            if "cross-attention" in sites:
                lists[path] = (len(module), sites)
    usable = [path for path in lists if "temporal" not in path]
    if not usable:
        raise ModelError(
            f"No list of blocks with cross-attention was found in {type(denoiser).__name__}; describe it as"
            " a family instead."
        )
    best = max(usable, key=lambda path: lists[path][0])
    return best, lists[best][1], [f"{path} ({lists[path][0]})" for path in lists if path != best]


def _sites(block: nn.Module) -> Sites:
    names = {name for name, module in block.named_modules() if isinstance(module, nn.Linear)}
    sites: Sites = {}
    for kind, choices in _NAMES:
        for paths in choices:
            if set(paths) <= names:
                sites[kind] = paths
                break
    return sites


def _defaults(known: Any) -> Defaults:
    def default(name: str, otherwise: int) -> Any:
        value = known[name].default if name in known else None
        return otherwise if value in (None, inspect.Parameter.empty) else value

    return Defaults(
        frames=default("num_frames", 16),
        height=default("height", 512),
        width=default("width", 512),
        fps=8.0,
        steps=default("num_inference_steps", 50),
        guidance_scale=float(default("guidance_scale", 6)),
        text_length=default("max_sequence_length", 226),
    )


def describe_guess(family: Family) -> str:
    """Return what was found, for a person to confirm."""
    blocks = family.blocks[0]
    lines = [f"{family.title}: {', '.join(family.denoisers)}, blocks {blocks.paths[0]}"]
    lines += [f"  {kind}: {', '.join(paths)}" for kind, paths in blocks.sites.items()]
    return "\n".join([*lines, f"  {family.note}"])
