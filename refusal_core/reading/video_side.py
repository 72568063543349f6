"""The video's side of capture: sites whose input depends on the video, the prompt and the timestep.

Capture has a schedule and a size of its own: as many steps as are read, and a short clip. Knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from refusal_core.activations import Twins
from refusal_core.errors import InputError
from refusal_core.models.calling import Request
from refusal_core.models.layouts import call_shape, video_rows
from refusal_core.models.model import Model
from refusal_core.models.recording import (
    Call,
    batches,
    listen,
    read_run,
    record,
    smallest_video,
    text_of,
    valid_rows,
)
from refusal_core.models.sites import Site
from refusal_core.progress import Progress
from refusal_core.reading.kept import NeutralReading, Rows, blocks, reading_key
from refusal_core.settings import CaptureSettings, SamplingSettings

SHORT_FRAMES = 5  # where the decoder makes one frame of each latent one
_FRAMES_A_LATENT = (
    "vae_scale_factor_temporal",
    "vae_temporal_compression_ratio",
    "vae_temporal_scale_factor",
)
# Settings that decide no rows of given neutral prompts.
BESIDE = ("kinds", "layers", "trajectory", "pair_rows", "neutral", "neutral_count", "keep", "target")
FEWEST_STEPS = 3  # of a schedule; of one or two all that is read is near pure noise


@dataclass(frozen=True, slots=True)
class Clip:
    """What capture runs: the size and steps of its video, and the calls at which it reads."""

    sampling: SamplingSettings
    chosen: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PairedPrompts:
    """The two prompts of each pair, and the images that they start from."""

    unsafe: Sequence[str]
    safe: Sequence[str]
    images: Sequence[tuple[Path | None, Path | None]]  # unsafe and safe

    def sides(self) -> list[tuple[str, Path | None]]:
        """Return all unsafe prompts with their images, then all safe ones."""
        prompts = ((self.unsafe, 0), (self.safe, 1))
        return [(text, own[i]) for texts, i in prompts for text, own in zip(texts, self.images, strict=True)]


def chosen_steps(count: int, total: int) -> list[int]:
    """Return ``count`` step indices spread evenly over ``total`` steps; all, where fewer are taken."""
    count = min(count, total)
    return sorted({round((i + 0.5) * total / count - 0.5) for i in range(count)})


def short_clip(model: Model, settings: CaptureSettings) -> SamplingSettings:
    """Return the size and the steps of the video on which these settings read a model.

    On the bundled models steps beyond those that are read change nothing, and few frames next to nothing,
    while a smaller picture gives other directions: `bench --capture` prints how much.
    """
    return SamplingSettings(
        steps=schedule_steps(settings, model.defaults.steps, len(model.denoisers)),
        frames=settings.frames or short_frames(model),
        height=settings.height,
        width=settings.width,
    )


def schedule_steps(settings: CaptureSettings, own: int, experts: int) -> int:
    """Return the steps of a capture's schedule: as many as are read, never more than the model's own."""
    return settings.steps or min(own, max(FEWEST_STEPS, settings.timesteps * experts))


def passes(settings: CaptureSettings, own: int, experts: int) -> tuple[int, int]:
    """Return the denoiser's passes of one prompt's run, and of the unsafe prompt of its pair.

    Args:
        settings: of the capture.
        own: steps of the model's own schedule.
        experts: denoisers that take turns.
    """
    steps = schedule_steps(settings, own, experts)
    chosen = chosen_steps(settings.timesteps * experts, steps)
    run = chosen[-1] + 1
    return run, run if settings.trajectory == "own" else len(chosen)


def video_bytes(sites: Sequence[Site], settings: CaptureSettings) -> int:
    """Return what the rows of sites on the video's side take at most."""
    rows = 4 * (2 * settings.pair_rows + settings.neutral_rows)
    return sum(rows * site.inputs for site in sites)


def short_frames(model: Model) -> int:
    """Return the fewest frames of two latent frames; all, where a denoiser takes no other number."""
    if model.piece_frames:  # two pieces: the second sees the first
        return min(model.defaults.frames, 2 * model.piece_frames)
    if any("video_length" in getattr(d, "config", {}) for d in model.denoisers):  # Latte's positions
        return model.defaults.frames
    ratios = [getattr(model.pipeline, name, None) for name in _FRAMES_A_LATENT]
    return min(model.defaults.frames, 1 + int(next((r for r in ratios if r), SHORT_FRAMES - 1)))


