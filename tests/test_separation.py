"""How well scores separate, against counting every comparison by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refusal_core import subspace
from refusal_core.activations import Activations, Samples
from refusal_core.directions import estimate
from refusal_core.evaluate import estimate_sizes
from refusal_core.models.model import Fingerprint
from refusal_core.models.sites import Site
from refusal_core.separation import auc, d_prime, left_out_scores, mean_by_group
from refusal_core.settings import CaptureSettings, Method, SubspaceSettings
from refusal_core.subspace import whiten

few_values = st.lists(st.integers(-3, 3), min_size=1, max_size=12)  # few values: many ties
cheap = settings(derandomize=True, max_examples=80, deadline=None)


def scores(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def brute(unsafe: list[int], safe: list[int], tie: float = 0.5) -> float:
    """Every comparison, O(n m)."""
    wins = sum(1.0 if u > s else tie if u == s else 0.0 for u in unsafe for s in safe)
    return wins / (len(unsafe) * len(safe))


@cheap
@given(few_values, few_values)
def test_auc_counts_every_comparison_and_ties_half(unsafe: list[int], safe: list[int]) -> None:
    found = auc(scores(unsafe), scores(safe))
    assert found == pytest.approx(brute(unsafe, safe), abs=1e-15)
    if set(unsafe) & set(safe):
        assert found != pytest.approx(brute(unsafe, safe, tie=0.0), abs=1e-9)


def test_auc_has_its_three_landmarks() -> None:
    low, high = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert (auc(high, low), auc(low, high), auc(low, low)) == (1.0, 0.0, 0.5)
    assert auc(torch.ones(3), torch.ones(5)) == 0.5
    assert auc(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])) == 0.5
    assert auc(torch.tensor([1.0, 4.0]), torch.tensor([2.0])) == 0.5
    assert auc(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 3.5])) == 0.75


@pytest.mark.parametrize(("n", "m"), [(100_000, 10), (10, 100_000), (46_800, 46_800)])
def test_the_landmarks_are_exact_for_many_rows(n: int, m: int) -> None:
    """Sums of ranks pass 2^24, where float32 stops counting."""
    low, high = torch.arange(n).float(), n + torch.arange(m).float()
    assert (auc(high, low), auc(low, high)) == (1.0, 0.0)
    assert auc(torch.zeros(n), torch.zeros(m)) == 0.5


@cheap
@given(few_values, few_values)
def test_auc_knows_only_the_order_of_the_scores(unsafe: list[int], safe: list[int]) -> None:
    u, s = scores(unsafe), scores(safe)
    assert auc(u.exp() * 7 - 3, s.exp() * 7 - 3) == auc(u, s)
    assert auc(u.flip(0), s.flip(0)) == auc(u, s)
    assert auc(u, s) + auc(s, u) == pytest.approx(1.0, abs=1e-15)
    assert auc(-u, -s) == pytest.approx(1.0 - auc(u, s), abs=1e-15)


def test_auc_saturates_where_d_prime_goes_on() -> None:
    safe = torch.tensor([0.0, 1.0])
    near, far = safe + 2, safe + 20
    assert auc(near, safe) == auc(far, safe) == 1.0
    assert d_prime(far, safe) == pytest.approx(10 * d_prime(near, safe))


def test_d_prime_is_the_distance_in_spreads() -> None:
    a, b = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])
    assert d_prime(a, b) == pytest.approx(1 / math.sqrt(2))
    assert d_prime(b, a) == pytest.approx(-1 / math.sqrt(2))
    assert d_prime(5 * a - 7, 5 * b - 7) == pytest.approx(d_prime(a, b))
    assert d_prime(a, 2 * b) != pytest.approx(d_prime(a, b))
    unequal = torch.tensor([0.0, 6.0])  # variances 2 and 18, their mean 10
    assert d_prime(a, unequal) == pytest.approx(-1 / math.sqrt(10))


def test_d_prime_is_bounded_where_nothing_varies() -> None:
    a = torch.tensor([1.0, 3.0])
    assert d_prime(a, a) == 0.0
    assert d_prime(torch.ones(3), torch.ones(3)) == 0.0
    assert d_prime(torch.ones(3), torch.zeros(3)) == 1000.0
    assert d_prime(torch.zeros(3), torch.ones(3)) == -1000.0


def test_scores_are_averaged_by_group() -> None:
    found = mean_by_group(torch.tensor([1.0, 10.0, 3.0, 5.0]), torch.tensor([4, 9, 4, 4]))
    assert found.tolist() == [3.0, 10.0]
    assert found.dtype == torch.float32
    assert mean_by_group(torch.tensor([1.0, 2.0]), torch.tensor([1, 0])).tolist() == [2.0, 1.0]


@cheap
@given(few_values, st.integers(0, 1000))
def test_the_group_means_weighed_by_their_sizes_give_the_mean(values: list[int], seed: int) -> None:
    group = torch.randint(0, 4, (len(values),), generator=torch.Generator().manual_seed(seed))
    means = mean_by_group(scores(values), group)
    by_hand = [
        sum(v for v, g in zip(values, group.tolist(), strict=True) if g == name) / group.tolist().count(name)
        for name in sorted(set(group.tolist()))
    ]
    assert means.tolist() == pytest.approx(by_hand, abs=1e-12)


# --- pairs left out, without solving anything large again ----------------------------------------------


def left_out_by_hand(
    unsafe: np.ndarray, safe: np.ndarray, neutral: np.ndarray, groups: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each pair's rows read by a detector that is worked out anew from all other rows, in float64."""
    whole = np.concatenate([safe, neutral])
    shrink = 0.02 * np.trace(np.cov(whole.T)) / safe.shape[1] * (len(whole) - 1)  # the whole's, as it says
    read_unsafe, read_safe = np.empty(len(safe)), np.empty(len(safe))
    for group in np.unique(groups):
        out = groups == group
        r = (unsafe - safe)[~out]
        x = np.concatenate([safe[~out], neutral])
        sigma = (np.cov(x.T) * (len(x) - 1) + shrink * np.eye(len(x.T))) / (len(x) - 1)
        values, u = scipy.linalg.eigh(r.T @ r / len(r), sigma)
        q = u[:, np.argsort(values)[::-1][:rank]]  # generalised eigenvectors: Sigma^-1 U already
        lead = q @ (q.T @ r.mean(0))
        lead /= lead @ r.mean(0)
        read_unsafe[out], read_safe[out] = unsafe[out] @ lead, safe[out] @ lead
    return read_unsafe, read_safe


