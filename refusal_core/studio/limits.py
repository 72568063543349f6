"""How much one visitor may ask for. Nothing is limited on one's own machine."""

from __future__ import annotations

import math
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
    neighbours: int = 4  # sessions at one address that may do so: anybody can call themselves a new session
    queue: int = 20  # jobs that wait, of all sessions
    sessions: int = 500


PRIVATE = Limits()
PUBLIC = Limits(jobs_a_minute=6.0, queue=20)


class Rates:
    """A token bucket for each session, and a larger one for each address."""

    def __init__(self, limits: Limits, clock: object = time) -> None:
        self._limits, self._clock = limits, clock
        self._guard = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def take(self, session: str, address: str = "") -> None:
        """Count one job; raises InputError with the seconds to wait where there were too many."""
        if self._limits.jobs_a_minute is None:
            return
        waits = [self._wait(f"session {session}", 1)]
        if address:
            waits.append(self._wait(f"address {address}", self._limits.neighbours))
        if max(waits) > 0:
            seconds = math.ceil(max(waits))
            raise InputError(f"That was a lot at once; please wait {seconds} seconds and try again.")

    def _wait(self, name: str, share: int) -> float:
        """Take a token from a bucket; return how many seconds there is none, 0 where there was one."""
        now, most = self._clock.monotonic(), float(self._limits.burst * share)  # type: ignore[attr-defined]
        a_second = (self._limits.jobs_a_minute or 0.0) * share / 60
        with self._guard:
            tokens, then = self._buckets.pop(name, (most, now))
            tokens = min(most, tokens + (now - then) * a_second)
            self._buckets[name] = (tokens - 1, now) if tokens >= 1 else (tokens, now)
            while len(self._buckets) > MAX_SESSIONS:
                self._buckets.popitem(last=False)
        return 0.0 if tokens >= 1 else (1 - tokens) / a_second