def plan(model: Model, sites: Sequence[Site], settings: CaptureSettings) -> Clip:
    """Return what is run and read; of two experts, each is read at steps of its own.

    Of a video that is made piece by piece the first two are read, at the same steps: one that sees nothing
    of earlier pieces, and one that does.

    Raises:
        InputError: one of the experts takes none of the steps.
    """
    sampling = short_clip(model, settings)
    steps = sampling.steps or 1
    if len(model.denoisers) == 1:
        of_piece = chosen_steps(settings.timesteps, steps)
        pieces = min(2, model.pieces(sampling.frames or model.defaults.frames))
        return Clip(sampling, tuple(piece * steps + step for piece in range(pieces) for step in of_piece))
    # Which expert takes which step depends on the schedule alone.
    smallest = replace(smallest_video(model, sites), steps=steps)
    took = [call.denoiser for call in record(model, ["a"], [0], smallest, 0, None)]
    chosen: list[int] = []
    for denoiser in model.denoisers:
        own = [i for i, other in enumerate(took) if other is denoiser]
        if not own:
            raise InputError(f"One of the model's experts takes no step out of {steps}; raise capture_steps.")
        chosen += [own[i] for i in chosen_steps(settings.timesteps, len(own))]
    return Clip(sampling, tuple(sorted(chosen)))


