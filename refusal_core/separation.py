"""How well a detector tells unsafe from safe activations. Tensors in, floats out."""

from __future__ import annotations

import torch
from torch import Tensor


def auc(unsafe: Tensor, safe: Tensor) -> float:
    """Return the chance that an unsafe score exceeds a safe one, ties counting half (Mann-Whitney).

    Args:
        unsafe: scores [n].
        safe: scores [m].

    Returns:
        0.5 for no separation, 1 for a perfect one, below 0.5 where the detector points the wrong way.
    """
    both = torch.cat([unsafe, safe]).double()
    _, inverse, counts = torch.unique(both, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()  # ranks of many rows do not fit float32
    ranks = (ends - (counts - 1).double() / 2)[inverse]
    n, m = len(unsafe), len(safe)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def d_prime(unsafe: Tensor, safe: Tensor) -> float:
    """Return the distance of the mean scores in units of their spread; unlike the AUC it never saturates.

    Args:
        unsafe: scores [n], n at least 2.
        safe: scores [m], m at least 2.

    Returns:
        (mean unsafe - mean safe) / sqrt of the mean variance; at most 1000, also where nothing varies.
    """
    spread = float(((unsafe.double().var() + safe.double().var()) / 2).sqrt())
    distance = float(unsafe.double().mean() - safe.double().mean())
    if distance == 0.0:
        return 0.0
    return max(-1000.0, min(1000.0, distance / max(spread, 1e-12)))


def mean_by_group(scores: Tensor, group: Tensor) -> Tensor:
    """Return the mean score of each group, in the order of the group numbers."""
    names, inverse = torch.unique(group, return_inverse=True)
    total = torch.zeros(len(names), dtype=scores.dtype).index_add_(0, inverse, scores)
    return total / torch.bincount(inverse).to(scores.dtype)


def left_out_scores(gram: Tensor, groups: Tensor, ordinary: int, rank: int) -> tuple[Tensor, Tensor]:
    """Return what whitened detectors read on pairs that they were not made from, a pair left out at a time.

    Nothing H-sized is solved again. With D the safe rows of a group (less mu), N ordinary rows in all and E =
    (I + 11^T / (N - d)) / (N - 1), the covariance without them is Sigma - D^T E D (up to a factor, which no
    score depends on; the shrinkage stays that of the whole), so that by Woodbury's identity
    M^-1 = Sigma^-1 + Sigma^-1 D^T (E^-1 - D Sigma^-1 D^T)^-1 D Sigma^-1, with E^-1 = (N - 1)(I - 11^T / N).
    All directions are read along the one that the other pairs' mean difference r takes, lead = Q Q^T r.

    Args:
        gram: of ``whiten``: [2n + 1, 2n + 1], products under Sigma^-1 of the differences, the safe rows less
            mu, and mu.
        groups: [n], the pair of each row.
        ordinary: N, safe and neutral rows together.
        rank: directions of each detector.

    Returns:
        Scores of the unsafe and of the safe rows, each [n] float64.
    """
    n, gram = len(groups), gram.double()
    unsafe, safe = gram.new_empty(n), gram.new_empty(n)
    for group in torch.unique(groups).tolist():
        out, kept = (groups == group).nonzero()[:, 0], (groups != group).nonzero()[:, 0]
        d, rows = len(out), len(kept)
        inner = (ordinary - 1) * (torch.eye(d).to(gram) - 1 / ordinary) - gram[n + out][:, n + out]
        correct = torch.linalg.solve(inner, gram[n + out])  # [d, 2n + 1]
        whole = gram + gram[:, n + out] @ correct  # products under M^-1
        values, v = torch.linalg.eigh(whole[kept][:, kept] / rows)
        top = values.flip(0)[:rank].clamp_min(0), v.flip(1)[:, :rank]
        used = top[0] > top[0][:1] * rows * torch.finfo(gram.dtype).eps
        # Q^T r = (w / n)^1/2 V^T 1, and Q = M^-1 R^T V (n w)^-1/2: the detectors' weights on the rows of R
        weights = top[1][:, used] @ (top[1][:, used].sum(0) / rows)
        scale = weights @ whole[kept][:, kept].mean(1)
        reading = whole[:, kept] @ (weights / scale)
        safe[out] = reading[n + out] + reading[2 * n]
        unsafe[out] = safe[out] + reading[out]
    return unsafe, safe
