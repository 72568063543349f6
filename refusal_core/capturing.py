"""Capture: read what enters each site while the model sees unsafe, safe and neutral prompts.

There is no denoising loop here: the real pipeline runs, and hooks listen. With shared latents the
calls that the safe prompt makes are recorded and replayed with the unsafe prompt's text, so that
both see the same noisy video and differ by the condition alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor

from refusal_core.activations import Activations, Samples
from refusal_core.concepts import Concept
from refusal_core.errors import InputError
from refusal_core.hooks import StopForward, tap, watch_calls
from refusal_core.models.load import Model
from refusal_core.models.prompts import check_prompts
from refusal_core.models.sites import Site, select
from refusal_core.progress import Progress, part, silent
from refusal_core.settings import CaptureSettings, Pool

TEXT_KINDS = ("text-entry", "text")
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
    text = [s for s in sites if s.kind in TEXT_KINDS]
    video = [s for s in sites if s.kind not in TEXT_KINDS]
    prompts = _Prompts(
        check_prompts(model, (p.unsafe for p in concept.pairs)),
        check_prompts(model, (p.safe for p in concept.pairs)),
        check_prompts(model, concept.neutral) if concept.neutral else [],
    )
    middle = 0.3 if video else 1.0
    found: dict[Site, Samples] = {}
    with torch.inference_mode():
        if text:
            found |= _text_samples(model, prompts, text, part(progress, 0, middle if video else 1))
        if video:
            found |= _video_samples(model, prompts, video, settings, part(progress, 0.3 if text else 0, 1))
    progress(1.0, "Activations are ready")
    ordered = {site: found[site] for site in sites}
    pairs = tuple((p.unsafe, p.safe) for p in concept.pairs)
    return Activations(model.fingerprint, concept.name, pairs, settings, ordered)


@dataclass(frozen=True, slots=True)
class _Prompts:
    unsafe: list[str]
    safe: list[str]
    neutral: list[str]


def _run(model: Model, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> None:
    """Run the real pipeline without guidance: every row of every pass is then conditional."""
    d = model.defaults
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    model.pipeline(
        prompt=list(prompts),
        height=d.height,
        width=d.width,
        num_frames=d.frames,
        num_inference_steps=steps,
        guidance_scale=1.0,
        generator=generators,
        output_type="latent",
        max_sequence_length=d.text_length,
    )


def _batches(model: Model, count: int) -> list[range]:
    size = SMALL_BATCH if model.is_small else LARGE_BATCH
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


# --- text side: one forward of the text encoder suffices, as its output sees no timestep ------------


@dataclass(frozen=True, slots=True)
class _TextRows:
    tokens: list[list[int]]  # of each prompt, padding left out
    rows: dict[Site, list[Tensor]]  # [tokens, H] of each prompt
    shares: dict[Site, Site]  # a site -> the first site with the very same input


def _text_samples(
    model: Model, prompts: _Prompts, sites: Sequence[Site], progress: Progress
) -> dict[Site, Samples]:
    everything = prompts.unsafe + prompts.safe + prompts.neutral
    found = _text_rows(model, everything, sites, progress)
    n = len(prompts.unsafe)
    made: dict[Site, Samples] = {}
    for site in sites:
        first = found.shares[site]
        if first not in made:
            rows = found.rows[first]
            twins = [_twin_rows(rows[i], rows[n + i], found.tokens[i], found.tokens[n + i]) for i in range(n)]
            made[first] = Samples(
                unsafe=torch.cat([u for u, _ in twins]),
                safe=torch.cat([s for _, s in twins]),
                neutral=torch.cat([rows[0][:0], *rows[2 * n :]]),
                pair_of_row=torch.cat([torch.full((len(u),), i) for i, (u, _) in enumerate(twins)]),
                by_token=True,
            )
    return {site: made[found.shares[site]] for site in sites}


def _text_rows(model: Model, prompts: Sequence[str], sites: Sequence[Site], progress: Progress) -> _TextRows:
    layers = {s.name: model.layers[s.name] for s in sites}
    by_name = {s.name: s for s in sites}
    found = _TextRows([], {}, {})
    for batch in _batches(model, len(prompts)):
        chunk = [prompts[i] for i in batch]
        tokens = [list(t) for t in model.pipeline.tokenizer(chunk).input_ids]
        seen: dict[str, Tensor] = {}

        def read(name: str, x: Tensor, seen: dict[str, Tensor] = seen) -> None:
            seen[name] = x  # the tensor itself: identity tells which sites share their input
            if len(seen) == len(layers):
                raise StopForward

        with tap(layers, read):
            try:
                _run(model, chunk, [0] * len(chunk), steps=1)
            except StopForward:
                pass
        first_of: dict[int, Site] = {}
        for name, x in seen.items():
            site = by_name[name]
            first = first_of.setdefault(id(x), site)
            found.shares.setdefault(site, first)
            if first is site:
                pieces = x.float().cpu()
                found.rows.setdefault(site, []).extend(
                    pieces[i, : len(t)].clone() for i, t in enumerate(tokens)
                )
        found.tokens.extend(tokens)
        progress((batch.stop) / len(prompts), f"Reading text activations, {batch.stop} of {len(prompts)}")
    return found


def _twin_rows(
    unsafe: Tensor, safe: Tensor, unsafe_tokens: list[int], safe_tokens: list[int]
) -> tuple[Tensor, Tensor]:
    """Align the tokens of a pair: a word in both prompts with itself, a word that only the unsafe
    prompt has with the safe prompt's mean. Words that only the safe prompt has are left out.
    """
    mean = safe.mean(0)
    left, right = [], []
    for tag, s0, s1, u0, u1 in SequenceMatcher(
        None, safe_tokens, unsafe_tokens, autojunk=False
    ).get_opcodes():
        if tag == "delete":
            continue
        for offset in range(u1 - u0):
            left.append(unsafe[u0 + offset])
            right.append(safe[s0 + offset] if tag == "equal" and s0 + offset < s1 else mean)
    return torch.stack(left), torch.stack(right)


# --- video side ------------------------------------------------------------------------------------


class _Reader:
    """Pools what enters the sites at the chosen denoising steps."""

    def __init__(self, model: Model, sites: Sequence[Site], pool: Pool, steps: Sequence[int]) -> None:
        self.layers = {s.name: model.layers[s.name] for s in sites}
        self.rows: dict[str, list[Tensor]] = {s.name: [] for s in sites}  # [B, rows a step, H] a step
        self.calls: list[dict[str, Any]] = []  # the denoiser's arguments at the chosen steps
        self._pool, self._steps, self._step = pool, set(steps), -1
        self._last = max(steps)
        self._frames, self._patch = 1, model.denoisers[0].config.patch_size[0]
        self._active, self._missing = False, 0

    def before_call(self, kwargs: dict[str, Any]) -> None:
        """Note a denoiser call and whether it is one of the chosen steps."""
        self._step += 1
        self._active = self._step in self._steps
        self._missing = len(self.layers)
        self._frames = kwargs["hidden_states"].shape[2] // self._patch
        if self._active:
            self.calls.append(kwargs)

    def read(self, name: str, x: Tensor) -> None:
        """Keep the pooled input of a site; stop the pass after the last one that is wanted."""
        if not self._active:
            return
        rows = x.detach().float()
        if self._pool != "token":
            rows = rows.unflatten(1, (self._frames, -1)).mean(2)
        if self._pool in ("timestep", "pair"):
            rows = rows.mean(1, keepdim=True)
        self.rows[name].append(rows.cpu())
        self._missing -= 1
        if self._missing == 0 and self._step == self._last:
            raise StopForward

    def pooled(self, name: str) -> Tensor:
        """Return [B, rows, H]: steps after one another, or their mean for the pool ``pair``."""
        steps = torch.stack(self.rows[name], dim=1)
        return steps.mean(1) if self._pool == "pair" else steps.flatten(1, 2)


def _video_samples(
    model: Model, prompts: _Prompts, sites: Sequence[Site], settings: CaptureSettings, progress: Progress
) -> dict[Site, Samples]:
    total = len(prompts.unsafe) + len(prompts.safe) + len(prompts.neutral)
    rows: dict[str, dict[str, list[Tensor]]] = {s.name: {"u": [], "s": [], "e": []} for s in sites}
    done = 0

    def keep(side: str, reader: _Reader, count: int) -> None:
        nonlocal done
        for name in reader.layers:
            rows[name][side].append(reader.pooled(name))
        done += count
        progress(done / total, f"Reading video activations, {done} of {total} prompts")

    for batch in _batches(model, len(prompts.safe)):
        seeds = [settings.seed + i for i in batch]
        safe = _watch(model, [prompts.safe[i] for i in batch], seeds, sites, settings)
        keep("s", safe, len(batch))
        unsafe_prompts = [prompts.unsafe[i] for i in batch]
        if settings.trajectory == "own":
            unsafe = _watch(model, unsafe_prompts, seeds, sites, settings)
        else:
            unsafe = _replay(model, safe.calls, unsafe_prompts, sites, settings)
        keep("u", unsafe, len(batch))
    for batch in _batches(model, len(prompts.neutral)):
        seeds = [settings.seed + 1000 + i for i in batch]
        keep("e", _watch(model, [prompts.neutral[i] for i in batch], seeds, sites, settings), len(batch))
    return {s: _join(rows[s.name], s.inputs) for s in sites}


def _join(rows: Mapping[str, list[Tensor]], width: int) -> Samples:
    unsafe, safe = torch.cat(rows["u"]), torch.cat(rows["s"])
    neutral = torch.cat(rows["e"]).flatten(0, 1) if rows["e"] else torch.empty(0, width)
    pair_of_row = torch.arange(len(unsafe)).repeat_interleave(unsafe.shape[1])
    return Samples(unsafe.flatten(0, 1), safe.flatten(0, 1), neutral, pair_of_row, by_token=False)


def chosen_steps(count: int, total: int) -> list[int]:
    """Return ``count`` step indices spread evenly over ``total`` denoising steps."""
    if count > total:
        raise InputError(f"{count} timesteps asked, the model takes {total} steps; ask for fewer.")
    return sorted({round((i + 0.5) * total / count - 0.5) for i in range(count)})


def _watch(
    model: Model, prompts: list[str], seeds: list[int], sites: Sequence[Site], settings: CaptureSettings
) -> _Reader:
    """Run the pipeline on the prompts and read the sites on the way."""
    reader = _Reader(model, sites, settings.pool, chosen_steps(settings.timesteps, model.defaults.steps))
    with watch_calls(model.denoisers, reader.before_call), tap(reader.layers, reader.read):
        try:
            _run(model, prompts, seeds, model.defaults.steps)
        except StopForward:
            model.pipeline.maybe_free_model_hooks()
    return reader


def _replay(
    model: Model,
    calls: Sequence[dict[str, Any]],
    prompts: list[str],
    sites: Sequence[Site],
    settings: CaptureSettings,
) -> _Reader:
    """Repeat recorded denoiser calls with the text of other prompts."""
    text = _text_arguments(model, prompts)
    reader = _Reader(model, sites, settings.pool, range(len(calls)))
    with watch_calls(model.denoisers, reader.before_call), tap(reader.layers, reader.read):
        for call in calls:
            try:
                model.denoisers[0](**(call | text))
            except StopForward:
                break
    return reader


def _text_arguments(model: Model, prompts: list[str]) -> dict[str, Any]:
    """Return what the pipeline hands to its denoiser for these prompts, without running it."""
    found: dict[str, Any] = {}

    def stop(kwargs: dict[str, Any]) -> None:
        found.update({name: kwargs[name] for name in model.family.text_arguments})
        raise StopForward

    with watch_calls(model.denoisers, stop):
        try:
            _run(model, prompts, [0] * len(prompts), steps=1)
        except StopForward:
            model.pipeline.maybe_free_model_hooks()
    return found
