"""An attack on the text embeddings: a few gradient steps that try to bring the concept back.

White-box: it sees the edited weights. It moves the embeddings of an unsafe prompt until the edited denoiser
predicts what the original one does, f(x_t, e + delta) = f0(x_t, e), on the original's own trajectory (after
P4D, Chin et al. 2023, and UnlearnDiffAtk, Zhang et al. 2023, which search tokens; embeddings reach further).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from refusal_core.models.conditioning import TEXT, check_conditioning
from refusal_core.models.gradients import frozen, predicted
from refusal_core.models.model import Model
from refusal_core.models.recording import record_calls
from refusal_core.progress import Progress, silent

STEPS, RATE = 30, 0.05  # Adam; the rate is in spreads of the embeddings


def attacked_embeddings(
    model: Model,
    context: AbstractContextManager[Any],
    prompts: Sequence[str],
    seeds: Sequence[int],
    progress: Progress = silent,
) -> Tensor:
    """Return text embeddings [B, T, H] that bring back what the prompts ask for, as far as they can.

    Args:
        model: left as it was.
        context: that in which its weights are edited.
        prompts: unsafe ones.
        seeds: of the noise on which the original's trajectory starts.
        progress: told per gradient step.

    Raises:
        ModelError: the text does not reach the denoiser as one tensor of embeddings.
    """
    check_conditioning(model, "The attack")
    states = record_calls(model, prompts, seeds)
    denoiser = model.denoisers[0]
    with torch.no_grad():
        goals = [predicted(denoiser, state) for state in states]
    start = states[0][TEXT].float()
    moved = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([moved], lr=RATE * float(start.std()))
    generator = torch.Generator().manual_seed(0)
    with frozen(denoiser), context:
        for step in range(STEPS):
            chosen = int(torch.randint(len(states), (1,), generator=generator))
            guess = predicted(denoiser, states[chosen] | {TEXT: moved.to(states[chosen][TEXT])})
            loss = (guess.float() - goals[chosen].float()).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            progress((step + 1) / STEPS, "Attacking the embeddings")
    return moved.detach()
