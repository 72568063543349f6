"""A resumable training loop: Muon and AdamW, EMA, checkpoints in safetensors. Knows no model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from refusal_core.io.files import write_atomic

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast a stage trains. Rates fall by a cosine to a fiftieth."""

    steps: int
    muon: float
    adam: float
    warmup: int = 100
    ema: float = 0.999
    checkpoint_seconds: float = 60.0

    def rate(self, step: int) -> float:
        """Return the factor on both learning rates at ``step``."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


class _Optimiser:
    """Muon on the matrices of the network, AdamW on everything else.

    Muon takes matrices only: a convolution is seen as out x rest through a view of the same memory.
    """

    def __init__(self, modules: Mapping[str, nn.Module], schedule: Schedule) -> None:
        self.schedule = schedule
        self.named = {
            f"{key}.{name}": p for key, module in modules.items() for name, p in module.named_parameters()
        }
        matrices = {n: p for n, p in self.named.items() if _is_matrix(n, p)}
        self.views = [(p, nn.Parameter(p.data.view(p.shape[0], -1))) for p in matrices.values()]
        rest = [p for n, p in self.named.items() if n not in matrices]
        views = [view for _, view in self.views]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(views, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            "adam": torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0),
        }
        self.average = {n: p.detach().clone() for n, p in self.named.items()}

    def step(self, step: int) -> None:
        torch.nn.utils.clip_grad_norm_(self.named.values(), 1.0)
        for label, optimiser in self.optimisers.items():
            optimiser.param_groups[0]["lr"] = getattr(self.schedule, label) * self.schedule.rate(step)
        for parameter, view in self.views:
            view.grad = None if parameter.grad is None else parameter.grad.view(view.shape)
        for optimiser in self.optimisers.values():
            optimiser.step()
        decay = min(self.schedule.ema, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(self.average.values()), [p.data for p in self.named.values()], 1 - decay)
        for parameter in self.named.values():
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        kept = {f"weight/{n}": p.data for n, p in self.named.items()}
        kept |= {f"average/{n}": t for n, t in self.average.items()}
        for label, optimiser in self.optimisers.items():
            for index, state in optimiser.state_dict()["state"].items():
                kept |= {f"{label}/{index}/{k}": torch.as_tensor(v) for k, v in state.items()}
        return {name: tensor.contiguous().clone() for name, tensor in kept.items()}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(kept[f"weight/{name}"])
                self.average[name].copy_(kept[f"average/{name}"])
        for label, optimiser in self.optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in kept.items():
                if key.startswith(f"{label}/"):
                    _, index, name = key.split("/")
                    state.setdefault(int(index), {})[name] = tensor
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Return whether Muon takes it: hidden matrices, not embeddings, biases, norms or heads."""
    outer = ("shared", "embed", "proj_out", "relative", "scale_shift", "gamma", "norm")
    return parameter.ndim >= 2 and min(parameter.shape[:2]) > 3 and not any(w in name for w in outer)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], int]:
    """Return the tensors and the step of a checkpoint."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, int(file.metadata()["step"])


def is_finished(path: Path, schedule: Schedule) -> bool:
    """Return whether a stage's checkpoint has all its steps, so that its data need not be made again."""
    return path.exists() and load_checkpoint(path)[1] >= schedule.steps


def train_stage(
    title: str,
    modules: Mapping[str, nn.Module],
    loss_of_step: Callable[[int], Tensor],
    schedule: Schedule,
    checkpoint: Path,
) -> float:
    """Train until ``schedule.steps``, going on from ``checkpoint`` where there is one.

    ``loss_of_step`` draws its batch from the step's number alone, so that a run that was killed and
    started again sees the same batches. On return the modules hold their averaged (EMA) weights.

    Returns:
        The loss, averaged over the last steps (0 when nothing was left to do).
    """
    optimiser = _Optimiser(modules, schedule)
    start = 0
    if checkpoint.exists():
        tensors, start = load_checkpoint(checkpoint)
        optimiser.restore(tensors)
    smooth, saved = 0.0, time.monotonic()
    for step in range(start, schedule.steps):
        loss = loss_of_step(step)
        loss.backward()
        optimiser.step(step)
        value = float(loss.detach())
        smooth = value if step == start else 0.98 * smooth + 0.02 * value
        if step % 50 == 49:
            logger.info("%s: step %d of %d, loss %.4f", title, step + 1, schedule.steps, smooth)
        if time.monotonic() - saved > schedule.checkpoint_seconds or step + 1 == schedule.steps:
            write_atomic(
                checkpoint, partial(save_file, optimiser.tensors(), metadata={"step": str(step + 1)})
            )
            saved = time.monotonic()
    with torch.no_grad():
        for name, parameter in optimiser.named.items():
            parameter.copy_(optimiser.average[name])
    return smooth
