"""How much one visitor may ask for. Nothing is limited on one's own machine."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from refusal_core.errors import InputError

MAX_SESSIONS = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an app."""

    jobs_a_minute: float | None = None  # of one session; None: no limit
    burst: int = 6  # so many at once before the rate counts
    queue: int = 20  # jobs that wait, of all sessions
    sessions: int = 500


PRIVATE = Limits()
PUBLIC = Limits(jobs_a_minute=6.0, queue=20)


class Rates:
    """A token bucket for each session."""

    def __init__(self, limits: Limits, clock: object = time) -> None:
        self._limits, self._clock = limits, clock
        self._guard = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def take(self, session: str) -> None:
        """Count one job; raises InputError with the seconds to wait where there were too many."""
        rate = self._limits.jobs_a_minute
        if rate is None:
            return
        now = self._clock.monotonic()  # type: ignore[attr-defined]
        with self._guard:
            tokens, then = self._buckets.pop(session, (float(self._limits.burst), now))
            tokens = min(float(self._limits.burst), tokens + (now - then) * rate / 60)
            self._buckets[session] = (max(0.0, tokens - 1), now) if tokens >= 1 else (tokens, now)
            while len(self._buckets) > MAX_SESSIONS:
                self._buckets.popitem(last=False)
        if tokens < 1:
            wait = (1 - tokens) * 60 / rate
            raise InputError(f"That was a lot at once; please wait {wait:.0f} seconds and try again.")
