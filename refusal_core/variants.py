"""Closed forms beside cPCA and whitening: retained, null space, switch, placebo. Tensors in, tensors out.

Each gives directions U and Q, as rows [k, H], that ``fold`` takes as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from refusal_core.errors import RankError
from refusal_core.subspace import WHOLE_LIMIT, largest, precise

LEAST = 1e-9  # |Q|^2 that is rounding
LARGEST_SPACE = 512  # directions of the retained space where a site is too wide to be solved whole


def retained_space(rows: Tensor, share: float) -> Tensor:
    """Return the top singular space of rows, as orthonormal rows [r, H], that holds a share of their energy.

    Args:
        rows: [m, H], not centred: their mean is what an edit without a bias moves first.
        share: from 0 (nothing) to 1 (all that is above rounding).
    """
    x = precise(rows)
    wide = len(x) < x.shape[1]  # the smaller of the two Gram matrices holds the same eigenvalues
    gram = x @ x.T if wide else x.T @ x
    count = len(gram) if len(gram) <= WHOLE_LIMIT else LARGEST_SPACE
    values, vectors = (part.flip(-1) for part in largest(gram, count))
    values = values.clamp_min(0)
    total = gram.trace()
    used = int((values.cumsum(0) < share * total * (1 - 1e-12)).sum()) + 1 if share > 0 else 0
    used = min(used, int((values > values[:1] * len(gram) * torch.finfo(x.dtype).eps).sum()))
    kept = vectors[:, :used]
    return (x.T @ kept / values[:used].sqrt()).T if wide else kept.T.contiguous()


def retained(differences: Tensor, space: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return U = V, Q = (I - P_R) V: the factor of PURE (arXiv 2605.25765), E = I - V V^T (I - P_R).

    Whatever lies in the retained space passes exactly. V are the top right singular vectors of the
    differences, where PURE takes those of the unsafe activations themselves: the pairs say more.

    Args:
        differences: R [n, H], rowwise unsafe - safe.
        space: orthonormal rows [r, H], from ``retained_space``.
        rank: directions at most.

    Returns:
        U [k, H], Q [k, H], and of each detector |Q|^2, the share that the retained space leaves.

    Raises:
        RankError: the retained space holds every direction of the differences.
    """
    r = precise(differences)
    _, sizes, vectors = torch.linalg.svd(r, full_matrices=False)
    v = vectors[: min(rank, int((sizes > sizes[:1] * len(r) * torch.finfo(r.dtype).eps).sum()))]
    p = space.to(v)
    left, turn = torch.linalg.eigh(v @ v.T - (v @ p.T) @ (p @ v.T))  # turned so that Q^T U is diagonal
    v = turn[:, left > LEAST].flip(1).T @ v
    if not len(v):
        raise RankError("The retained activations hold every direction of the concept here; retain less.")
    return v, v - (v @ p.T) @ p, left[left > LEAST].flip(0)


def switched(remove: Tensor, detect: Tensor, r: Tensor, target: Tensor) -> Tensor:
    """Return U less what is written in place of the concept (after MidSteer, arXiv 2605.05220).

    With a = Q^T r, U' = U - t a^T / |a|^2: the mean difference r goes to (I - U Q^T) r + t. Where the
    detector was made with t held, it reads nothing of t, so that Q^T U' = I still holds.

    Args:
        remove: U [k, H].
        detect: Q [k, H].
        r: mean difference of unsafe and safe [H].
        target: t, mean difference of the target and safe [H].
    """
    a = detect @ r
    return remove - torch.outer(a / (a @ a), target.to(remove))


def placebo(remove: Tensor, detect: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return U and Q turned at random together: rank, norms and Q^T U stay, the directions mean nothing.

    Args:
        remove: U [k, H].
        detect: Q [k, H].
        seed: of the turn.
    """
    both = torch.cat([remove, detect]).double()
    generator = torch.Generator().manual_seed(seed)
    frame = torch.linalg.qr(both.T)
    width, count = frame.Q.shape
    turn = torch.linalg.qr(torch.randn(width, count, generator=generator, dtype=torch.float64)).Q
    u, q = (turn @ frame.R).T.to(remove).split(len(remove))
    return u.contiguous(), q.contiguous()
