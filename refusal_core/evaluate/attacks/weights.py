"""Attacks on the weights: small training that brings a concept back, on purpose or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from refusal_core.evaluate.attacks.task import WITH_GRADIENT, Descent, Effort, Reached, Task
from refusal_core.io.video import Video
from refusal_core.models.slots import Change
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
    changes = {task.model.layers[s.name]: Change(a, b) for s, (a, b) in zip(sites, halves, strict=True)}
    steps_each = len(examples[0].states)

    def loss(choice: int) -> Tensor:
        lesson, step = divmod(choice, steps_each)
        return examples[lesson].loss(step)

    def videos() -> list[Video]:
        with also(changes):
            return generate_batch(task.model, task.prompts, task.seeds, cut=True)

    count = len(examples[0].prompts)
    paid = sum(example.paid * len(example.prompts) for example in examples)
    with also(changes):
        saved = descent.run(loss, len(examples) * steps_each)
    return Reached(paid + WITH_GRADIENT * count * effort.steps, videos, saved)


@contextmanager
def also(changes: Mapping[nn.Linear, Change]) -> Iterator[None]:
    """Let each layer give its change as well while the block runs, beside an edit that may ride there."""
    hooks = [layer.register_forward_hook(_adding(change)) for layer, change in changes.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(change: Change) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda _layer, inputs, output: change.added(inputs[0], output)
