"""Intervals against the textbook's equation and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal_core.evaluate.measures.statistics import wilson

Z = 1.959963984540054
cheap = settings(derandomize=True, max_examples=100, deadline=None)
trials = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 200, 0.0, 0.018845),
        (5, 10, 0.236593, 0.763407),
        (200, 200, 0.981155, 1.0),
        (1, 200, 0.000883, 0.027774),
        (0, 1, 0.0, 0.793451),
        (1, 1, 0.206549, 1.0),
    ],
)
def test_wilson_intervals_have_their_textbook_values(hits: int, n: int, low: float, high: float) -> None:
    found = wilson(hits, n)
    assert found.rate == hits / n
    assert found.low == pytest.approx(low, abs=1e-6)
    assert found.high == pytest.approx(high, abs=1e-6)


@cheap
@given(trials)
def test_the_ends_solve_wilsons_equation(case: tuple[int, int]) -> None:
    """They are the rates p with (share - p)^2 = z^2 p (1 - p) / n: the roots of one quadratic."""
    hits, n = case
    share = hits / n
    low, high = sorted(np.roots([1 + Z**2 / n, -(2 * share + Z**2 / n), share**2]).real)
    found = wilson(hits, n)
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.high == pytest.approx(high, abs=1e-9)


@cheap
@given(trials)
def test_an_interval_holds_its_rate_within_zero_and_one_and_mirrors(case: tuple[int, int]) -> None:
    hits, n = case
    found, mirrored = wilson(hits, n), wilson(n - hits, n)
    assert found.low is not None and found.rate is not None and found.high is not None
    assert mirrored.low is not None
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert found.low < found.high
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-12)


def test_more_trials_narrow_the_interval_and_none_of_many_is_never_certain() -> None:
    few, many = wilson(1, 10), wilson(100, 1000)
    assert few.low is not None and few.high is not None and many.low is not None and many.high is not None
    assert many.high - many.low < few.high - few.low
    never = wilson(0, 1000)
    assert never.low == 0.0
    assert never.high == pytest.approx(Z**2 / (1000 + Z**2))


def test_the_interval_leans_to_the_middle_as_the_plain_normal_one_does_not() -> None:
    found, plain = wilson(10, 1000), Z * math.sqrt(0.01 * 0.99 / 1000)
    assert found.low is not None and found.high is not None
    assert found.high - 0.01 > plain > 0.01 - found.low


def test_no_trials_give_no_rate() -> None:
    found = wilson(0, 0)
    assert (found.rate, found.low, found.high) == (None, None, None)


@pytest.mark.parametrize(("hits", "n"), [(3, 2), (-1, 2), (1, 0), (0, -1)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"^{hits} hits of {n}$"):
        wilson(hits, n)
