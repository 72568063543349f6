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
