"""Attacks on the weights: small training that brings a concept back, on purpose or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from refusal_core.evaluate.attacks.task import WITH_GRADIENT, Descent, Effort, Reached, Task
from refusal_core.io.video import Video
from refusal_core.sampling import generate_batch

RANK, RATE = 4, 1e-3  # of a LoRA; as fine-tuning of small models takes them


def relearning_attack(task: Task, effort: Effort) -> Reached:
    """Train a LoRA beside every editable layer, on what the original does for other prompts of the concept.

    What it costs is paid once. AdamW on A [4, H] and B [O, 4] of y + B A x, B from zero, so that nothing has
    changed before the first step.
    """
    return _trained(task, effort, task.examples)


def benign_attack(task: Task, effort: Effort) -> Reached:
    """Train the same on ordinary prompts alone: what becomes of an edit that somebody fine-tunes."""
    return _trained(task, effort, task.ordinary)


def _trained(task: Task, effort: Effort, examples: Sequence[Task]) -> Reached:
    generator, sites, start = torch.Generator().manual_seed(effort.seed), task.model.sites, []
    for site in sites:
        a = torch.randn(RANK, site.inputs, generator=generator) / site.inputs**0.5
        start += [a, torch.zeros(site.outputs, RANK)]
    descent = Descent([tensor.to(task.goals[0].device) for tensor in start], RATE, effort)
    halves = zip(descent.tensors[::2], descent.tensors[1::2], strict=True)
    factors = {site.name: pair for site, pair in zip(sites, halves, strict=True)}
    layers = task.model.layers
    steps_each = len(examples[0].states)

    def loss(choice: int) -> Tensor:
        lesson, step = divmod(choice, steps_each)
        return examples[lesson].loss(step)

    def videos() -> list[Video]:
        with beside(layers, factors):
            return generate_batch(task.model, task.prompts, task.seeds, cut=True)

    count = len(examples[0].prompts)
    paid = sum(example.paid * len(example.prompts) for example in examples)
    with beside(layers, factors):
        saved = descent.run(loss, len(examples) * steps_each)
    return Reached(paid + WITH_GRADIENT * count * effort.steps, videos, saved)


@contextmanager
def beside(layers: Mapping[str, nn.Module], factors: Mapping[str, Sequence[Tensor]]) -> Iterator[None]:
    """Let each layer give y + B A x while the block runs, with its A [r, H] and B [O, r]."""

    def adding(a: Tensor, b: Tensor) -> object:
        def add(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + ((inputs[0].to(a.dtype) @ a.T) @ b.T).to(output.dtype)

        return add

    hooks = [layer.register_forward_hook(adding(*factors[name])) for name, layer in layers.items()]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
