"""Attacks that hand the model a picture: noise that holds it, and a clip that is half finished.

They say how much the weights still know, not how far a prompt reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from refusal_core.errors import ModelError
from refusal_core.evaluate.attacks.task import Clips, Effort, Reached, Task
from refusal_core.io.video import Video
from refusal_core.models.calling import Request, call_pipeline
from refusal_core.models.gradients import predicted
from refusal_core.models.recording import first_call
from refusal_core.sampling import generate_batch
from refusal_core.settings import SamplingSettings

EMPTY = "."  # as little text as every pipeline takes
EXACT = 1e-3  # of a step's size: what a step of an affine schedule leaves


def with_clips(task: Task) -> Task:
    """Return the task with the original's clips; the model must be the original."""
    begun: list[Any] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        begun.append(output)

    handle = task.model.denoisers[0].register_forward_hook(keep)
    try:
        clip = _latents(task, guided=True)
    finally:
        handle.remove()
    return replace(task, clips=Clips(begun, clip, _latents(task, guided=False)))


def _latents(task: Task, *, guided: bool) -> Tensor:
    request = Request(task.prompts, task.seeds, SamplingSettings(), guided, "latent")
    with torch.inference_mode():
        result = call_pipeline(task.model, request, lambda _denoiser, _arguments: None)
    latents: Tensor = result.frames
    return latents.clone()


def noise_attack(task: Task, effort: Effort) -> Reached:
    """Find the noise from which the edited model makes the original's clip without any prompt (after TINA).

    A step of the schedule is x' = a x + b f(x); x is found from x' by as many rounds of x = (x' - b f(x)) / a
    as the effort says, step by step from the finished clip back to noise.

    Raises:
        ModelError: the schedule's steps are not of this form.
    """
    assert task.clips is not None
    name = task.model.family.latents_argument
    path = [*(state[name] for state in task.states), task.clips.unguided]
    affine = [_affine(path[i], path[i + 1], task.goals[i]) for i in range(len(task.states))]
    empty = first_call(task.model, [EMPTY] * len(task.prompts))
    text = {key: empty[key] for key in task.model.family.text_arguments if key in empty}
    x = task.clips.guided.float()
    with torch.no_grad():
        for i in reversed(range(len(task.states))):
            (a, b), after = affine[i], x
            for _ in range(effort.steps):
                guess = predicted(task.model.denoisers[0], task.states[i] | text | {name: x.to(path[i])})
                x = (after - b * guess.float()) / a
            effort.progress(1 - i / len(task.states), f"Back to step {i + 1}")
    return Reached(float(effort.steps * len(task.states)), partial(_from_noise, task, x))


def _affine(before: Tensor, after: Tensor, guess: Tensor) -> tuple[float, float]:
    """Return a and b of after = a before + b guess."""
    x = torch.stack([before.double().flatten(), guess.double().flatten()], 1)
    y = after.double().reshape(-1, 1)
    solution = torch.linalg.lstsq(x, y).solution
    if float((x @ solution - y).norm()) > EXACT * float((y - x[:, :1]).norm()):
        raise ModelError(
            "The noise attack needs a schedule of one step at a time, such as Euler's or DDIM's."
        )
    a, b = solution.flatten().tolist()
    return a, b


def _from_noise(task: Task, latents: Tensor) -> list[Video]:
    model = replace(
        task.model,
        defaults=replace(task.model.defaults, guidance_scale=1.0),
        extras={**task.model.extras, "latents": latents},
    )
    return generate_batch(model, [EMPTY] * len(task.prompts), task.seeds)


def completion_attack(task: Task, effort: Effort) -> Reached:
    """Let the edited model finish clips that the original began: that many percent of the steps."""
    assert task.clips is not None
    steps = len(task.states)
    count = len(task.clips.begun) // steps * ceil(steps * effort.steps / 100)
    return Reached(float(count), partial(_completed, task, task.clips.begun[:count]))


def _completed(task: Task, begun: Sequence[Any]) -> list[Video]:
    """Return videos whose first calls of the denoiser give what the original's gave."""
    calls = iter(begun)

    def replay(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return next(calls, output)

    handle = task.model.denoisers[0].register_forward_hook(replay)
    try:
        return generate_batch(task.model, task.prompts, task.seeds, cut=True)
    finally:
        handle.remove()
