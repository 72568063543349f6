"""Text limits of a model: a prompt that would be cut off in silence is refused in a sentence."""

from __future__ import annotations

from collections.abc import Iterable

from refusal_core.concepts import clean_prompt
from refusal_core.errors import InputError
from refusal_core.models.model import Model


def check_prompts(model: Model, prompts: Iterable[str]) -> list[str]:
    """Return the prompts without surrounding space.

    Raises:
        InputError: a prompt is empty, or longer than the model's text encoder reads.
    """
    cleaned = [clean_prompt(prompt, "The prompt") for prompt in prompts]
    limit = model.defaults.text_length
    for prompt, tokens in zip(cleaned, model.tokens(cleaned), strict=True):
        if len(tokens) > limit:
            raise InputError(
                f"'{prompt[:40]}...' has {len(tokens)} tokens; this model reads {limit}: shorten the prompt."
            )
    return cleaned
