"""Negative prompt: the concept's phrases take the place of the empty prompt in guidance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from refusal_core.concepts import Concept
from refusal_core.errors import ModelError
from refusal_core.models.model import Model
from refusal_core.recipe import concept_phrases
from refusal_core.settings import SamplingSettings


def negative_prompt(model: Model, concepts: Sequence[Concept]) -> SamplingSettings:
    """Return sampling settings with the concepts as negative prompt; no weight is changed.

    Their phrases in turn, the first of each concept before the second of any, as many as the model reads.

    Raises:
        ModelError: the model runs without guidance, where a negative prompt is never read, or reads none of
            the phrases whole.
    """
    if model.family.guidance == "embedded" or model.defaults.guidance_scale <= 1:
        raise ModelError(f"A negative prompt acts in guidance; {model.family.title} runs without it here.")
    turns = zip_longest(*(concept_phrases(concept) for concept in concepts))
    phrases = dict.fromkeys(phrase for turn in turns for phrase in turn if phrase is not None)
    said: list[str] = []
    for phrase in phrases:
        (tokens,) = model.tokens([", ".join([*said, phrase])])
        if len(tokens) <= model.defaults.text_length:
            said.append(phrase)
    if not said:
        raise ModelError("No phrase of the concept fits into a negative prompt; write shorter pairs.")
    return SamplingSettings(negative_prompt=", ".join(said))