class _Reader:
    """Reads runs of one clip, and keeps the rows of each site, prompt after prompt."""

    def __init__(self, model: Model, sites: Sequence[Site], settings: CaptureSettings, clip: Clip) -> None:
        self._model, self._sites, self._settings, self._clip = model, sites, settings, clip
        self._rows: dict[Site, list[Tensor]] = {}
        self._share = 1  # of rows that one prompt gives at one step

    def keep_about(self, most: int, prompts: int) -> None:
        """Keep about ``most`` rows a site of so many prompts, as many of each prompt at each step."""
        reads = prompts * len(self._clip.chosen) // len(self._model.denoisers)
        self._share = max(1, math.ceil(most / max(1, reads)))

    def run(self, prompts: Sequence[str], seeds: Sequence[int], image: Path | None = None) -> list[Call]:
        """Run prompts and keep what is read on the way; return the calls that were read."""
        steps: dict[Site, list[Tensor]] = {}
        tokens = self._model.tokens(prompts)

        def read(call: Call, site: Site, x: Tensor) -> None:
            parts = steps.setdefault(site, [])
            parts.append(self._pooled(call, site, x, tokens, [(s, len(parts)) for s in seeds]))

        request = Request(prompts, seeds, self._clip.sampling, False, "latent", image)
        calls = read_run(self._model, request, self._clip.chosen, self._sites, read)
        self._keep(steps)
        return calls

    def repeat(
        self, calls: Sequence[Call], prompts: Sequence[str], seeds: Sequence[int], image: Path | None
    ) -> None:
        """Repeat the calls of a run with the text of other prompts, and keep what is read."""
        text = text_of(self._model, prompts, image, self._clip.sampling)
        tokens = self._model.tokens(prompts)
        steps: dict[Site, list[Tensor]] = {}
        for call in calls:
            other = Call(call.denoiser, call.arguments | text)
            for site, x in listen(other, self._model, self._sites).items():
                parts = steps.setdefault(site, [])
                parts.append(self._pooled(other, site, x, tokens, [(s, len(parts)) for s in seeds]))
        self._model.free()
        self._keep(steps)

    def rows(self, site: Site) -> Tensor:
        """Return [prompts, rows, H] of a site: steps after one another, or their mean; it is let go here."""
        return torch.cat(self._rows.pop(site))

    def _keep(self, steps: Mapping[Site, list[Tensor]]) -> None:
        for site, parts in steps.items():
            pair = self._settings.pool == "pair"
            self._rows.setdefault(site, []).append(
                torch.stack(parts).mean(0) if pair else torch.cat(parts, 1)
            )

    def _pooled(
        self, call: Call, site: Site, x: Tensor, tokens: Sequence[list[int]], draws: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Return [B, rows, H] of one step: one row a frame, a step or a token; text rows as their mean,
        with that of learned tokens as another row.

        Of more rows than are kept of a prompt and a step, a draw by its seed and number decides.
        """
        model, pool, layout = self._model, self._settings.pool, self._model.layouts[site.name]
        x = x.detach()
        if layout == "text-stream":
            own = valid_rows(model, call, (x.shape[0], x.shape[1]), tokens).to(x.device)
            kept = (own, ~own) if model.family.registers else (own,)
            return torch.cat([_mean(x.float(), rows[..., None]) for rows in kept], 1).cpu()
        shape = call_shape(model.family, call.denoiser, call.arguments, len(tokens))
        rows = video_rows(x, layout, shape)  # [B, F, S, H]
        if pool != "token":
            rows = rows.float().mean(2, keepdim=True)
        rows = rows.flatten(1, 2)
        if pool in ("timestep", "pair"):
            return rows.mean(1, keepdim=True).cpu()
        if rows.shape[1] > self._share:
            picked = [drawn(draw, rows.shape[1], self._share).to(x.device) for draw in draws]
            rows = torch.stack([own[index] for own, index in zip(rows, picked, strict=True)])
        return rows.float().cpu()


def _mean(x: Tensor, kept: Tensor) -> Tensor:
    """Return [B, 1, H], the mean of the rows that are kept; x [B, T, H], kept [B, T, 1] bool."""
    return (x * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)


@lru_cache(maxsize=64)  # all sites of a call draw alike
def drawn(draw: tuple[int, int], count: int, kept: int) -> Tensor:
    """Return which of ``count`` rows are kept, in their order: each as likely as any other."""
    generator = torch.Generator().manual_seed((draw[0] << 16) + draw[1])
    return torch.randperm(count, generator=generator)[:kept].sort().values


def _cut(count: int, most: int, settings: CaptureSettings) -> Tensor:
    """Return which rows stay where more were read than are to be kept."""
    kept = min(count, most)
    return drawn((settings.seed, 1 << 15), count, kept) if kept < count else torch.arange(count)


def paired_rows(
    model: Model, prompts: PairedPrompts, sites: Sequence[Site], settings: CaptureSettings, progress: Progress
) -> dict[Site, Twins]:
    """Return the rows of the pairs at each site."""
    clip = plan(model, sites, settings)
    unsafe, safe = (_Reader(model, sites, settings, clip) for _ in range(2))
    for reader in (unsafe, safe):
        reader.keep_about(settings.pair_rows, len(prompts.safe))
    for batch in batches(model, range(len(prompts.safe))):
        seeds = [settings.seed + i for i in batch]
        images = prompts.images[batch.start]  # one prompt a batch where there are images
        calls = safe.run([prompts.safe[i] for i in batch], seeds, images[1])
        texts = [prompts.unsafe[i] for i in batch]
        # Another image is another video: there is no x_t that both share.
        if settings.trajectory == "own" or images[0] != images[1]:
            unsafe.run(texts, seeds, images[0])
        else:
            unsafe.repeat(calls, texts, seeds, images[0])
        progress(batch.stop / len(prompts.safe), f"Reading pairs, {batch.stop} of {len(prompts.safe)}")
    made = {}
    for site in sites:
        left, right = unsafe.rows(site), safe.rows(site)
        pair = torch.arange(len(left)).repeat_interleave(left.shape[1])
        kept = _cut(len(pair), settings.pair_rows, settings)
        made[site] = Twins(left.flatten(0, 1)[kept], right.flatten(0, 1)[kept], pair[kept])
    return made


def neutral_reading(
    model: Model, prompts: Sequence[str], sites: Sequence[Site], settings: CaptureSettings
) -> NeutralReading:
    """Return how the rows of neutral prompts at each site are read, [m, H]."""
    clip = cache(lambda: plan(model, sites, settings))

    def read(block: range, progress: Progress) -> Rows:
        reader = _Reader(model, sites, settings, clip())
        reader.keep_about(settings.neutral_rows, len(prompts))
        for batch in batches(model, block):
            reader.run([prompts[i] for i in batch], [settings.seed + 1000 + i for i in batch])
            told = f"Reading neutral prompts, {batch.stop} of {len(prompts)}"
            progress((batch.stop - block.start) / len(block), told)
        return {site: reader.rows(site).flatten(0, 1) for site in sites}

    what = {name: value for name, value in asdict(settings).items() if name not in BESIDE}
    return NeutralReading(
        reading_key(model, prompts, what),
        sites,
        blocks(model, len(prompts)),
        read,
        lambda rows: rows[_cut(len(rows), settings.neutral_rows, settings)],
    )
