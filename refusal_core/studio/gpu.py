"""Where there is ZeroGPU, work on the model runs inside a GPU call; elsewhere right here.

Such a call runs in a process of its own: nothing that it changes comes back but its results, so an edit is
made, used and undone inside one call. What goes in and out must be plain values; progress and stopping do
not reach over there. Without the package ``spaces`` none of this is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from refusal_core.progress import Progress, silent
from refusal_core.workbench import Workbench

T = TypeVar("T")
SECONDS = int(os.environ.get("REFUSAL_GPU_SECONDS", "90"))  # asked for at most, of the visitor's quota
_BENCH = "the workbench"  # stands for it in a call: it is there on both sides
_bench: Workbench | None = None
_remote: Callable[..., Iterator[Any]] | None = None


def set_up(workbench: Workbench) -> None:
    """Name the workbench whose model the calls use; to be called before the first."""
    global _bench, _remote
    _bench = workbench
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces

        _remote = spaces.GPU(duration=SECONDS)(_run_there)


def _run_there(work: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Any]:
    there = [_bench if a == _BENCH else a for a in arguments]
    found = work(*there, silent, **named)
    if isinstance(found, Iterator):
        yield from found
    else:
        yield found


def stream(
    work: Callable[..., Iterator[T]], *arguments: Any, progress: Progress, **named: Any
) -> Iterator[T]:
    """Run a module's or class's generator function, which takes ``progress`` after these arguments."""
    if _remote is None:
        yield from work(*arguments, progress, **named)
        return
    packed = tuple(_BENCH if isinstance(a, Workbench) else a for a in arguments)
    yield from _remote(work, packed, named)


def call(work: Callable[..., T], *arguments: Any, progress: Progress, **named: Any) -> T:
    """Run a function the same way and return what it returns."""
    if _remote is None:
        return work(*arguments, progress, **named)
    packed = tuple(_BENCH if isinstance(a, Workbench) else a for a in arguments)
    *_, found = _remote(work, packed, named)
    return found
