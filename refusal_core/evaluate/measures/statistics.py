"""Intervals and tests for rates. Plain numbers, no tensors."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)


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
    share, spread = hits / n, Z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    # At the ends the bound is exact: rounding would leave it a hair beside.
    return Rate(share, centre - half if hits else 0.0, centre + half if hits < n else 1.0)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p of McNemar's exact test (McNemar 1947) on paired outcomes.

    Args:
        only_first: pairs in which the first member alone is a hit.
        only_second: pairs in which the second member alone is one.

    Returns:
        The chance of a split at least as uneven if both were hit equally often; 1 where no pair differs.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"{only_first} and {only_second} pairs")
    if only_first + only_second == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
