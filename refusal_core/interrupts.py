"""Ctrl-C held back while weights change hands. Knows no weights.

Python runs a signal's handler between any two steps of the main thread, so a ``finally`` can be broken off
before its first line. While signals are held, their handlers wait for functions marked ``unbroken`` to
end; in all other code, and in functions marked ``breakable`` that these call, they run at once, as ever.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# Those that are sent to stop a program, or to wake it; the others are not handled in Python.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK", "SIGALRM", "SIGUSR1", "SIGUSR2")
_SIGNALS = tuple(int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name))

_breaks: dict[CodeType, bool] = {}  # of each marked function
_handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}  # of the signals that are held
_waiting: list[int] = []
_depth = 0  # blocks within blocks hold once


def unbroken(function: F) -> F:
    """Mark a function that held signals may not break off, nor what it calls."""
    _breaks[function.__code__] = False
    return function


def breakable(function: F) -> F:
    """Mark a function that may be broken off although an ``unbroken`` one calls it."""
    _breaks[function.__code__] = True
    return function


def hold() -> None:
    """Hold the signals that Python handles; to be called by an ``unbroken`` function.

    Python interrupts the main thread alone, so in others nothing is done.
    """
    global _depth
    if threading.current_thread() is not threading.main_thread():
        return
    if _depth == 0:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and handler is not _held:
                _handlers[number] = handler
                signal.signal(number, _held)
    _depth += 1


def let_go() -> None:
    """End one ``hold``, then run the handlers of the signals that came meanwhile."""
    global _depth
    if threading.current_thread() is not threading.main_thread() or _depth == 0:
        return
    _depth -= 1
    if _depth == 0:
        for number, handler in _handlers.items():
            if signal.getsignal(number) is _held:  # the block may have set another
                signal.signal(number, handler)
    run_held()


def run_held() -> None:
    """Run the handlers of the signals that are held by now; they may raise, as Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():
        while _waiting:
            number = _waiting.pop(0)
            _handlers[number](number, None)


def _held(number: int, frame: FrameType | None) -> None:
    at: FrameType | None = frame
    while at is not None and at.f_code not in _breaks:
        at = at.f_back
    if at is None or _breaks[at.f_code]:
        _handlers[number](number, frame)
    else:
        _waiting.append(number)
