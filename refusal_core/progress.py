"""One mechanism for progress and for cancelling: a callable that may raise ``Cancelled``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
Progress = Callable[[float, str], None]
"""Called with the fraction done (0 to 1) and a sentence; raises ``Cancelled`` to stop the work."""


def silent(fraction: float, sentence: str) -> None:
    """Show nothing, never cancel."""


def part(progress: Progress, low: float, high: float) -> Progress:
    """Return a progress whose 0 to 1 is the stretch from ``low`` to ``high`` of another."""
    return lambda fraction, sentence: progress(low + (high - low) * fraction, sentence)


def each(progress: Progress, items: Sequence[T]) -> Iterator[tuple[T, Progress]]:
    """Yield each item with a progress for its part of the whole."""
    for i, item in enumerate(items):
        yield item, part(progress, i / len(items), (i + 1) / len(items))


def named(progress: Progress, sentence: str) -> Progress:
    """Return a progress that always tells one sentence."""
    return lambda fraction, _sentence: progress(fraction, sentence)


def timed(progress: Progress) -> Progress:
    """Return a progress that also tells how long the rest takes, once a part of equal steps is done."""
    start = time.monotonic()

    def tell(fraction: float, sentence: str) -> None:
        left = (time.monotonic() - start) * (1 / fraction - 1) if fraction > 0 else 0.0
        progress(fraction, f"{sentence}, about {in_words(left)} left" if left >= 10 else sentence)

    return tell


def in_words(seconds: float) -> str:
    """Return a time such as 40 s, 3 min, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
