"""A quick look at what the language model draws: a reader of latents, and shares by look and set of phrases.

The reader sees latents, not frames: it is fitted in seconds and spares the decoding. A tool of training;
figures that are published come from a judge of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from refusal_core.toyworld import world
from refusal_core.toyworld.judge import NO_CONCEPT
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.language.captions import PHRASES, PhraseSet, caption
from refusal_core.toyworld.language.encoder import embed, load_encoder
from refusal_core.toyworld.language.train import (
    LATENT_CLIPS,
    build_denoiser,
    random_scenes,
    scaled_latents,
    train_decoder,
)
from refusal_core.toyworld.pipeline import Part, decode_clips
from refusal_core.toyworld.training.optimise import load_checkpoint
from refusal_core.toyworld.training.train import SHIFT

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "concept": (NO_CONCEPT, *looks.LOOKS),
    "colour": tuple(world.COLOURS),
    "shape": world.SHAPES,
    "motion": tuple(world.MOTIONS),
    "background": tuple(world.BACKGROUNDS),
}
SETS: tuple[PhraseSet, ...] = ("pairs", "taught", "unheard")
HELD_OUT = 600  # clips that the reader is not fitted on
RIDGE = 200.0


def features(latents: Tensor) -> Tensor:
    """Return what the reader sees of latents [B, C, 5, 4, 4]: them, and by time their products and ends."""
    by_time = latents.flatten(3).transpose(1, 2)  # [B, T, C, positions]
    channels = latents.shape[1]
    products = torch.einsum("btcp,btdp->btcd", by_time, by_time) / by_time.shape[-1]
    upper = torch.triu_indices(channels, channels)
    ends = torch.cat([by_time.amax(-1), by_time.amin(-1)], -1)
    return torch.cat([latents.flatten(1), products[:, :, upper[0], upper[1]].flatten(1), ends.flatten(1)], 1)


@dataclass(frozen=True, slots=True)
class LatentReader:
    """Linear heads on standardised features, by ridge regression: closed form, twenty seconds."""

    mean: Tensor
    spread: Tensor
    heads: dict[str, Tensor]  # [features + 1, classes] of each attribute

    def __call__(self, latents: Tensor) -> dict[str, Tensor]:
        """Return a score [B, classes] of each attribute for scaled latents."""
        rows = (features(latents) - self.mean) / self.spread
        rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        return {name: rows @ head for name, head in self.heads.items()}


def _labels(scenes: Sequence[world.Scene]) -> dict[str, Tensor]:
    return {
        name: torch.tensor([values.index(getattr(scene, name) or NO_CONCEPT) for scene in scenes])
        for name, values in ATTRIBUTES.items()
    }


def fit_reader(work: Path) -> tuple[LatentReader, dict[str, float]]:
    """Return a reader of scaled latents, and its accuracy on clips it was not fitted on."""
    latents, labels = scaled_latents(work)[0], _labels(random_scenes(LATENT_CLIPS, seed=102))
    generator = torch.Generator().manual_seed(104)
    amount = 0.25 * torch.rand(len(latents), 1, 1, 1, 1, generator=generator)
    rows = features(latents + amount * torch.randn(latents.shape, generator=generator))[:-HELD_OUT]
    spread, mean = torch.std_mean(rows, 0)
    rows = torch.cat([(rows - mean) / spread, torch.ones(len(rows), 1)], 1)
    factor = torch.linalg.cholesky(rows.T @ rows + RIDGE * torch.eye(rows.shape[1]))
    heads = {}
    for name, label in labels.items():
        right = torch.nn.functional.one_hot(label[:-HELD_OUT], len(ATTRIBUTES[name])).float()
        heads[name] = torch.cholesky_solve(rows.T @ right, factor)
    reader = LatentReader(mean, spread, heads)
    seen = {name: scores.argmax(-1) for name, scores in reader(latents[-HELD_OUT:]).items()}
    return reader, {n: float((seen[n] == labels[n][-HELD_OUT:]).float().mean()) for n in ATTRIBUTES}


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
    denoiser: Part, reader: LatentReader, cells: Sequence[Cell], videos: int = 24
) -> dict[Cell, tuple[Shares, list[str], Tensor]]:
    """Return each cell's shares, captions and scaled latents."""
    tokenizer, encoder = load_encoder()
    empty, made = embed(tokenizer, encoder, [""]), {}
    for number, (look, phrases) in enumerate(cells):
        scenes, texts = prompts(look, phrases, videos)
        latents = generate(denoiser, embed(tokenizer, encoder, texts), empty, number)
        seen = {name: scores.argmax(-1) for name, scores in reader(latents).items()}
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


