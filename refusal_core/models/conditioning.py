"""Giving the denoiser other text embeddings than the prompt's, while the real pipeline runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from refusal_core.errors import ModelError
from refusal_core.models.model import Model

TEXT = "encoder_hidden_states"


def check_conditioning(model: Model, what: str) -> None:
    """Raise ModelError where the text reaches the denoiser in other ways than one tensor of embeddings."""
    whole = model.family.text_arguments == (TEXT,) and model.family.guidance in ("passes", "batched")
    if not whole or not model.family.batches or len(model.denoisers) > 1 or model.takes_image:
        raise ModelError(f"{what} changes the text embeddings, which {model.family.title} takes otherwise.")


@contextmanager
def conditioned(model: Model, embeddings: Tensor, steps: Tensor | None = None) -> Iterator[None]:
    """Put embeddings in place of the prompts' in the guided runs inside the block; unguided rows stay.

    Args:
        model: one that passed ``check_conditioning``.
        embeddings: [B, T, H], one a prompt.
        steps: [B], for how many denoising steps each is put in place; None: for all.
    """
    count = 0

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal count
        # Without guidance a step is one pass, the prompt's.
        passes = 2 if model.family.guidance == "passes" and model.defaults.guidance_scale > 1 else 1
        step, branch = divmod(count, passes)  # the prompt's pass is the first of a step
        count += 1
        if branch:
            return None
        given = kwargs[TEXT]
        rows = slice(len(given) - len(embeddings), None)  # where batched, the prompt's rows are the last
        on = torch.ones(len(embeddings), dtype=torch.bool) if steps is None else step < steps
        replaced = given.clone()
        replaced[rows] = torch.where(on.view(-1, 1, 1).to(given.device), embeddings.to(given), given[rows])
        return args, kwargs | {TEXT: replaced}

    handles = [d.register_forward_pre_hook(hook, with_kwargs=True) for d in model.denoisers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
