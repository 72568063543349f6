"""Capture: read what enters each site while the model sees unsafe, safe and neutral prompts.

There is no denoising loop here: the real pipeline runs, and its calls of the denoiser are recorded.
Some of them are then repeated with hooks that listen, up to the deepest site. With shared latents the
unsafe prompt's text takes the place of the safe prompt's in these calls, so that both see the same
noisy video and differ by the condition alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refusal_core.activations import Activations, Samples
from refusal_core.concepts import Concept
from refusal_core.errors import InputError, MemoryLimitError
from refusal_core.hooks import StopForward, tap
from refusal_core.keeping import with_further
from refusal_core.models.calling import Request, call_pipeline, check_prompts
from refusal_core.models.compiling import uncompiled
from refusal_core.models.layouts import call_shape, text_rows, video_rows
from refusal_core.models.model import Model
from refusal_core.models.sites import Site, select
from refusal_core.progress import Progress, part, silent
from refusal_core.settings import CaptureSettings, Pool, SamplingSettings

logger = logging.getLogger(__name__)
SMALL_BATCH, LARGE_BATCH = 32, 1


def capture(
    model: Model,
    concept: Concept,
    settings: CaptureSettings | None = None,
    *,
    progress: Progress = silent,
) -> Activations:
    """Record the activations of a concept's pairs and neutral prompts.

    Args:
        model: a loaded model; it is not changed.
        concept: pairs and neutral prompts.
        settings: sites, layers, pooling, timesteps, trajectory, seed.
        progress: told after each batch; may raise ``Cancelled``, which leaves no hook behind.

    Returns:
        Rows for every chosen site.

    Raises:
        InputError: a prompt is empty or too long for the model.
        SiteError: no site is left by the choice of kinds and layers.
    """
    settings = settings or CaptureSettings()
    sites = select(model.sites, settings.kinds, settings.layers)
    text = [s for s in sites if model.layouts[s.name] == "text"]
    video = [s for s in sites if model.layouts[s.name] != "text"]
    prompts = _Prompts(
        check_prompts(model, (p.unsafe for p in concept.pairs)),
        check_prompts(model, (p.safe for p in concept.pairs)),
        check_prompts(model, concept.neutral) if concept.neutral else [],
        [(p.unsafe_image, p.safe_image) for p in concept.pairs],
    )
    samples: dict[Site, Samples] = {}
    try:
        with model.lock, torch.inference_mode():
            if text:
                samples |= _text_samples(model, prompts, text, part(progress, 0, 0.3 if video else 1))
            if video:
                rest = part(progress, 0.3 if text else 0, 1)
                samples |= _video_samples(model, prompts, video, settings, rest)
    except (torch.OutOfMemoryError, MemoryError) as e:
        raise MemoryLimitError(
            "Too little memory to read activations; take fewer layers or timesteps, or offload the model."
        ) from e
    progress(1.0, "Activations are ready")
    ordered = {site: samples[site] for site in sites}
    pairs = tuple((p.unsafe, p.safe) for p in concept.pairs)
    seen = Activations(model.fingerprint, concept.name, pairs, settings, ordered)
    return with_further(seen, concept, lambda other, plain: capture(model, other, plain, progress=progress))


@dataclass(frozen=True, slots=True)
class _Prompts:
    unsafe: list[str]
    safe: list[str]
    neutral: list[str]
    images: list[tuple[Path | None, Path | None]]  # of each pair, unsafe and safe


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One forward of a denoiser, as the pipeline made it."""

    denoiser: nn.Module
    arguments: dict[str, Any]


def _record(
    model: Model,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    limit: int,
    image: Path | None,
) -> list[_Call]:
    """Run the real pipeline without guidance and return the denoiser calls it makes, ``limit`` at most."""
    calls: list[_Call] = []

    def before(denoiser: nn.Module, arguments: dict[str, Any]) -> None:
        calls.append(_Call(denoiser, arguments))
        if len(calls) == limit:
            raise StopForward

    with suppress(StopForward):
        call_pipeline(model, Request(prompts, seeds, settings, False, "latent", image), before)
    return calls


# Two steps, not one: Mochi's schedule divides by half of them.
_FULL_SIZE = SamplingSettings(steps=2)


