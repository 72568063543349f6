"""Where there is ZeroGPU, work on the model runs inside a GPU call; elsewhere right here.

Such a call runs in a process of its own: nothing that it changes comes back but its results, so an edit is
made, used and undone inside one call. What goes in and out must be plain values; progress and stopping do
not reach over there. Without the package ``spaces`` none of this is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from refusal_core.progress import Progress, silent
from refusal_core.workbench.workbench import Workbench

SECONDS = int(os.environ.get("REFUSAL_GPU_SECONDS", "90"))  # wanted at most, of the visitor's quota
_workbench: Workbench | None = None  # it is there on both sides
_remote: Callable[..., Iterator[Any]] | None = None


def set_up(workbench: Workbench) -> None:
    """Name the workbench whose model the calls use; to be called before the first."""
    global _workbench, _remote
    _workbench = workbench
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces

        _remote = spaces.GPU(duration=SECONDS)(_run_there)


def _run_there(work: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Any]:
    yield from _results(work(_workbench, *arguments, silent, **named))


def _results(result: Any) -> Iterator[Any]:
    if isinstance(result, Iterator):
        yield from result
    else:
        yield result


# What work returns is as different as what it does: hence Any.
def stream(
    work: Callable[..., Any], workbench: Workbench, *arguments: Any, progress: Progress, **named: Any
) -> Iterator[Any]:
    """Run a function that takes the workbench, these arguments and ``progress``; yield what it yields."""
    if _remote is None:
        yield from _results(work(workbench, *arguments, progress, **named))
    else:
        yield from _remote(work, arguments, named)


def call(
    work: Callable[..., Any], workbench: Workbench, *arguments: Any, progress: Progress, **named: Any
) -> Any:
    """Run a function the same way and return what it returns."""
    *_, result = stream(work, workbench, *arguments, progress=progress, **named)
    return result
