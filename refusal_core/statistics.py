"""Intervals for rates. Plain numbers, no tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959963984540054  # the 97.5 % point of the normal distribution


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its Wilson 95 % interval; all three are NaN-free and None where n is 0."""

    rate: float | None
    low: float | None
    high: float | None


def wilson(hits: int, n: int) -> Rate:
    """Return the share of hits with its Wilson score interval (Wilson 1927), 95 %.

    Args:
        hits: number of successes, 0 to n.
        n: number of trials; 0 gives no rate at all rather than a wrong one.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n}")
    if n == 0:
        return Rate(None, None, None)
    share, z2 = hits / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Rate(share, 0.0 if hits == 0 else centre - half, 1.0 if hits == n else centre + half)
