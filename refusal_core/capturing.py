"""Capture: read what enters each site while the model sees unsafe, safe and neutral prompts.

With shared latents the unsafe prompt's text takes the place of the safe prompt's in the calls that the
pipeline made, so that both see the same noisy video and differ by the condition alone. What the text's
side needs is here, the video's in ``reading``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from refusal_core.activations import Activations, Samples, Twins
from refusal_core.concepts import Concept, neutral_prompts
from refusal_core.errors import MemoryLimitError
from refusal_core.keeping import kept_concepts, with_further
from refusal_core.models.calling import check_prompts
from refusal_core.models.layouts import text_rows
from refusal_core.models.model import Model
from refusal_core.models.recording import Call, batches, begin, listen, smallest_video, valid_rows
from refusal_core.models.sites import Site, select
from refusal_core.progress import Progress, each, part, silent, timed
from refusal_core.reading.kept import NeutralReading, Rows, blocks, reading_key
from refusal_core.reading.video_side import (
    PairedPrompts,
    neutral_reading,
    paired_rows,
    passes,
    video_bytes,
)
from refusal_core.settings import CaptureSettings, SamplingSettings

LEARNED = -1  # stands for the learned tokens behind a prompt's own
TEXT_SHARE = 0.3  # of the time, where both sides are read
Asked = tuple[tuple[Site, ...], PairedPrompts, list[str]]  # sites, pairs, neutral prompts


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
        settings: sites, layers, pooling, timesteps, trajectory, size and steps of the video, seed; None: the
            kinds of sites that are the family's default, all else as ``CaptureSettings`` has it.
        progress: told after each batch; may raise ``Cancelled``, which leaves no hook behind.

    Returns:
        Rows for every chosen site.

    Raises:
        InputError: a prompt is empty or too long for the model.
        SiteError: no site is left by the choice of kinds and layers.
    """
    settings = settings or CaptureSettings(kinds=model.family.default_kinds)
    asked = _asked(model, concept, settings)
    sites, pairs, neutral = asked
    try:
        with model.lock, torch.inference_mode():
            readings = neutral_readings(model, neutral, sites, settings)
            price = _price(model, concept, settings, asked, readings)
            progress(0.0, price.sentence())
            told, share = timed(progress), price.prompts / (price.prompts + price.neutral)
            twins = _twins(model, pairs, sites, settings, part(told, 0, share))
            neutral_rows, notes = _neutral(sites, readings, part(told, share, 1))
    except (torch.OutOfMemoryError, MemoryError) as e:
        raise MemoryLimitError(
            "Too little memory to read activations; take fewer layers or timesteps, or offload the model."
        ) from e
    progress(1.0, "Activations are ready")
    texts = tuple((p.unsafe, p.safe) for p in concept.pairs)
    rows = _joined(model, sites, twins, neutral_rows)
    seen = Activations(model.fingerprint, concept.name, texts, settings, rows, notes)
    return with_further(seen, concept, lambda other, plain: capture(model, other, plain, progress=progress))


@dataclass(frozen=True, slots=True)
class CapturePrice:
    """What a capture takes, told before its first pass."""

    prompts: int  # of pairs, both sides
    neutral: int  # neutral prompts that are read
    kept: int  # those whose rows are kept from before
    passes: int  # of the denoiser, with one prompt each
    megabytes: float  # of activations, at most

    def sentence(self) -> str:
        """Return it in words."""
        kept = f" ({self.kept} more are kept from before)" if self.kept else ""
        cost = f"{self.passes} passes of the denoiser, up to {max(1, self.megabytes):.0f} MB of activations"
        return f"Reading {self.prompts} prompts of pairs and {self.neutral} neutral ones{kept}: {cost}"


def capture_price(model: Model, concept: Concept, settings: CaptureSettings) -> CapturePrice:
    """Return what a capture takes here and now; nothing runs. Raises as ``capture`` does before it reads."""
    asked = _asked(model, concept, settings)
    sites, _, neutral = asked
    with model.lock:
        return _price(model, concept, settings, asked, neutral_readings(model, neutral, sites, settings))


