"""Gradients through a denoiser: what baselines that train and attacks share. Knows no edits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from refusal_core.models.compiling import uncompiled


def predicted(denoiser: nn.Module, arguments: Mapping[str, Any]) -> Tensor:
    """Return what the denoiser predicts, noise or velocity, for a call of the pipeline."""
    with uncompiled():
        return denoiser(**{**arguments, "return_dict": False})[0]


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let no gradient flow into the weights of a module while the block runs."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in parameters:
            p.requires_grad_(False)
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
