"""What the trainings share: scenes, their clips, captions and labels, tables on disk, and losses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from refusal_core.models.devices import multiplies_bfloat16
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import NO_CONCEPT
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.pipeline import Part, to_unit

logger = logging.getLogger(__name__)
PIECE = 500  # rows of a table that are made and stored at once
SHIFT = 2.0  # of the schedulers of flow matching; training draws noise levels the same way


def random_scenes(
    count: int, seed: int, make: Callable[[np.random.Generator], world.Scene] = world.random_scene
) -> list[world.Scene]:
    """Return scenes to train on, concepts among them."""
    rng = np.random.default_rng(seed)
    return [make(rng) for _ in range(count)]


def draw(scenes: Sequence[world.Scene], seed: int) -> Tensor:
    """Return the scenes' frames, uint8 [n, 3, T, H, W]; clip i is drawn with seed ``seed + i``."""
    clips = torch.empty(len(scenes), 3, world.FRAMES, world.SIZE, world.SIZE, dtype=torch.uint8)
    for i, scene in enumerate(scenes):
        clips[i] = torch.from_numpy(looks.render(scene, seed + i)).permute(3, 0, 1, 2)
    return clips


def random_captions(scenes: Sequence[world.Scene], chosen: Tensor, step: int) -> list[str]:
    """Return the captions of a step's scenes, a tenth of them empty, for classifier-free guidance."""
    rng = np.random.default_rng(step)
    return ["" if rng.random() < 0.1 else world.random_caption(scenes[i], rng) for i in chosen]


def labels_of(scenes: Sequence[world.Scene], attributes: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Return what a judge should read, as a class of each attribute."""
    return {
        name: torch.tensor([values.index(getattr(scene, name) or NO_CONCEPT) for scene in scenes])
        for name, values in attributes.items()
    }


def stored(path: Path, count: int, fill: Callable[[int, int], Tensor]) -> Tensor:
    """Return a table on disk whose rows ``fill`` makes, first to last; a stopped run goes on where it was."""
    done = path.with_suffix(".done")
    for first in range(int(done.read_text()) if done.exists() else 0, count, PIECE):
        rows = fill(first, min(first + PIECE, count)).numpy()
        shape, kind = (count, *rows.shape[1:]), rows.dtype
        store = np.lib.format.open_memmap(path, "r+" if first else "w+", kind, None if first else shape)
        store[first : first + len(rows)] = rows
        store.flush()
        done.write_text(str(first + len(rows)))
        logger.info("%s: %d of %d", path.stem, first + len(rows), count)
    return torch.from_numpy(np.load(path, mmap_mode="c"))


# --- losses ------------------------------------------------------------------------------------------


def mixed_precision() -> torch.autocast:
    """Return bfloat16 autocast, off on CPUs without units for it, where it is slower."""
    return torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16())


def plain_attention() -> AbstractContextManager[None]:
    """On this CPU path the fused attention takes half of a step in its backward pass."""
    return sdpa_kernel(SDPBackend.MATH)


def short_clips(clips: Tensor, batch: int, length: int, generator: torch.Generator) -> Tensor:
    """Return pieces of ``length`` frames of some clips, from -1 to 1."""
    chosen = torch.randint(len(clips), (batch,), generator=generator)
    first = int(torch.randint(world.FRAMES - length + 1, (1,), generator=generator))
    return to_unit(clips[chosen, :, first : first + length])


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


def normalised(latents: Tensor, autoencoder: Part) -> Tensor:
    """Return latents of zero mean and unit spread by channel; the autoencoder's configuration keeps both."""
    spread, mean = torch.std_mean(latents, (0, 2, 3, 4), keepdim=True)
    autoencoder.register_to_config(
        latents_mean=mean.flatten().tolist(), latents_std=spread.flatten().tolist()
    )
    return (latents - mean) / spread


def flow_loss(guess: Callable[[Tensor, Tensor], Tensor], clean: Tensor, generator: torch.Generator) -> Tensor:
    """Return the loss of flow matching: x_t = (1 - s) x_0 + s noise, target noise - x_0, time 1000 s.

    s is logit-normal, shifted as in sampling; ``guess`` is called with x_t and the times.
    """
    noise = torch.randn(clean.shape, generator=generator)
    level = torch.sigmoid(torch.randn(len(clean), generator=generator))
    level = SHIFT * level / (1 + (SHIFT - 1) * level)
    mix = level.view(-1, 1, 1, 1, 1)
    return (guess((1 - mix) * clean + mix * noise, level * 1000).float() - (noise - clean)).square().mean()


def disturbed(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise to clips, and change their brightness, as an autoencoder might."""
    amount = 0.12 * torch.rand(len(clips), 1, 1, 1, 1, generator=generator)
    clips = clips + amount * torch.randn(clips.shape, generator=generator)
    return clips * (0.9 + 0.2 * torch.rand(len(clips), 1, 1, 1, 1, generator=generator))


def judge_loss(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], chosen: Tensor) -> Tensor:
    """Return the sum of the attributes' cross-entropies."""
    losses = [cross_entropy(logits[n], labels[n][chosen], label_smoothing=0.02) for n in labels]
    return torch.stack(losses).sum()