@pytest.mark.parametrize(("width", "rows", "ordinary"), [(40, 30, 200), (300, 20, 50)])
@pytest.mark.parametrize("rank", [1, 4])
def test_scores_of_left_out_pairs_are_those_of_solving_again(
    width: int, rows: int, ordinary: int, rank: int
) -> None:
    rng = np.random.default_rng(width + rank)
    safe = rng.normal(3, 1, (rows, width))
    unsafe = safe + rng.normal(0, 1, width) + rng.normal(0, 0.5, (rows, width))
    neutral, groups = rng.normal(3, 1, (ordinary, width)), np.arange(rows) % 5  # rows of a pair lie apart
    a, b, c = (torch.from_numpy(x) for x in (unsafe, safe, neutral))
    solved = whiten(a - b, torch.cat([b, c]), shrinkage=0.02)
    found = left_out_scores(solved.gram, torch.from_numpy(groups), rows + ordinary, rank)
    wanted = left_out_by_hand(unsafe, safe, neutral, groups, rank)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-7, atol=1e-9)
    whole = torch.cat([a, b]) @ (solved.detect[:, :rank] @ (solved.detect[:, :rank].T @ (a - b).mean(0)))
    assert not np.allclose(whole[:rows].numpy() / float(whole.abs().max()), wanted[0], atol=1e-3)


