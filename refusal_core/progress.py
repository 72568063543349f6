"""One mechanism for progress and for cancelling: a callable that may raise ``Cancelled``."""

from __future__ import annotations

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