def _price(
    model: Model,
    concept: Concept,
    settings: CaptureSettings,
    asked: Asked,
    readings: Sequence[NeutralReading],
) -> CapturePrice:
    sites, pairs, neutral = asked
    text, video = _sides(model, sites)
    further = [len(other.pairs) for other in kept_concepts(settings.keep, concept)]
    further += [len(pairs.safe)] if settings.target is not None else []
    count, left = len(pairs.safe) + sum(further), [reading.left() for reading in readings]
    experts = len(model.denoisers)
    run, repeated = passes(settings, model.defaults.steps, experts)
    sides = [(experts, 2 * experts)] * bool(text) + [(run, run + repeated)] * bool(video)
    read = zip(sides, left or [0] * len(sides), strict=True)
    total = sum(count * of_pair + rest * of_prompt for (of_prompt, of_pair), rest in read)
    most = max(left, default=0)
    tokens = sum(map(len, model.tokens([*pairs.unsafe, *pairs.safe, *neutral])))
    widths = {(site.kind, site.inputs) for site in text}  # sites of a kind share what enters them
    size = 4 * tokens * sum(width for _, width in widths) + video_bytes(video, settings)
    return CapturePrice(2 * count, most, len(neutral) - most, total, size / 1e6)


def _asked(model: Model, concept: Concept, settings: CaptureSettings) -> Asked:
    """Return the sites, the pairs and the neutral prompts of a capture; raises as ``capture`` does."""
    sites = select(model.sites, settings.kinds, settings.layers)
    pairs = PairedPrompts(
        check_prompts(model, (p.unsafe for p in concept.pairs)),
        check_prompts(model, (p.safe for p in concept.pairs)),
        [(p.unsafe_image, p.safe_image) for p in concept.pairs],
    )
    ordinary = neutral_prompts(concept, settings.neutral, settings.neutral_count)
    return tuple(sites), pairs, check_prompts(model, ordinary) if ordinary else []


def _sides(model: Model, sites: Sequence[Site]) -> tuple[list[Site], list[Site]]:
    """Return the sites whose input is the text encoder's output, and those that see the video."""
    text = [site for site in sites if model.layouts[site.name] == "text"]
    return text, [site for site in sites if site not in text]


def _twins(
    model: Model, pairs: PairedPrompts, sites: Sequence[Site], settings: CaptureSettings, progress: Progress
) -> dict[Site, Twins]:
    """Return the rows of the pairs at each site; those with the same input share them."""
    text, video = _sides(model, sites)
    twins: dict[Site, Twins] = {}
    if text:
        sees = model.family.image_in_text is not None
        everything = [(prompt, image if sees else None) for prompt, image in pairs.sides()]
        share, size = part(progress, 0, TEXT_SHARE if video else 1), smallest_video(model, text)
        read = _read_text(model, everything, range(len(everything)), text, size, share)
        made = {first: _aligned(rows, read.tokens) for first, rows in read.rows.items()}
        twins |= {site: made[read.first[site]] for site in text}
    if video:
        twins |= paired_rows(model, pairs, video, settings, part(progress, TEXT_SHARE if text else 0, 1))
    return twins


def neutral_readings(
    model: Model, prompts: Sequence[str], sites: Sequence[Site], settings: CaptureSettings
) -> list[NeutralReading]:
    """Return how neutral prompts are read: at the sites of the text's side, then of the video's."""
    if not prompts:
        return []
    text, video = _sides(model, sites)
    found = [_text_reading(model, prompts, text)] if text else []
    return [*found, neutral_reading(model, prompts, video, settings)] if video else found


def _text_reading(model: Model, prompts: Sequence[str], sites: Sequence[Site]) -> NeutralReading:
    size = cache(lambda: smallest_video(model, sites))

    def read(block: range, progress: Progress) -> Rows:
        found = _read_text(model, [(p, None) for p in prompts], block, sites, size(), progress)
        made = {first: torch.cat(own) for first, own in found.rows.items()}
        return {site: made[found.first[site]] for site in sites}

    key = reading_key(model, prompts, {"side": "text"})
    return NeutralReading(key, sites, blocks(model, len(prompts)), read)


