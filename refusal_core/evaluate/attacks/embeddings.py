"""An attack on the text embeddings: gradient steps that try to bring the concept back.

White-box: it sees the edited weights. It moves the embeddings of an unsafe prompt until the edited denoiser
predicts what the original one does, f(x_t, e + delta) = f0(x_t, e), on the original's own trajectory (after
P4D, Chin et al. 2023, and UnlearnDiffAtk, Zhang et al. 2023, which search tokens; embeddings reach further).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from torch import Tensor

from refusal_core.evaluate.attacks.task import WITH_GRADIENT, Descent, Effort, Reached, Task, task_of
from refusal_core.io.video import Video
from refusal_core.models.conditioning import TEXT, check_conditioning, conditioned
from refusal_core.models.gradients import frozen
from refusal_core.models.model import Model
from refusal_core.progress import Progress, silent
from refusal_core.sampling import generate_batch

STEPS, RATE = 30, 0.05  # the rate is in spreads of the embeddings


def embedding_attack(task: Task, effort: Effort) -> Reached:
    """Move all text embeddings of each prompt."""
    moved, saved = _moved(task, effort)
    forwards = task.paid + WITH_GRADIENT * effort.steps
    return Reached(forwards, partial(videos_from, task, moved), saved)


def _moved(task: Task, effort: Effort) -> tuple[Tensor, dict[str, Tensor]]:
    start = task.states[0][TEXT].float()
    descent = Descent([start], RATE * float(start.std()), effort)
    (moved,) = descent.tensors
    saved = descent.run(lambda step: task.loss(step, **{TEXT: moved}), len(task.states))
    return moved.detach(), saved


def videos_from(task: Task, embeddings: Tensor) -> list[Video]:
    """Return the task's videos with other text embeddings [B, T, H]."""
    with conditioned(task.model, embeddings):
        return generate_batch(task.model, task.prompts, task.seeds, cut=True)


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
    task = task_of(model, prompts, seeds)
    with frozen(model.denoisers[0]), context:
        return _moved(task, Effort(STEPS, progress=progress))[0]
