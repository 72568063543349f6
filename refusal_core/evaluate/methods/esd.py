"""ESD: fine-tuning that erases a concept (Gandikota et al., Erasing Concepts from Diffusion Models, 2023).

The stand-in for fine-tuning methods: the only baseline here that trains. Written from the formula.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from refusal_core.concepts import Concept
from refusal_core.errors import ModelError
from refusal_core.models.gradients import frozen, predicted
from refusal_core.models.model import Model
from refusal_core.models.recording import first_call, record_calls
from refusal_core.progress import Progress, silent
from refusal_core.recipe import concept_phrases
from refusal_core.settings import SiteKind

KINDS: tuple[SiteKind, ...] = ("text", "cross-attention")  # ESD-x: cross-attention only
ETA = 1.0
STEPS, RATE, BATCH = 200, 1e-3, 8
SEED = 0


def esd_weights(model: Model, concept: Concept, progress: Progress = silent) -> dict[str, Tensor]:
    """Return weights trained so that f(x_t, c) = f0(x_t) - eta (f0(x_t, c) - f0(x_t)).

    ``c`` are the concept's phrases, x_t come from the original's own trajectories on them. ``f`` is
    noise or velocity: the formula is linear, so it holds for both. The model itself is left as it was.

    Raises:
        ModelError: the model has two denoisers.
    """
    if len(model.denoisers) > 1:
        raise ModelError(f"ESD trains one denoiser, and {model.family.title} has two.")
    phrases = concept_phrases(concept)
    words = [phrases[i % len(phrases)] for i in range(BATCH)]
    states = record_calls(model, words, list(range(SEED, SEED + BATCH)))
    empty = first_call(model, ["."] * BATCH if not model.family.batches else [""] * BATCH)
    free = {name: empty[name] for name in model.family.text_arguments if name in empty}
    denoiser, prefix = model.denoisers[0], f"{model.denoiser_names[0]}."
    if model.is_small:  # a copy in float32 costs nothing, and gradients of half precision are slow on a CPU
        denoiser, free = copy.deepcopy(denoiser).float(), _in_float32(free)
        states = [_in_float32(arguments) for arguments in states]
    goals = [_goal(denoiser, arguments, free) for arguments in states]
    names = [s.name for s in model.sites if s.kind in KINDS and s.name.startswith(prefix)]
    layers = {name: cast(nn.Linear, denoiser.get_submodule(name.removeprefix(prefix))) for name in names}
    trained = _train(denoiser, layers, states, goals, progress)
    return {name: w.to(model.layers[name].weight.dtype) for name, w in trained.items()}


def _in_float32(arguments: dict[str, Any]) -> dict[str, Any]:
    return {n: a.float() if torch.is_tensor(a) and a.is_floating_point() else a for n, a in arguments.items()}


def _goal(denoiser: nn.Module, arguments: dict[str, Any], free: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        conditional = predicted(denoiser, arguments)
        unconditional = predicted(denoiser, arguments | free)
    return unconditional - ETA * (conditional - unconditional)


def _train(
    denoiser: nn.Module,
    layers: dict[str, nn.Linear],
    states: Sequence[dict[str, Any]],
    goals: Sequence[Tensor],
    progress: Progress,
) -> dict[str, Tensor]:
    originals = {name: layer.weight.data for name, layer in layers.items()}
    generator = torch.Generator().manual_seed(SEED)
    with frozen(denoiser):
        try:
            for name, layer in layers.items():
                layer.weight.data = originals[name].clone()
                layer.weight.requires_grad_(True)
            # Steps are smaller than half precision resolves: they are taken on float32 copies (in float32,
            # where ``float`` copies nothing, on the weights themselves).
            masters = {name: layer.weight.data.float() for name, layer in layers.items()}
            optimiser = torch.optim.Adam(masters.values(), lr=RATE)
            for step in range(STEPS):
                chosen = int(torch.randint(len(states), (1,), generator=generator))
                loss = (predicted(denoiser, states[chosen]).float() - goals[chosen].float()).square().mean()
                loss.backward()
                for name, layer in layers.items():
                    masters[name].grad = cast(Tensor, layer.weight.grad).float()
                    layer.weight.grad = None
                optimiser.step()
                for name, layer in layers.items():
                    layer.weight.data.copy_(masters[name])
                progress(step / STEPS, f"Fine-tuning, step {step + 1} of {STEPS}")
            return {name: layer.weight.data.clone() for name, layer in layers.items()}
        finally:
            for name, layer in layers.items():
                layer.weight.data = originals[name]
                layer.weight.grad = None