def _neutral(
    sites: Sequence[Site], readings: Sequence[NeutralReading], progress: Progress
) -> tuple[dict[Site, Tensor], tuple[str, ...]]:
    """Return the rows of neutral prompts at each site, and what is to be said of where they are kept."""
    rows = {site: torch.empty(0, site.inputs) for site in sites}
    notes: dict[str, None] = {}
    for reading, step in each(progress, readings):
        found, said = reading.rows(step)
        rows |= found
        notes |= dict.fromkeys(said)
    return rows, tuple(notes)


def _joined(
    model: Model, sites: Sequence[Site], twins: Mapping[Site, Twins], neutral: Mapping[Site, Tensor]
) -> dict[Site, Samples]:
    """Return the samples of each site; sites with the same input share one."""
    made: dict[tuple[int, int], Samples] = {}
    samples = {}
    for site in sites:
        own, rows = twins[site], neutral[site]
        if (key := (id(own), id(rows) if len(rows) else 0)) not in made:
            by_token = model.layouts[site.name] == "text"
            made[key] = Samples(own.unsafe, own.safe, rows, own.pair_of_row, by_token)
        samples[site] = made[key]
    return samples


# --- text side: one forward of the text encoder suffices, as its output sees no timestep ------------


@dataclass(frozen=True, slots=True)
class _TextRows:
    tokens: list[list[int]]  # of each prompt, padding left out
    rows: dict[Site, list[Tensor]]  # [tokens, H] of each prompt, at the first of the sites that share them
    first: dict[Site, Site]  # a site -> the first site with the very same input


def _read_text(
    model: Model,
    prompts: Sequence[tuple[str, Path | None]],
    block: range,
    sites: Sequence[Site],
    size: SamplingSettings,
    progress: Progress,
) -> _TextRows:
    """Return what enters text-side sites under each prompt of a block, on a video of this size.

    Where the text encoder reads an image, too, a prompt stands beside its image.
    """
    read = _TextRows([], {}, {})
    for batch in batches(model, block):
        chunk = [prompts[i][0] for i in batch]
        tokens = model.tokens(chunk)
        ended = [[*own, LEARNED] for own in tokens] if model.family.registers else tokens
        call = begin(model, chunk, prompts[batch.start][1], size)
        for denoiser in model.denoisers:  # a second expert has a text entry of its own
            first_of: dict[int, Site] = {}
            for site, x in listen(Call(denoiser, call.arguments), model, sites).items():
                first = first_of.setdefault(id(x), site)
                read.first.setdefault(site, first)
                if first is site:
                    read.rows.setdefault(site, []).extend(_prompt_rows(model, call, x, tokens))
        model.free()  # the text encoder comes next, and may need the room
        read.tokens.extend([[0]] * len(chunk) if model.family.templated else ended)
        told = f"Reading text activations, {batch.stop} of {len(prompts)}"
        progress((batch.stop - block.start) / len(block), told)
    return read


def _prompt_rows(model: Model, call: Call, x: Tensor, tokens: list[list[int]]) -> list[Tensor]:
    """Return the text rows of each prompt: one a token, or their mean where a template hides the tokens.

    Learned tokens behind a prompt's own give one row more, their mean.
    """
    rows = text_rows(x, len(tokens)).float().cpu()
    valid = valid_rows(model, call, (rows.shape[0], rows.shape[1]), tokens)
    kept = [own[mask].clone() for own, mask in zip(rows, valid, strict=True)]
    if model.family.registers:
        kept = [
            torch.cat([own, (whole if mask.all() else whole[~mask]).mean(0, keepdim=True)])
            for own, whole, mask in zip(kept, rows, valid, strict=True)
        ]
    return [own.mean(0, keepdim=True) for own in kept] if model.family.templated else kept


def _aligned(rows: list[Tensor], tokens: list[list[int]]) -> Twins:
    """Return the twins of a site from the rows of all unsafe prompts, then of all safe ones."""
    n = len(rows) // 2
    twins = [_twin_rows(rows[i], rows[n + i], tokens[i], tokens[n + i]) for i in range(n)]
    return Twins(
        unsafe=torch.cat([u for u, _ in twins]),
        safe=torch.cat([s for _, s in twins]),
        pair_of_row=torch.cat([torch.full((len(u),), i) for i, (u, _) in enumerate(twins)]),
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
