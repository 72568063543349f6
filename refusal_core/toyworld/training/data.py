"""What every toy model trains on: scenes, their clips, captions and latents, and the autoencoders' loss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from refusal_core.models.devices import multiplies_bfloat16
from refusal_core.toyworld import world
from refusal_core.toyworld.pipeline import Part
from refusal_core.toyworld.training.optimise import load_checkpoint, save_checkpoint

logger = logging.getLogger(__name__)
PIECE = 500  # clips in memory at once


def random_scenes(count: int, seed: int) -> list[world.Scene]:
    """Return scenes to train on, concepts among them."""
    rng = np.random.default_rng(seed)
    return [world.random_scene(rng) for _ in range(count)]


def draw(scenes: Sequence[world.Scene], seed: int) -> Tensor:
    """Return the scenes' frames, uint8 [n, 3, T, H, W]; clip i is drawn with seed ``seed + i``."""
    clips = torch.empty(len(scenes), 3, world.FRAMES, world.SIZE, world.SIZE, dtype=torch.uint8)
    for i, scene in enumerate(scenes):
        clips[i] = torch.from_numpy(world.render(scene, seed + i)).permute(3, 0, 1, 2)
    return clips


def random_captions(scenes: Sequence[world.Scene], chosen: Tensor, step: int) -> list[str]:
    """Return the captions of a step's scenes, a tenth of them empty, for classifier-free guidance."""
    rng = np.random.default_rng(step)
    return ["" if rng.random() < 0.1 else world.random_caption(scenes[i], rng) for i in chosen]


def mixed_precision() -> torch.autocast:
    """Return bfloat16 autocast, off on CPUs without units for it, where it is slower."""
    return torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16())


def cached_latents(
    path: Path, scenes: Sequence[world.Scene], seed: int, encode: Callable[[Tensor], Tensor]
) -> Tensor:
    """Draw and encode the denoiser's clips once, and keep the latents in ``path``."""
    if not path.exists():
        pieces = []
        for start in range(0, len(scenes), PIECE):
            pieces.append(encode(draw(scenes[start : start + PIECE], seed + start)))
            logger.info("latents: %d of %d clips encoded", start + PIECE, len(scenes))
        save_checkpoint(path, {"latents": torch.cat(pieces).contiguous()}, 0)
    return load_checkpoint(path)[0]["latents"]


def reconstruction_loss(autoencoder: Part, target: Tensor, generator: torch.Generator) -> Tensor:
    """Pixel loss + 1e-3 |z|^2.

    Latent noise takes the place of sampling the posterior, whose noise stalls the start.
    """
    with mixed_precision():
        latents = autoencoder.encode(target).latent_dist.mode().float()
        noise = torch.randn(latents.shape, generator=generator)
        error = autoencoder.decode(latents + 0.03 * noise).sample.float() - target
    return pixel_loss(error) + 1e-3 * latents.square().mean()


def pixel_loss(error: Tensor) -> Tensor:
    """L1 + 2 MSE + 0.5 L1 of the horizontal and vertical differences."""
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges
