"""Negative prompt: the concept's phrases take the place of the empty prompt in guidance."""

from __future__ import annotations

from collections.abc import Sequence

from refusal_core.concepts import Concept
from refusal_core.recipe import concept_phrases
from refusal_core.settings import SamplingSettings


def negative_prompt(concepts: Sequence[Concept]) -> SamplingSettings:
    """Return sampling settings with the concepts as negative prompt; no weight is changed."""
    phrases = [phrase for concept in concepts for phrase in concept_phrases(concept)]
    return SamplingSettings(negative_prompt=", ".join(dict.fromkeys(phrases)))
