"""Ctrl-C that would be lost: Python drops it where it comes while a ``__del__`` runs, of any library."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN = 0.02  # s


@contextmanager
def insisting() -> Iterator[list[bool]]:
    """Let a Ctrl-C that is dropped come again until it is heard; yield a list, empty where none was."""
    dropped: list[bool] = []
    over: list[bool] = []
    waiting: list[bool] = []  # one at a time: what is heard must not be broken off by another
    before, main = sys.unraisablehook, threading.main_thread().ident or 0

    def again() -> None:
        time.sleep(AGAIN)
        waiting.clear()
        if not over:  # a signal to the main thread ends what it waits for; a flag of Python's would not
            signal.pthread_kill(main, signal.SIGINT)

    def look(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            before(unraisable)
            return
        dropped.append(True)
        if not waiting:
            waiting.append(True)
            # Not by ``threading``, whose locks the code that was broken off may hold.
            _thread.start_new_thread(again, ())

    sys.unraisablehook = look
    try:
        yield dropped
    finally:
        over.append(True)
        sys.unraisablehook = before
