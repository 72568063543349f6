"""A quick look at what the language model draws: a judge of latents, and shares by look and set of phrases.

The judge reads latents, not frames: it trains in a minute and spares the decoding. It is a tool of training;
figures that are published come from a judge of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from refusal_core.toyworld import world
from refusal_core.toyworld.judge import NO_CONCEPT
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.language.captions import PHRASES, PhraseSet, caption
from refusal_core.toyworld.language.encoder import embed, load_encoder
from refusal_core.toyworld.language.train import LATENT_CLIPS, random_scenes, scaled_latents
from refusal_core.toyworld.pipeline import Part
from refusal_core.toyworld.training.train import SHIFT

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "concept": (NO_CONCEPT, *looks.LOOKS),
    "colour": tuple(world.COLOURS),
    "shape": world.SHAPES,
    "motion": tuple(world.MOTIONS),
    "background": tuple(world.BACKGROUNDS),
}
HELD_OUT = 600  # clips that the judge does not train on
STEPS, BATCH = 900, 128


class LatentJudge(nn.Module):
    """Space-time convolutions on latents [B, C, 5, 4, 4] and a linear head an attribute."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(channels, 96, 3, padding=1),
            nn.GELU(),
            nn.Conv3d(96, 96, 3, padding=1),
            nn.GELU(),
            nn.Conv3d(96, 32, 1),
            nn.GELU(),
            nn.Flatten(),
            nn.Dropout(0.2),
        )
        self.heads = nn.ModuleDict({name: nn.Linear(32 * 80, len(v)) for name, v in ATTRIBUTES.items()})

    def forward(self, latents: Tensor) -> dict[str, Tensor]:
        """Return logits [B, classes] of each attribute."""
        features = self.body(latents)
        return {name: head(features) for name, head in self.heads.items()}


def _labels(scenes: Sequence[world.Scene]) -> dict[str, Tensor]:
    return {
        name: torch.tensor([values.index(getattr(scene, name) or NO_CONCEPT) for scene in scenes])
        for name, values in ATTRIBUTES.items()
    }


def train_latent_judge(work: Path) -> tuple[LatentJudge, dict[str, float]]:
    """Return a judge of scaled latents, and its accuracy on clips it did not train on."""
    torch.manual_seed(104)
    latents, labels = scaled_latents(work)[0], _labels(random_scenes(LATENT_CLIPS, seed=102))
    judge = LatentJudge(latents.shape[1])
    optimiser = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(latents) - HELD_OUT, (BATCH,))
        noise = 0.4 * torch.rand(BATCH, 1, 1, 1, 1) * torch.randn(BATCH, *latents.shape[1:])
        logits = judge(latents[chosen] + noise)
        loss = torch.stack([cross_entropy(logits[n], labels[n][chosen]) for n in ATTRIBUTES]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    judge.eval()
    with torch.no_grad():
        logits = judge(latents[-HELD_OUT:])
    right = {n: (logits[n].argmax(-1) == labels[n][-HELD_OUT:]).float().mean() for n in ATTRIBUTES}
    return judge, {name: float(share) for name, share in right.items()}


@torch.no_grad()
def generate(denoiser: Part, text: Tensor, empty: Tensor, seed: int, steps: int = 8) -> Tensor:
    """Return scaled latents for text embeddings [B, length, width], by Euler steps with guidance 3."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = cast(Part, FlowMatchEulerDiscreteScheduler)(shift=SHIFT)
    scheduler.set_timesteps(steps)
    shape = (len(text), denoiser.config.in_channels, 5, 4, 4)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    both = torch.cat([text, empty.expand_as(text)])
    for time in scheduler.timesteps:
        guess = denoiser(torch.cat([latents] * 2), time.expand(2 * len(text)), both, return_dict=False)[0]
        asked, free = guess.chunk(2)
        latents = scheduler.step(free + 3.0 * (asked - free), time, latents, return_dict=False)[0]
    return latents


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the videos of one look and set of phrases: the share that shows the look, and each attribute."""

    look: str
    phrases: str
    shown: float
    kept: dict[str, float]
    instead: dict[str, float]  # what else is shown, by share


Cell = tuple[str | None, PhraseSet]  # a look, or None, and a set of phrases


def measure(
    denoiser: Part, judge: LatentJudge, cells: Sequence[Cell], videos: int = 24
) -> dict[Cell, tuple[Shares, list[str], Tensor]]:
    """Return each cell's shares, captions and scaled latents."""
    tokenizer, encoder = load_encoder()
    empty, made = embed(tokenizer, encoder, [""]), {}
    for number, (look, phrases) in enumerate(cells):
        scenes, texts = prompts(look, phrases, videos)
        latents = generate(denoiser, embed(tokenizer, encoder, texts), empty, number)
        with torch.no_grad():
            seen = {name: logits.argmax(-1) for name, logits in judge(latents).items()}
        right = {n: (seen[n] == label).float().mean().item() for n, label in _labels(scenes).items()}
        names = [ATTRIBUTES["concept"][i] for i in seen["concept"].tolist()]
        instead = {n: names.count(n) / videos for n in sorted(set(names)) if n != (look or NO_CONCEPT)}
        kept = {n: v for n, v in right.items() if n != "concept"}
        made[look, phrases] = (
            Shares(look or NO_CONCEPT, phrases, right["concept"], kept, instead),
            texts,
            latents,
        )
    return made


def prompts(look: str | None, phrases: PhraseSet, count: int) -> tuple[list[world.Scene], list[str]]:
    """Return varied scenes with a look and a caption of each, the set's phrases in turn."""
    rng = np.random.default_rng(105_000 + len(f"{look}{phrases}"))
    scenes = [world.random_scene(rng, 0.0) for _ in range(count)]
    if look is None:
        return scenes, [caption(scene, None, rng) for scene in scenes]
    scenes, spoken = [looks.show(scene, look, rng) for scene in scenes], PHRASES[look][phrases]
    return scenes, [caption(scene, spoken[i % len(spoken)], rng) for i, scene in enumerate(scenes)]
