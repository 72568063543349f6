"""What every attack is given and gives: the original's trajectory on some prompts, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from refusal_core.io.video import Video
from refusal_core.models.gradients import predicted
from refusal_core.models.model import Model
from refusal_core.models.recording import record_calls
from refusal_core.progress import Progress, silent

WITH_GRADIENT = 3.0  # forwards that one with its gradient counts as


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """The original's own videos of a task, as latents."""

    begun: Sequence[Any]  # what its denoiser gave in the guided run, call by call
    guided: Tensor
    unguided: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Prompts that are attacked, and what the original does on them: f0(x_t, e) at each step."""

    model: Model
    prompts: Sequence[str]
    seeds: Sequence[int]
    states: list[dict[str, Any]]  # the calls of its denoiser, without guidance
    goals: list[Tensor]
    examples: Sequence[Task] = ()  # other prompts for the concept, for what is learned from them
    ordinary: Sequence[Task] = ()  # prompts without it
    clips: Clips | None = None

    @property
    def paid(self) -> float:
        """Forwards a video that the original's trajectory cost."""
        return 2.0 * len(self.states)

    def loss(self, step: int, **changed: Tensor) -> Tensor:
        """Return |f(x_t, ...) - f0(x_t, e)|^2 at a step of the trajectory, with some arguments changed."""
        state = self.states[step]
        given = {name: value.to(state[name]) for name, value in changed.items()}
        guess = predicted(self.model.denoisers[0], state | given)
        return (guess.float() - self.goals[step].float()).square().mean()


def task_of(model: Model, prompts: Sequence[str], seeds: Sequence[int]) -> Task:
    """Return the task of some prompts; the model must be the original."""
    states = record_calls(model, prompts, seeds)
    with torch.no_grad():
        goals = [predicted(model.denoisers[0], state) for state in states]
    return Task(model, prompts, seeds, states, goals)


@dataclass(frozen=True, slots=True, eq=False)
class Effort:
    """How far an attack goes."""

    steps: int
    seed: int = 0
    saved: Mapping[str, Tensor] | None = None  # by an earlier run, which took some of the steps
    progress: Progress = silent


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """What an attack has found."""

    forwards: float  # paid for the first video: what serves every video is paid in whole
    videos: Callable[[], list[Video]]  # makes the task's videos with it
    saved: Mapping[str, Tensor] | None = None  # what an attack of more steps goes on from


Attack = Callable[[Task, Effort], Reached]
"""Called while the weights are edited and no gradient flows into them."""


class Descent:
    """AdamW on some tensors; gone on with from what was saved, it is as without a stop."""

    def __init__(self, start: Sequence[Tensor], rate: float, effort: Effort, decay: float = 0.0) -> None:
        self.tensors = [tensor.detach().clone().requires_grad_(True) for tensor in start]
        self._optimiser = torch.optim.AdamW(self.tensors, lr=rate, weight_decay=decay)
        self._effort, self._taken = effort, 0
        if effort.saved:
            self._load(effort.saved)

    def run(self, loss: Callable[[int], Tensor], choices: int) -> dict[str, Tensor]:
        """Go down a loss, of one of so many choices at each step; return what ``Effort.saved`` takes."""
        generator = torch.Generator().manual_seed(self._effort.seed)
        for step in range(self._effort.steps):
            choice = int(torch.randint(choices, (1,), generator=generator))
            if step < self._taken:
                continue
            self._optimiser.zero_grad()
            loss(choice).backward()
            self._optimiser.step()
            self._effort.progress((step + 1) / self._effort.steps, f"Step {step + 1} of {self._effort.steps}")
        parts: dict[str, Tensor] = {"taken": torch.tensor([float(self._effort.steps)])}
        for i, tensor in enumerate(self.tensors):
            state = self._optimiser.state[tensor]
            parts |= {f"{i}.{name}": state[name].flatten().clone() for name in _MOMENTS}
            parts[f"{i}.at"] = tensor.detach().flatten().clone()
        return parts

    def _load(self, saved: Mapping[str, Tensor]) -> None:
        self._taken = int(saved["taken"])
        for i, tensor in enumerate(self.tensors):
            with torch.no_grad():
                tensor.copy_(saved[f"{i}.at"].view_as(tensor))
            moments = {name: saved[f"{i}.{name}"].view_as(tensor).clone() for name in _MOMENTS[1:]}
            self._optimiser.state[tensor] = {"step": saved[f"{i}.step"][0].clone(), **moments}


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
