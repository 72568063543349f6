"""Forward pre-hooks that read what enters a layer, and leave nothing behind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class StopForward(Exception):
    """Raised inside a forward pass once everything wanted has been read."""


@contextmanager
def tap(layers: Mapping[str, nn.Module], read: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``read(name, x)`` with the first input of each layer while the block runs."""

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _module, inputs: read(name, inputs[0])

    with _hooks([layer.register_forward_pre_hook(hook_of(name)) for name, layer in layers.items()]):
        yield


@contextmanager
def watch_calls(
    modules: tuple[nn.Module, ...], before: Callable[[nn.Module, dict[str, Any]], None]
) -> Iterator[None]:
    """Call ``before(module, arguments)`` at the start of each forward, all arguments by their names."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        plain = getattr(module, "_orig_mod", module)  # torch.compile hides the signature
        before(plain, dict(inspect.signature(plain.forward).bind(*args, **kwargs).arguments))

    with _hooks([m.register_forward_pre_hook(hook, with_kwargs=True) for m in modules]):
        yield


@contextmanager
def _hooks(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
