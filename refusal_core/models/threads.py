"""Fewer threads while a block runs: where work is small, a second one is only waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def one_thread(count: Callable[[], int], choose: Callable[[int], object]) -> Iterator[None]:
    """Keep a library to one thread, and give it back what it had.

    Args:
        count: the library's own function that returns how many it uses.
        choose: the one that sets it.
    """
    before = count()
    choose(1)
    try:
        yield
    finally:
        choose(before)
