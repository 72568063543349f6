"""Further activations of a capture: of concepts that stay, and of what takes the concept's place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from difflib import SequenceMatcher

import torch
from torch import Tensor

from refusal_core.activations import Activations, Samples
from refusal_core.concepts import Concept, PromptPair, load_concept
from refusal_core.errors import InputError
from refusal_core.models.sites import Site
from refusal_core.settings import CaptureSettings
from refusal_core.subspace import refusal_vector

Read = Callable[[Concept, CaptureSettings], Activations]


def with_further(seen: Activations, concept: Concept, read: Read) -> Activations:
    """Return activations with the mean differences that ``keep`` and ``target`` of their settings name.

    Args:
        seen: what the concept's pairs and neutral prompts gave.
        concept: the one that is removed.
        read: captures another concept with settings, on the same model.

    Raises:
        InputError: ``keep`` names the removed concept, or no preset.
    """
    settings = seen.settings
    if settings.keep is None and settings.target is None:
        return seen
    plain = replace(settings, keep=None, target=None, neutral=None)
    kept = [read(replace(other, neutral=()), plain) for other in kept_concepts(settings.keep, concept)]
    target = None
    if settings.target is not None:
        target = read(target_concept(concept, settings.target), plain)
    made: dict[int, Samples] = {}  # sites with the same input go on sharing
    for site, samples in seen.sites.items():
        if id(samples) not in made:
            rows = [_mean(other, site) for other in kept]
            made[id(samples)] = replace(
                samples,
                kept=torch.stack(rows) if rows else None,
                target=None if target is None else _mean(target, site),
            )
    return replace(seen, sites={site: made[id(samples)] for site, samples in seen.sites.items()})


def _mean(seen: Activations, site: Site) -> Tensor:
    samples = seen.sites[site]
    return refusal_vector(samples.unsafe, samples.safe).float()


def kept_concepts(names: str | None, removed: Concept) -> list[Concept]:
    """Return the concepts of presets by their names with commas between.

    Raises:
        InputError: a name is no preset's, or that of the concept that is removed.
    """
    found = []
    for name in [n.strip() for n in (names or "").split(",") if n.strip()]:
        if not re.fullmatch(r"[a-z0-9-]+", name):  # never a path: the name may come from a stranger
            raise InputError(f"'{name[:40]}' is no preset's name; keep takes names with commas between.")
        if name == removed.name:
            raise InputError(f"'{name}' is to be removed and cannot be kept; take it out of keep.")
        found.append(load_concept(name))
    return found


def target_concept(concept: Concept, phrase: str) -> Concept:
    """Return a concept whose unsafe prompts say the phrase where the pairs say what is removed."""
    pairs = tuple(PromptPair(_said(pair, phrase), pair.safe) for pair in concept.pairs)
    return Concept(f"{concept.name}, {phrase}"[:80], pairs)


def _said(pair: PromptPair, phrase: str) -> str:
    """Return the unsafe prompt with the phrase in place of its first words that the safe one has not."""
    unsafe, safe = pair.unsafe.split(), pair.safe.split()
    words: list[str] = []
    told = False
    for tag, s0, s1, u0, u1 in SequenceMatcher(None, safe, unsafe, autojunk=False).get_opcodes():
        if tag == "equal":
            words += safe[s0:s1]
        elif u1 > u0 and not told:
            words.append(phrase)
            told = True
    return " ".join(words if told else [*safe, phrase])
