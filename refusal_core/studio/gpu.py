"""Where there is ZeroGPU, work on the model runs inside a GPU call; elsewhere right here.

Such a call runs in a process of its own: nothing that it changes comes back but its results, so an edit is
made, used and undone inside one call. What goes in and out must be plain values; progress and stopping do
not reach over there; activations do, as files. A call asks for the time that its passes of the denoiser took
in former calls. Without the package ``spaces`` none of this is used.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from refusal_core.errors import RefusalError
from refusal_core.progress import Progress, silent
from refusal_core.workbench.price import WorkPrice, price_of
from refusal_core.workbench.workbench import Workbench

SECONDS = int(os.environ.get("REFUSAL_GPU_SECONDS", "90"))  # wanted at most, of the visitor's quota
LEAST = 15  # seconds: weights have to reach the GPU first
MARGIN = 1.5  # times what the passes took so far
_workbench: Workbench | None = None  # it is there on both sides
_remote: Callable[..., Iterator[Any]] | None = None
_paces: dict[str, deque[float]] = {}  # seconds a pass: of calls that read alone, of those that made videos


@dataclass(frozen=True, slots=True)
class _Took:
    """What a call tells last: how long it ran, without its wait for a GPU."""

    seconds: float


def set_up(workbench: Workbench) -> None:
    """Name the workbench whose model the calls use; to be called before the first."""
    global _workbench, _remote
    _workbench = workbench
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces

        workbench.share_activations()
        _paces.clear()
        _remote = spaces.GPU(duration=_duration)(_run_there)


def _run_there(work: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Any]:
    start = time.perf_counter()
    yield from _results(work(_workbench, *arguments, silent, **named))
    yield _Took(time.perf_counter() - start)


def _duration(work: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> int:
    """Return the seconds that a call asks for; SECONDS while there is no former call to tell."""
    found = _price(work, arguments)
    making = max(_paces.get("making", ()), default=None)
    reading = max(_paces.get("reading", ()), default=making)
    if found is None or (found.reading and reading is None) or (found.making and making is None):
        return SECONDS
    wanted = MARGIN * (found.reading * (reading or 0.0) + found.making * (making or 0.0))
    return min(SECONDS, LEAST + math.ceil(wanted))


def _price(work: Callable[..., Any], arguments: tuple[Any, ...]) -> WorkPrice | None:
    """Return what a call takes; None where that is not known, or where its own error will say why."""
    assert _workbench is not None
    with suppress(RefusalError):
        return price_of(_workbench, work, arguments)
    return None


def _learn(found: WorkPrice | None, took: _Took) -> None:
    if found is not None and (count := found.making or found.reading):
        kind = "making" if found.making else "reading"
        _paces.setdefault(kind, deque(maxlen=5)).append(took.seconds / count)


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
        found = _price(work, arguments)
        for result in _remote(work, arguments, named):
            if isinstance(result, _Took):
                _learn(found, result)
            else:
                yield result


def call(
    work: Callable[..., Any], workbench: Workbench, *arguments: Any, progress: Progress, **named: Any
) -> Any:
    """Run a function the same way and return what it returns."""
    *_, result = stream(work, workbench, *arguments, progress=progress, **named)
    return result