def table(made: dict[Cell, tuple[Shares, list[str], Tensor]]) -> str:
    """Return the shares as a table in Markdown, a row a cell."""
    names = [name for name in ATTRIBUTES if name != "concept"]
    lines = [f"| look | phrases | shown | {' | '.join(names)} | instead |", "|---" * (4 + len(names)) + "|"]
    for shares, _, _ in made.values():
        kept = " | ".join(f"{shares.kept[name]:.2f}" for name in names)
        instead = ", ".join(f"{name} {share:.2f}" for name, share in shares.instead.items())
        lines.append(f"| {shares.look} | {shares.phrases} | {shares.shown:.2f} | {kept} | {instead} |")
    return "\n".join(lines)


def save_sheet(rows: Sequence[tuple[str, Tensor]], path: Path) -> None:
    """Write captioned strips of six frames of clips, uint8 [3, T, H, W], in two columns."""
    from PIL import Image, ImageDraw

    strips = []
    for text, clip in rows:
        frames = clip[:, [0, 4, 7, 10, 13, 16]].permute(1, 2, 3, 0).numpy()
        picture = Image.fromarray(np.concatenate(list(np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)))), 1))
        strip = Image.new("RGB", (picture.width + 6, picture.height + 14), "white")
        strip.paste(picture, (0, 13))
        ImageDraw.Draw(strip).text((1, 1), text[:72], fill="black")
        strips.append(strip)
    wide, tall = strips[0].size
    page = Image.new("RGB", (2 * wide, tall * ((len(strips) + 1) // 2)), "white")
    for i, strip in enumerate(strips):
        page.paste(strip, ((i % 2) * wide, (i // 2) * tall))
    page.save(path)


def check(work: Path, videos: int = 24, sheets: int = 2) -> None:
    """Print the reader's accuracy and every cell's shares, and write sheets of decoded clips."""
    reader, accuracy = fit_reader(work)
    print("reader of latents:", {name: f"{share:.3f}" for name, share in accuracy.items()}, flush=True)
    denoiser, (_, mean, spread) = averaged_denoiser(work), scaled_latents(work)
    cells: list[Cell] = [(None, "pairs")]
    cells += [(c, k) for c in looks.CONCEPTS for k in SETS] + [(n, k) for n in looks.NEIGHBOURS for k in SETS]
    made = measure(denoiser, reader, cells, videos)
    print(table(made))
    autoencoder = train_decoder(work)
    for kind in SETS:
        rows = []
        for (_, phrases), (_, texts, latents) in made.items():
            if phrases == kind:
                clips = decode_clips(autoencoder, latents[:sheets] * spread + mean)
                rows += list(zip(texts, clips, strict=False))
        save_sheet(rows, work / f"sheet-{kind}.png")


def averaged_denoiser(work: Path) -> Part:
    """Return the denoiser of the last checkpoint, with its averaged weights, finished or not."""
    denoiser, (tensors, step) = build_denoiser(), load_checkpoint(work / "denoiser.safetensors")
    denoiser.load_state_dict({n: tensors[f"average/transformer.{n}"] for n, _ in denoiser.named_parameters()})
    print(f"denoiser after step {step}")
    return denoiser.eval()


if __name__ == "__main__":
    import sys

    torch.set_num_threads(1)
    check(Path(sys.argv[1]), *(int(number) for number in sys.argv[2:]))
