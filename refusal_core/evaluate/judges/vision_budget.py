"""How much may still be asked: requests and tokens, counted across threads."""

from __future__ import annotations

import threading


class Budget:
    """A cap on requests and tokens; None is no cap."""

    def __init__(self, max_requests: int | None, max_tokens: int | None) -> None:
        self._max_requests, self._max_tokens = max_requests, max_tokens
        self._lock = threading.Lock()
        self.requests, self.tokens = 0, 0

    def take(self) -> bool:
        """Count one request; False, and nothing counted, where a cap is reached."""
        with self._lock:
            if self._max_requests is not None and self.requests >= self._max_requests:
                return False
            if self._max_tokens is not None and self.tokens >= self._max_tokens:
                return False
            self.requests += 1
            return True

    def spend(self, tokens: object) -> None:
        """Count the tokens that a server says it used; what is no number counts as none."""
        if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0:
            with self._lock:
                self.tokens += tokens
