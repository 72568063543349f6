"""Intervals and separations against brute force and known values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal_core.separation import auc, d_prime, mean_by_group
from refusal_core.statistics import wilson

scores = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@settings(derandomize=True, max_examples=80)
@given(scores, scores)
def test_auc_counts_every_comparison_and_ties_half(unsafe: list[int], safe: list[int]) -> None:
    brute = sum((u > s) + 0.5 * (u == s) for u in unsafe for s in safe) / (len(unsafe) * len(safe))
    found = auc(torch.tensor(unsafe, dtype=torch.float64), torch.tensor(safe, dtype=torch.float64))
    assert found == pytest.approx(brute)


def test_auc_has_its_three_landmarks() -> None:
    low, high = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert (auc(high, low), auc(low, high), auc(low, low)) == (1.0, 0.0, 0.5)


def test_d_prime_is_the_distance_in_spreads() -> None:
    a, b = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])
    assert d_prime(a, b) == pytest.approx(1 / math.sqrt(2))
    assert d_prime(b, a) == pytest.approx(-1 / math.sqrt(2))
    assert d_prime(a, a) == 0.0
    assert d_prime(torch.ones(3), torch.zeros(3)) == 1000.0


def test_scores_are_averaged_by_group() -> None:
    found = mean_by_group(torch.tensor([1.0, 3.0, 10.0]), torch.tensor([4, 4, 9]))
    assert found.tolist() == [2.0, 10.0]


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 200, 0.0, 0.018847),
        (5, 10, 0.236593, 0.763407),
        (200, 200, 0.981153, 1.0),
        (1, 200, 0.000883, 0.027778),
    ],
)
def test_wilson_intervals_have_their_textbook_values(hits: int, n: int, low: float, high: float) -> None:
    found = wilson(hits, n)
    assert found.rate == hits / n
    assert found.low == pytest.approx(low, abs=2e-5)
    assert found.high == pytest.approx(high, abs=2e-5)


def test_no_trials_give_no_rate() -> None:
    found = wilson(0, 0)
    assert (found.rate, found.low, found.high) == (None, None, None)
    with pytest.raises(ValueError, match="3 hits of 2"):
        wilson(3, 2)
