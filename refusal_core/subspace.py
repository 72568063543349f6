"""Refusal vectors and low-rank subspaces, from rows of activations. Tensors in, tensors out.

Rows are samples, columns are the H inputs of a linear layer. Symbols are those of the paper,
*Video Unlearning via Low-Rank Refusal Vector* (arXiv 2506.07891).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from refusal_core.errors import InputError, RankError

DOUBLE_LIMIT = 64 << 20  # bytes of float64 up to which the work is done in float64
LEAST_LEFT = 0.01  # of a detector: below, its edit is ten times as oblique as without what is held
WHOLE_LIMIT = 768  # side of a matrix up to which all its eigenvectors are worked out


def precision(*parts: Tensor) -> torch.dtype:
    """Return the one dtype that a site is worked on in: float64 where its rows take at most 64 MB."""
    return torch.float64 if 8 * sum(x.numel() for x in parts) <= DOUBLE_LIMIT else torch.float32


def precise(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return x on the CPU in ``dtype``, by default that of ``precision``.

    Raises:
        InputError: x holds NaN or infinity.
    """
    y = x.detach().to("cpu", dtype or precision(x))
    if not torch.isfinite(y).all():
        raise InputError("The activations hold NaN or infinity; load the model in float32 and capture again.")
    return y


def refusal_vector(unsafe: Tensor, safe: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return r = mean(unsafe - safe), Eq. (RV) of the paper.

    Args:
        unsafe: activations [n, H].
        safe: activations [n, H], row by row the twins of ``unsafe``.
        dtype: to work in; default: what the rows alone allow.

    Returns:
        r [H].

    Raises:
        InputError: the shapes differ, there are no rows, or a value is not finite.
    """
    if unsafe.shape != safe.shape or unsafe.ndim != 2:
        raise InputError(
            f"Unsafe {list(unsafe.shape)} and safe {list(safe.shape)} rows must be twins of one shape [n, H]."
        )
    if len(unsafe) == 0:
        raise InputError("There are no unsafe and safe rows to compare; capture again.")
    return (precise(unsafe, dtype) - precise(safe, dtype)).mean(0)


@dataclass(frozen=True, slots=True)
class Span:
    """Covariances of the differences and of neutral samples, in coordinates of their common span.

    ``basis`` [H, s] is orthonormal (None: the coordinates are the H inputs themselves); every
    eigenvector with a non-zero eigenvalue lies in it, so that nothing H x H is ever built when
    samples are few. It does not depend on alpha, rank or strength.
    """

    basis: Tensor | None
    differences: Tensor  # C_r [s, s]
    neutral: Tensor | None  # C_e [s, s]


@dataclass(frozen=True, slots=True)
class Basis:
    """Orthonormal directions [H, k], largest eigenvalue first; ``available`` had a positive one.

    Of a matrix too large to be solved whole, no more are counted than were asked for.
    """

    vectors: Tensor
    values: Tensor
    available: int


def _covariance(rows: Tensor, center: bool) -> Tensor:
    """Return the covariance (n - 1), or the second moment (n) where not centred."""
    if center:
        rows = rows - rows.mean(0)
    return (rows.T @ rows).div_(max(1, len(rows) - 1) if center else len(rows))


def _common_basis(*parts: Tensor) -> Tensor | None:
    """Return an orthonormal basis [H, s] of the span of all rows; None where they are too many to gain.

    QR [H, n] and a small eigenproblem against a full one: 0.40 s against 11.97 s at H = 4608, n = 750.
    """
    count, width = sum(map(len, parts)), parts[0].shape[1]
    return None if count > width / 2 else torch.linalg.qr(torch.cat(parts).T)[0]


def sample_span(
    differences: Tensor, neutral: Tensor | None, *, center: bool, dtype: torch.dtype | None = None
) -> Span:
    """Do the H-sized work of PCA and contrastive PCA once.

    Args:
        differences: R [n, H], rowwise unsafe - safe.
        neutral: E [m, H], or None for PCA without contrast.
        center: the paper's covariance; False takes the second moment of R, where the mean counts.
        dtype: to work in; default: what these rows allow.

    Returns:
        The span; ``contrastive_basis`` takes it from there.
    """
    dtype = dtype or precision(*(x for x in (differences, neutral) if x is not None))
    r = precise(differences, dtype)
    e = None if neutral is None else precise(neutral, dtype)
    basis = _common_basis(r) if e is None else _common_basis(r, e)
    if basis is not None:
        r, e = r @ basis, None if e is None else e @ basis
    return Span(basis, _covariance(r, center), None if e is None else _covariance(e, center=True))


def other_rows(span: Span, differences: Tensor, *, center: bool) -> Span:
    """Return the span with the covariance of other differences [n, H], all of them rows it was made from.

    A pair is left out so: the basis and the neutral covariance, which take nearly all the time, stay.
    """
    r = precise(differences, span.differences.dtype)
    return replace(span, differences=_covariance(r if span.basis is None else r @ span.basis, center))


def contrastive_basis(span: Span, *, rank: int, alpha: float, relative: bool) -> Basis:
    """Return the top eigenvectors of C = C_r - alpha C_e (cPCA; PCA where alpha is 0).

    C is indefinite: the largest *algebraic* eigenvalues count, and only positive ones.

    Args:
        span: from ``sample_span``.
        rank: directions wanted (k); more than are positive are not given.
        alpha: weight of the neutral covariance; raising it drops directions that ordinary content uses.
        relative: divide each covariance by its trace first, so that alpha means the same at every layer.

    Raises:
        InputError: rank below 1, or alpha negative or not finite.
        RankError: no eigenvalue is positive.
    """
    if rank < 1:
        raise InputError(f"rank is {rank}; it must be 1 or more.")
    if not 0 <= alpha < float("inf"):
        raise InputError(f"alpha is {alpha}; it must be 0 or more.")
    matrix = span.differences
    scale = float(matrix.trace())
    if alpha > 0 and span.neutral is not None:
        total = float(span.neutral.trace())
        weight = alpha * scale / total if relative and scale > 0 and total > 0 else alpha
        matrix = torch.sub(matrix, span.neutral, alpha=weight)
    values, vectors = largest(matrix, rank)
    limit = float(values.abs().max()) * len(matrix) * torch.finfo(values.dtype).eps
    available = int((values > limit).sum())
    if available == 0:
        raise RankError("No direction varies more in the pairs than in neutral prompts; lower alpha.")
    k = min(rank, available)
    kept = vectors[:, -k:].flip(1)
    full = kept if span.basis is None else span.basis @ kept
    return Basis(full, values[-k:].flip(0), available)


def largest(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues [k] of a symmetric matrix, ascending, and their vectors [s, k].

    All of a small matrix. Of a larger one ``count``, by Lanczos' method (ARPACK): H = 5120, count 100: 10 s,
    where all take minutes and four times the memory.
    """
    if len(matrix) <= WHOLE_LIMIT or count >= len(matrix) // 2:
        every, all_vectors = torch.linalg.eigh(matrix)
        return every, all_vectors
    start = matrix.sum(0).numpy()  # a fixed one: equal rows give equal directions
    values, vectors = eigsh(matrix.numpy(), k=count, which="LA", v0=start)
    return torch.from_numpy(values), torch.from_numpy(vectors)


def kept_part(r: Tensor, basis: Basis) -> tuple[Tensor, float]:
    """Return p = U_k U_k^T r and the kept share |p|^2 / |r|^2 (0 where r is zero)."""
    p = basis.vectors @ (basis.vectors.T @ r)
    norm = float(r @ r)
    return p, float(p @ p) / norm if norm > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Whitening:
    """The directions of the whitened edit, best first: U [H, k] (remove), Q [H, k] (detect), Q^T U = I."""

    remove: Tensor
    detect: Tensor
    values: Tensor  # generalised eigenvalues: concept variation over ordinary variation
    available: int
    mean: Tensor  # mu [H], of the ordinary rows
    gram: Tensor  # [2n + 1, 2n + 1] under Sigma^-1, of R, of the first n ordinary rows less mu, and of mu
    left: Tensor  # [k], of each detector: its share that what is held leaves


def whiten(
    differences: Tensor,
    ordinary: Tensor,
    *,
    shrinkage: float,
    most: int = 128,
    held: Tensor | None = None,
) -> Whitening:
    """Solve the generalised eigenproblem of the whitened edit once, for every rank.

    With Sigma = Cov(ordinary) + shrinkage * tr/H * I = L L^T and C_r = R^T R / n the second moment of the
    differences, L^-1 C_r L^-T = Z diag(w) Z^T gives U = L Z and Q = Sigma^-1 U = L^-T Z. The detector
    Q reads zero on the ordinary mean and as little as linearly possible on ordinary variation
    (LEACE's idea, Belrose et al. 2023, arXiv 2306.03819; for k = 1 the linear discriminant).

    C_r has rank n at most: with A = L^-1 R^T, the n x n problem A^T A / n = V diag(w) V^T holds all of it,
    Z = A V (n w)^-1/2. What is H-sized is one Gram matrix of the rows and its Cholesky factor.

    Held directions K must stay as they are, Q^T K = 0 (SPLINCE, arXiv 2506.10703, for named concepts; SPEED,
    arXiv 2503.07392, for the top singular space of ordinary rows). With P the projector on L^-1 K the
    problem is that of B = (I - P) A, Q = L^-T B V (n w)^-1/2; U = L A V (n w)^-1/2 is R regressed on what Q
    reads of it, so Q^T U = I holds. Its obliqueness |U_i| |Q_i| is left_i^-1/2, under Sigma^-1.

    Args:
        differences: R [n, H], rowwise unsafe - safe.
        ordinary: safe and neutral activations [m, H], the safe twins of R first.
        shrinkage: share of the identity; raising it moves the edit towards the paper's orthogonal one.
        most: directions that are kept; the eigenvalues of all are counted.
        held: K [j, H].

    Raises:
        InputError: fewer than two ordinary rows, or shrinkage not above 0.
        RankError: the differences, or all ordinary variation, are zero, or what is held leaves no detector.
    """
    if len(ordinary) < 2:
        raise InputError("The whitened edit needs at least 2 ordinary samples; add neutral prompts.")
    if not shrinkage > 0:
        raise InputError(f"shrinkage is {shrinkage}; it must be above 0.")
    dtype = precision(differences, ordinary)
    r, x = precise(differences, dtype), precise(ordinary, dtype)
    k = r[:0] if held is None else precise(held, dtype)
    mean = x.mean(0)
    x = x - mean
    basis = _common_basis(r, x, k)
    at_mean = mean
    if basis is not None:
        r, x, k, at_mean = r @ basis, x @ basis, k @ basis, mean @ basis
    lower = _factor(x, mean, shrinkage / differences.shape[1])
    n = len(r)
    whole = torch.linalg.solve_triangular(lower, torch.cat([r, x[:n], at_mean[None], k]).T, upper=False)
    half, beside = whole[:, : 2 * n + 1], _beside(whole[:, : 2 * n + 1], whole[:, 2 * n + 1 :])
    gram = beside.T @ beside
    values, weights, left = _directions(half[:, :n], gram[:n, :n], len(lower))
    weights = weights[:, :most].to(dtype)
    remove = lower @ (half[:, :n] @ weights)
    detect = torch.linalg.solve_triangular(lower.T, beside[:, :n] @ weights, upper=True)
    if basis is not None:
        remove, detect = basis @ remove, basis @ detect
    return Whitening(remove, detect, values.to(dtype), len(values), mean, gram, left[:most])


def _beside(columns: Tensor, held: Tensor) -> Tensor:
    """Return columns [s, c] less their part in the span of the held ones [s, j]."""
    if not held.shape[1]:
        return columns
    basis, sizes, _ = torch.linalg.svd(held, full_matrices=False)
    basis = basis[:, sizes > sizes[0] * len(held) * torch.finfo(sizes.dtype).eps]
    beside: Tensor = columns - basis @ (basis.T @ columns)
    return beside


def _directions(half: Tensor, gram: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return w, V (n w)^-1/2 [n, k] and ``left`` of every direction that can be used, largest w first.

    Args:
        half: A [s, n].
        gram: B^T B [n, n].
        size: of the whitened problem, for what counts as rounding.
    """
    n = len(gram)
    values, v = torch.linalg.eigh(gram.double() / n)
    values, v = values.flip(0), v.flip(1)
    variation = (half @ v.to(half.dtype)).double().square().sum(0) / n  # of A along each direction
    most = float(variation.max())
    if most <= 0:
        raise RankError("Unsafe and safe activations are equal at this site.")
    left = values / variation.clamp_min(1e-300)
    used = values > most * max(n, size) * torch.finfo(half.dtype).eps
    used &= left >= LEAST_LEFT
    if not used.any():
        raise RankError("What must be kept leaves nothing of the detector here; keep less.")
    values, left = values[used], left[used].clamp(max=1.0)
    return values, v[:, used] * (n * values).rsqrt(), left


def _factor(centred: Tensor, mean: Tensor, share: float) -> Tensor:
    """Return L of Sigma = Cov + share * tr(Cov) * I; raises RankError where nothing varies."""
    sigma = centred.T @ centred
    sigma /= len(centred) - 1
    total = float(sigma.trace())
    rounding = 4 * torch.finfo(sigma.dtype).eps  # of a mean: rows all alike leave a little of it behind
    if total <= rounding**2 * float(mean @ mean):
        raise RankError("The ordinary samples do not vary at this site; use rv here.")
    sigma.diagonal().add_(share * total)
    lower: Tensor = torch.linalg.cholesky(sigma, out=sigma)
    return lower


def whitened_basis(
    differences: Tensor, ordinary: Tensor, *, rank: int, shrinkage: float
) -> tuple[Tensor, Tensor]:
    """Return (U, Q), each [m, H] with m <= rank, of the whitened edit; see ``whiten``."""
    if rank < 1:
        raise InputError(f"rank is {rank}; it must be 1 or more.")
    solution = whiten(differences, ordinary, shrinkage=shrinkage)
    return solution.remove[:, :rank].T.contiguous(), solution.detect[:, :rank].T.contiguous()