@pytest.mark.parametrize("width", [24, 200], ids=["more rows than inputs", "fewer"])
@pytest.mark.parametrize("method", ["rv", "pca", "cpca"])
def test_a_pair_left_out_is_one_that_was_never_there(method: Method, width: int) -> None:
    """The folds share the neutral covariance; their figures are those of solving each anew, in float64."""
    draw = np.random.default_rng(3)
    shape, pairs, rank = np.linspace(2, 0.1, width), np.arange(30) % 5, 2
    safe, noise, neutral = (draw.normal(size=(n, width)) * shape for n in (30, 30, 40))
    unsafe = safe + 0.4 * noise + draw.normal(size=width) * shape[::-1]
    readings = np.empty((2, 30))
    for pair in range(5):
        kept, out = pairs != pair, pairs == pair
        r = (unsafe - safe)[kept]
        lead = r.mean(0)
        if method != "rv":
            matrix = np.cov(r.T)
            if method == "cpca":
                ordinary = np.cov(neutral.T)
                matrix = matrix - 0.5 * ordinary * np.trace(matrix) / np.trace(ordinary)
            top = np.linalg.eigh(matrix)[1][:, -rank:]
            lead = top @ (top.T @ lead)
        lead = lead / (lead @ r.mean(0))
        readings[:, out] = unsafe[out] @ lead, safe[out] @ lead
    rows = Samples(*map(torch.from_numpy, (unsafe, safe, neutral, pairs)), False)
    site = Site("transformer.blocks.0.attn2.to_k", 0, "text", width, width, True)
    seen = Activations(
        Fingerprint("wan", "WanPipeline", "0", "0"), "fire", (("a", "b"),), CaptureSettings(), {site: rows}
    )
    asked = SubspaceSettings(method=method, rank=rank, alpha=0.5, center=True, relative=True)
    found = estimate(seen, asked, held_out=True).sites[site].separation
    wanted = torch.from_numpy(readings)
    assert found is not None
    assert found.d_prime == pytest.approx(d_prime(*wanted), rel=1e-6)
    assert found.auc == pytest.approx(auc(*wanted))


def test_the_cost_of_an_estimate_is_measured_beside_its_yardstick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate_sizes, "NEUTRAL", 300)
    monkeypatch.setattr(estimate_sizes, "TWINS", 50)
    cost = estimate_sizes.measure(48, "cpca", 1)
    assert (cost.method, cost.width) == ("cpca", 48) and cost.rows >= 350
    assert cost.ratio == cost.seconds / cost.floor > 0 and cost.peak > 1e8


@pytest.mark.parametrize("method", ["rv", "pca", "cpca", "whitened"])
def test_rows_of_real_size_are_estimated_in_one_precision(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neutral rows over the limit of float64 beside pair rows under it: once a crash in each method."""
    monkeypatch.setattr(subspace, "DOUBLE_LIMIT", 8 * 64 * 400)
    monkeypatch.setattr(subspace, "WHOLE_LIMIT", 32)
    draw = torch.Generator().manual_seed(0)
    safe = torch.randn(30, 64, generator=draw)
    unsafe = safe + torch.randn(64, generator=draw) + 0.3 * torch.randn(30, 64, generator=draw)
    neutral = torch.randn(500, 64, generator=draw)
    site = Site("transformer.blocks.0.attn2.to_k", 0, "text", 64, 64, True)
    rows = Samples(unsafe, safe, neutral, torch.arange(30) % 5, False)
    print_of = Fingerprint("wan", "WanPipeline", "0", "0")
    seen = Activations(print_of, "fire", (("a", "b"),), CaptureSettings(), {site: rows})
    found = estimate(seen, SubspaceSettings(method=method, rank=3), held_out=True).sites[site]
    assert found.remove.dtype == found.level.dtype == torch.float32
    assert found.separation is not None and found.separation.auc > 0.6
