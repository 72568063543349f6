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
    values, inverse, counts = torch.unique(both, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0)
    ranks = (ends - (counts - 1) / 2.0)[inverse]
    n, m = len(unsafe), len(safe)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def mean_by_group(scores: Tensor, group: Tensor) -> Tensor:
    """Return the mean score of each group, in the order of the group numbers."""
    names, inverse = torch.unique(group, return_inverse=True)
    total = torch.zeros(len(names), dtype=scores.dtype).index_add_(0, inverse, scores)
    return total / torch.bincount(inverse).to(scores.dtype)
