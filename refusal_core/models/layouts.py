"""What the rows of a hooked input mean: which belong to which prompt, to which frame, and to the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from refusal_core.models.families.family import Family, Layout


@dataclass(frozen=True, slots=True)
class Shape:
    """The extent of one denoiser call."""

    prompts: int  # B
    frames: int  # F, latent frames as the blocks see them
    text: int  # T, text tokens
    rows: int = 0  # F*S of a video that is made piece by piece


def call_shape(family: Family, denoiser: nn.Module, arguments: Mapping[str, Any], prompts: int) -> Shape:
    """Return the extent of a call from its arguments, all rows of it being conditional."""
    if family.latents == "packed":
        frames = int(arguments["num_frames"])
    elif family.latents == "placed":
        frames = len(arguments["video_coords"][0, 0].unique())
    else:
        latents = arguments[family.latents_argument]
        frames = latents.shape[family.latents.index("F")] // _frame_patch(denoiser)
    rows = 0
    if family.piece:
        *_, height, width = arguments[family.latents_argument].shape
        config: Any = denoiser.config
        _, down, across = config.patch_size
        rows = frames * (height // down) * (width // across)
    return Shape(prompts, frames, arguments["encoder_hidden_states"].shape[1], rows)


def _frame_patch(denoiser: nn.Module) -> int:
    """Return how many latent frames one token spans."""
    config = denoiser.config
    patch = getattr(config, "patch_size", 1)
    if isinstance(patch, (tuple, list)):
        return int(patch[0])
    return int(getattr(config, "patch_size_t", None) or 1)


def text_rows(x: Tensor, prompts: int) -> Tensor:
    """Return [B, T, H] of a text-side input, which UNets repeat for every frame."""
    return x.reshape(prompts, -1, *x.shape[-2:])[:, 0]


def video_rows(x: Tensor, layout: Layout, shape: Shape) -> Tensor:
    """Return [B, F, S, H]: the video rows of a site's input, frame by frame; of the sound [B, A, 1, H]."""
    if layout == "frames-in-batch":
        return x.unflatten(0, (shape.prompts, shape.frames))
    if layout == "pixels-in-batch":
        return x.unflatten(0, (shape.prompts, -1)).transpose(1, 2)
    if layout == "piece-last":
        x = x[:, -shape.rows :]
    if layout == "sound":
        return x.unflatten(1, (-1, 1))
    if layout == "text-first":
        x = x[:, shape.text :]
    if layout == "text-last":
        x = x[:, : -shape.text]
    return x.unflatten(1, (shape.frames, -1))
