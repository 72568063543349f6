"""Negative prompt: the concept's words take the place of the empty prompt in guidance."""

from __future__ import annotations

from refusal_core.concepts import Concept
from refusal_core.recipe import concept_words
from refusal_core.settings import SamplingSettings


def negative_prompt(concept: Concept) -> SamplingSettings:
    """Return sampling settings with the concept as negative prompt; no weight is changed."""
    return SamplingSettings(negative_prompt=concept_words(concept))
