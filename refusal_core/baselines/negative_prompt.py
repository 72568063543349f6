"""Negative prompt: the concept's words take the place of the empty prompt in guidance."""

from __future__ import annotations

from collections.abc import Sequence

from refusal_core.concepts import Concept
from refusal_core.recipe import concept_words
from refusal_core.settings import SamplingSettings


def negative_prompt(concepts: Sequence[Concept]) -> SamplingSettings:
    """Return sampling settings with the concepts as negative prompt; no weight is changed."""
    return SamplingSettings(negative_prompt=", ".join(concept_words(concept) for concept in concepts))