def _first_call(
    model: Model, prompts: Sequence[str], image: Path | None, settings: SamplingSettings = _FULL_SIZE
) -> _Call:
    """Return the first denoiser call of a run on these prompts; the run goes no further."""
    return _record(model, prompts, [0] * len(prompts), settings, 1, image)[0]


def first_call(model: Model, prompts: Sequence[str]) -> dict[str, Any]:
    """Return what the pipeline hands to its denoiser at the first step of these prompts."""
    with torch.inference_mode():
        return _copied(_first_call(model, prompts, None).arguments)


def record_calls(model: Model, prompts: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return what the pipeline hands to its denoiser at every step of a run without guidance."""
    with torch.inference_mode():
        calls = _record(model, prompts, seeds, SamplingSettings(), 0, None)
    return [_copied(call.arguments) for call in calls]


def _copied(arguments: dict[str, Any]) -> dict[str, Any]:
    # Tensors made in inference mode cannot take part in a backward pass; their copies can.
    return {name: value.clone() if torch.is_tensor(value) else value for name, value in arguments.items()}


def _listen(call: _Call, model: Model, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """Repeat a call and return what enters the sites of its denoiser; stop after the deepest one."""
    names = {id(d): name for d, name in zip(model.denoisers, model.denoiser_names, strict=True)}
    inside = {s.name: s for s in sites if s.name.startswith(f"{names[id(call.denoiser)]}.")}
    seen: dict[Site, Tensor] = {}

    def read(name: str, x: Tensor) -> None:
        seen[inside[name]] = x  # the tensor itself: identity tells which sites share their input
        if len(seen) == len(inside):
            raise StopForward

    if inside:
        with uncompiled(), tap({name: model.layers[name] for name in inside}, read), suppress(StopForward):
            call.denoiser(**call.arguments)
    return seen


def _batches(model: Model, count: int) -> list[range]:
    size = SMALL_BATCH if model.is_small and model.takes_batches else LARGE_BATCH
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _valid_rows(model: Model, call: _Call, shape: tuple[int, int], tokens: Sequence[list[int]]) -> Tensor:
    """Return [B, T] bool: the text rows that are no padding."""
    mask = call.arguments.get("encoder_attention_mask")
    if torch.is_tensor(mask) and mask.numel() == shape[0] * shape[1]:
        return mask.reshape(shape).bool().cpu()
    if model.family.templated:
        return torch.ones(shape, dtype=torch.bool)
    lengths = torch.tensor([len(t) for t in tokens])
    return torch.arange(shape[1])[None] < lengths[:, None]


# --- text side: one forward of the text encoder suffices, as its output sees no timestep ------------


def smallest_video(model: Model, sites: Sequence[Site]) -> SamplingSettings:
    """Return the size of the smallest video whose forward reaches all these text-side sites.

    Their input does not depend on the video, so that any will do: on Wan 2.1 1.3B a forward on one
    frame of 16 x 16 costs 1/1800 of one at full size. What a network takes is not written anywhere, so
    it is tried, smallest first.
    """
    for frames in (1, None):
        for side in (16, 32, 64, 128):
            settings = SamplingSettings(steps=2, frames=frames, width=side, height=side)
            try:
                call = _first_call(model, ["a"], None, settings)
                reached = [_listen(_Call(d, call.arguments), model, sites) for d in model.denoisers]
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # each network fails in its own way where a side is too small for it
                logger.debug("no forward at %s x %s, %s frames", side, side, frames, exc_info=True)
                continue
            if sum(map(len, reached)) == len(sites):
                return settings
    return _FULL_SIZE


def _text_samples(
    model: Model, prompts: _Prompts, sites: Sequence[Site], progress: Progress
) -> dict[Site, Samples]:
    everything = prompts.unsafe + prompts.safe + prompts.neutral
    size = smallest_video(model, sites)
    tokens: list[list[int]] = []  # of each prompt, padding left out
    rows: dict[Site, list[Tensor]] = {}  # [tokens, H] of each prompt
    shares: dict[Site, Site] = {}  # a site -> the first site with the very same input
    for batch in _batches(model, len(everything)):
        chunk = [everything[i] for i in batch]
        part_tokens = model.tokens(chunk)
        call = _first_call(model, chunk, None, size)
        for denoiser in model.denoisers:  # a second expert has a text entry of its own
            first_of: dict[int, Site] = {}
            for site, x in _listen(_Call(denoiser, call.arguments), model, sites).items():
                first = first_of.setdefault(id(x), site)
                shares.setdefault(site, first)
                if first is site:
                    rows.setdefault(site, []).extend(_prompt_rows(model, call, x, part_tokens))
        model.free()  # the text encoder comes next, and may need the room
        tokens += [[0]] * len(chunk) if model.family.templated else part_tokens
        progress(batch.stop / len(everything), f"Reading text activations, {batch.stop} of {len(everything)}")
    made = {first: _aligned(rows[first], tokens, len(prompts.unsafe)) for first in set(shares.values())}
    return {site: made[shares[site]] for site in sites}


def _prompt_rows(model: Model, call: _Call, x: Tensor, tokens: list[list[int]]) -> list[Tensor]:
    """Return the text rows of each prompt: one a token, or their mean where a template hides the tokens."""
    rows = text_rows(x, len(tokens)).float().cpu()
    valid = _valid_rows(model, call, (rows.shape[0], rows.shape[1]), tokens)
    kept = [own[mask].clone() for own, mask in zip(rows, valid, strict=True)]
    return [own.mean(0, keepdim=True) for own in kept] if model.family.templated else kept


def _aligned(rows: list[Tensor], tokens: list[list[int]], pairs: int) -> Samples:
    """Return the samples of a site from the rows of unsafe, safe and neutral prompts, in this order."""
    n = pairs
    twins = [_twin_rows(rows[i], rows[n + i], tokens[i], tokens[n + i]) for i in range(n)]
    return Samples(
        unsafe=torch.cat([u for u, _ in twins]),
        safe=torch.cat([s for _, s in twins]),
        neutral=torch.cat([rows[0][:0], *rows[2 * n :]]),
        pair_of_row=torch.cat([torch.full((len(u),), i) for i, (u, _) in enumerate(twins)]),
        by_token=True,
    )


def _twin_rows(
    unsafe: Tensor, safe: Tensor, unsafe_tokens: list[int], safe_tokens: list[int]
) -> tuple[Tensor, Tensor]:
    """Align the tokens of a pair: a word in both prompts with itself, a word that only the unsafe
    prompt has with the safe prompt's mean. Words that only the safe prompt has are left out.
    """
    mean = safe.mean(0)
    left, right = [], []
    matcher = SequenceMatcher(None, safe_tokens, unsafe_tokens, autojunk=False)
    for tag, s0, s1, u0, u1 in matcher.get_opcodes():
        if tag == "delete":
            continue
        for offset in range(u1 - u0):
            left.append(unsafe[u0 + offset])
            right.append(safe[s0 + offset] if tag == "equal" and s0 + offset < s1 else mean)
    return torch.stack(left), torch.stack(right)


# --- video side ------------------------------------------------------------------------------------


def _video_samples(
    model: Model, prompts: _Prompts, sites: Sequence[Site], settings: CaptureSettings, progress: Progress
) -> dict[Site, Samples]:
    total = len(prompts.unsafe) + len(prompts.safe) + len(prompts.neutral)
    rows: dict[str, dict[Site, list[Tensor]]] = {"unsafe": {}, "safe": {}, "neutral": {}}
    done = 0

    def keep(side: str, calls: Sequence[_Call], texts: Sequence[str]) -> None:
        nonlocal done
        for site, read in _pooled(model, calls, sites, settings, texts).items():
            rows[side].setdefault(site, []).append(read)
        done += len(texts)
        progress(done / total, f"Reading video activations, {done} of {total} prompts")

    for batch in _batches(model, len(prompts.safe)):
        seeds = [settings.seed + i for i in batch]
        unsafe, safe = [prompts.unsafe[i] for i in batch], [prompts.safe[i] for i in batch]
        unsafe_image, safe_image = prompts.images[batch.start]  # one prompt a batch where there are images
        calls = _chosen_calls(model, safe, seeds, settings, safe_image)
        keep("safe", calls, safe)
        # Another image is another video: there is no x_t that both share.
        if settings.trajectory == "own" or unsafe_image != safe_image:
            keep("unsafe", _chosen_calls(model, unsafe, seeds, settings, unsafe_image), unsafe)
        else:
            text = _text_arguments(model, unsafe, unsafe_image)
            keep("unsafe", [_Call(c.denoiser, c.arguments | text) for c in calls], unsafe)
    for batch in _batches(model, len(prompts.neutral)):
        seeds = [settings.seed + 1000 + i for i in batch]
        neutral = [prompts.neutral[i] for i in batch]
        keep("neutral", _chosen_calls(model, neutral, seeds, settings, None), neutral)
    return {s: _join(rows, s) for s in sites}


def _join(rows: Mapping[str, Mapping[Site, list[Tensor]]], site: Site) -> Samples:
    unsafe, safe = torch.cat(rows["unsafe"][site]), torch.cat(rows["safe"][site])
    neutral = rows["neutral"].get(site)
    return Samples(
        unsafe.flatten(0, 1),
        safe.flatten(0, 1),
        torch.cat(neutral).flatten(0, 1) if neutral else torch.empty(0, site.inputs),
        torch.arange(len(unsafe)).repeat_interleave(unsafe.shape[1]),
        by_token=False,
    )


def chosen_steps(count: int, total: int) -> list[int]:
    """Return ``count`` step indices spread evenly over ``total`` steps; all, where fewer are taken."""
    count = min(count, total)
    return sorted({round((i + 0.5) * total / count - 0.5) for i in range(count)})


def _chosen_calls(
    model: Model, prompts: list[str], seeds: list[int], settings: CaptureSettings, image: Path | None
) -> list[_Call]:
    """Return the denoiser calls at the chosen steps; of two experts, each its own."""
    steps = model.defaults.steps
    chosen = chosen_steps(settings.timesteps, steps)
    if len(model.denoisers) == 1:
        calls = _record(model, prompts, seeds, SamplingSettings(), chosen[-1] + 1, image)
        return [calls[i] for i in chosen]
    calls = _record(model, prompts, seeds, SamplingSettings(), 0, image)
    picked = []
    for denoiser in model.denoisers:
        own = [c for c in calls if c.denoiser is denoiser]
        if not own:
            raise InputError(f"One of the model's experts takes no step out of {steps}; ask for more steps.")
        picked += [own[i] for i in chosen_steps(settings.timesteps, len(own))]
    return picked


def _pooled(
    model: Model,
    calls: Sequence[_Call],
    sites: Sequence[Site],
    settings: CaptureSettings,
    prompts: Sequence[str],
) -> dict[Site, Tensor]:
    """Return [B, rows, H] of each site: steps after one another, or their mean for the pool ``pair``."""
    tokens = model.tokens(prompts)
    steps: dict[Site, list[Tensor]] = {}
    for call in calls:
        for site, x in _listen(call, model, sites).items():
            steps.setdefault(site, []).append(_pool(model, call, site, x, tokens, settings.pool))
    model.free()
    if settings.pool == "pair":
        return {site: torch.stack(pieces).mean(0) for site, pieces in steps.items()}
    return {site: torch.cat(pieces, 1) for site, pieces in steps.items()}


def _pool(
    model: Model, call: _Call, site: Site, x: Tensor, tokens: Sequence[list[int]], pool: Pool
) -> Tensor:
    """Return [B, rows, H] of one step: one row a frame, a step or a token; text rows as their mean."""
    layout = model.layouts[site.name]
    x = x.detach().float()
    if layout == "text-stream":
        valid = _valid_rows(model, call, (x.shape[0], x.shape[1]), tokens).to(x)[..., None]
        return ((x * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)).cpu()
    shape = call_shape(model.family, call.denoiser, call.arguments, len(tokens))
    rows = video_rows(x, layout, shape)  # [B, F, S, H]
    if pool == "token":
        return rows.flatten(1, 2).cpu()
    rows = rows.mean(2)
    return (rows if pool == "frame" else rows.mean(1, keepdim=True)).cpu()


def _text_arguments(model: Model, prompts: list[str], image: Path | None) -> dict[str, Any]:
    """Return what the pipeline hands to its denoiser for the text of these prompts."""
    arguments = _first_call(model, prompts, image).arguments
    return {name: arguments[name] for name in model.family.text_arguments if name in arguments}
