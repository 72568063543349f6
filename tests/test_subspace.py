"""The subspaces against an independent float64 oracle: full H x H covariances and numpy's eigh."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from refusal_core import subspace
from refusal_core.errors import InputError, RankError
from refusal_core.subspace import (
    Whitening,
    contrastive_basis,
    kept_part,
    refusal_vector,
    sample_span,
    whiten,
    whitened_basis,
)

H = 96
Array = NDArray[np.float64]
seeds = st.integers(0, 10_000)
cheap = settings(derandomize=True, max_examples=50, deadline=None)


def samples(rows: int, seed: int, width: int = H) -> Array:
    """Random rows whose directions have unlike spreads, so that eigenvectors are well apart."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(np.random.default_rng(99 + seed).standard_normal((width, width)))[0]
    spreads = np.geomspace(3.0, 0.05, width)
    return rng.standard_normal((rows, width)) * spreads @ rotation.T + rng.standard_normal(width)


def turn(seed: int, width: int = H) -> Array:
    """A random rotation of the space."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0]


def padded(rows: Array, width: int) -> Array:
    """The same rows in a wider space that they do not use."""
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))


def tensor(x: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


def contrast(r: Array, e: Array | None, alpha: float, relative: bool, center: bool) -> Array:
    """C = C_r - alpha C_e, the full H x H matrix."""
    c = np.cov(r.T) if center else r.T @ r / len(r)
    if e is None:
        return c
    ordinary = np.cov(e.T)
    return c - alpha * ordinary * (np.trace(c) / np.trace(ordinary) if relative else 1.0)


def oracle(r: Array, e: Array | None, alpha: float, relative: bool, center: bool) -> tuple[Array, Array]:
    """All eigenvalues, largest first, and their eigenvectors."""
    values, vectors = np.linalg.eigh(contrast(r, e, alpha, relative, center))
    return values[::-1], vectors[:, ::-1]


def basis_of(
    r: Array, e: Array | None, *, rank: int, alpha: float = 0.0, relative: bool = True, center: bool = True
) -> subspace.Basis:
    span = sample_span(tensor(r), None if e is None else tensor(e), center=center)
    return contrastive_basis(span, rank=rank, alpha=alpha, relative=relative)


def distance(a: Array | Tensor, b: Array | Tensor) -> float:
    """How far the projectors on two spaces are apart (Frobenius norm; of two orthogonal lines 1.41)."""
    x, y = np.asarray(a), np.asarray(b)
    return float(np.linalg.norm(x @ x.T - y @ y.T))


# --- the refusal vector ----------------------------------------------------------------------------


def test_the_refusal_vector_is_the_mean_difference_in_any_order_of_pairs() -> None:
    u, s = samples(7, 1), samples(7, 2)
    r = refusal_vector(tensor(u), tensor(s)).numpy()
    np.testing.assert_allclose(r, sum(u[i] - s[i] for i in range(7)) / 7, rtol=0, atol=1e-14)
    order = np.random.default_rng(0).permutation(7)
    np.testing.assert_allclose(refusal_vector(tensor(u[order]), tensor(s[order])), r, rtol=0, atol=1e-14)
    assert not np.allclose(refusal_vector(tensor(s), tensor(u)), r)
    assert not np.allclose(refusal_vector(tensor(u[1:]), tensor(s[1:])), r)


@cheap
@given(seeds, st.integers(1, 9), st.floats(-100, 100))
def test_the_refusal_vector_grows_with_the_differences(seed: int, rows: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    s, d = rng.standard_normal((rows, 6)), rng.standard_normal((rows, 6))
    r = refusal_vector(tensor(s + factor * d), tensor(s))
    np.testing.assert_allclose(r, factor * d.mean(0), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(refusal_vector(tensor(s), tensor(s)), np.zeros(6))


def test_the_refusal_vector_is_worked_in_float64_whatever_the_rows_are() -> None:
    """float16 rows of 60000 and -60000 are fine apart; their difference overflows float16."""
    u, s = torch.full((2, 3), 60000.0, dtype=torch.float16), torch.full((2, 3), -60000.0, dtype=torch.float16)
    assert refusal_vector(u, s).tolist() == [120000.0] * 3
    assert not torch.isfinite(u - s).any()
    assert refusal_vector(u, s).dtype == torch.float64


NOT_FINITE = "The activations hold NaN or infinity; load the model in float32 and capture again."


@pytest.mark.parametrize(
    ("unsafe", "safe", "sentence"),
    [
        (
            torch.zeros(3, 4),
            torch.zeros(2, 4),
            "Unsafe [3, 4] and safe [2, 4] rows must be twins of one shape [n, H].",
        ),
        (
            torch.zeros(3, 4),
            torch.zeros(3, 5),
            "Unsafe [3, 4] and safe [3, 5] rows must be twins of one shape [n, H].",
        ),
        (torch.zeros(4), torch.zeros(4), "Unsafe [4] and safe [4] rows must be twins of one shape [n, H]."),
        (
            torch.zeros(2, 3, 4),
            torch.zeros(2, 3, 4),
            "Unsafe [2, 3, 4] and safe [2, 3, 4] rows must be twins of one shape [n, H].",
        ),
        (
            torch.zeros(0, 4),
            torch.zeros(0, 4),
            "There are no unsafe and safe rows to compare; capture again.",
        ),
        (torch.zeros(3, 4), torch.full((3, 4), float("nan")), NOT_FINITE),
        (torch.full((3, 4), float("inf")), torch.zeros(3, 4), NOT_FINITE),
    ],
)
def test_rows_that_are_no_twins_or_not_finite_get_one_sentence(
    unsafe: Tensor, safe: Tensor, sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        refusal_vector(unsafe, safe)
    assert str(caught.value) == sentence
    refusal_vector(torch.zeros(3, 4), torch.zeros(3, 4))  # rows of zeros are no error here


# --- PCA and contrastive PCA -----------------------------------------------------------------------


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(("pairs", "neutral"), [(10, 20), (60, 90), (150, 300)])
def test_the_fast_basis_equals_numpy_eigh(pairs: int, neutral: int, relative: bool, center: bool) -> None:
    """Few rows take the QR path, many the full one; both must give the oracle's space and values."""
    r, e = samples(pairs, 3), samples(neutral, 4)
    span = sample_span(tensor(r), tensor(e), center=center)
    assert (span.basis is None) == (pairs + neutral > H / 2)
    values, vectors = oracle(r, e, 0.7, relative, center)
    positive = int((values > 1e-10).sum())
    every = contrastive_basis(span, rank=H, alpha=0.7, relative=relative)
    assert every.available == positive == every.vectors.shape[1]
    np.testing.assert_allclose(every.values, values[:positive], rtol=0, atol=1e-10 * values[0])
    np.testing.assert_allclose(every.vectors.T @ every.vectors, np.eye(positive), rtol=0, atol=1e-12)
    for k in (1, 2, 4):
        found = contrastive_basis(span, rank=k, alpha=0.7, relative=relative).vectors
        assert distance(found, vectors[:, :k]) < 1e-9  # rounding over the gap to the next eigenvalue
        assert distance(found, vectors[:, k : 2 * k]) > 0.1


@cheap
@given(seeds, st.integers(1, 20), st.integers(2, 20), st.floats(0.01, 10), st.booleans(), st.booleans())
def test_every_direction_is_an_eigenvector_of_the_full_matrix(
    seed: int, pairs: int, neutral: int, alpha: float, relative: bool, center: bool
) -> None:
    r, e = samples(pairs, seed, 12), samples(neutral, seed + 1, 12)
    full = contrast(r, e, alpha, relative, center) if pairs > 1 or not center else -np.eye(12)
    size = float(np.abs(full).max())
    values = np.linalg.eigvalsh(full)[::-1]
    wanted = values[values > 1e-9 * size]
    if len(wanted) == 0:
        with pytest.raises(RankError, match=r"lower alpha\.$"):
            basis_of(r, e, rank=12, alpha=alpha, relative=relative, center=center)
        return
    found = basis_of(r, e, rank=len(wanted), alpha=alpha, relative=relative, center=center)
    v = found.vectors.numpy()
    np.testing.assert_allclose(found.values, wanted, rtol=0, atol=1e-10 * size)
    np.testing.assert_allclose(full @ v, v * wanted, rtol=0, atol=1e-9 * size)
    np.testing.assert_allclose(v.T @ v, np.eye(len(wanted)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("relative", [True, False])
def test_both_paths_give_one_answer_on_the_same_rows(relative: bool, center: bool) -> None:
    """30 + 40 rows of 96 inputs take the full path; in a space of 200 inputs they take the QR."""
    r, e = samples(30, 5), samples(40, 6)
    wide_r, wide_e = padded(r, 200), padded(e, 200)
    assert sample_span(tensor(r), tensor(e), center=center).basis is None
    assert sample_span(tensor(wide_r), tensor(wide_e), center=center).basis is not None
    full = basis_of(r, e, rank=5, alpha=1.0, relative=relative, center=center)
    fast = basis_of(wide_r, wide_e, rank=5, alpha=1.0, relative=relative, center=center)
    assert full.available == fast.available
    np.testing.assert_allclose(fast.values, full.values, rtol=1e-10)
    assert distance(padded(full.vectors.T.numpy(), 200).T, fast.vectors) < 1e-9
    assert float(fast.vectors[H:].abs().max()) < 1e-12


def waves(rows: int, width: int, step: float) -> Array:
    """Rows by a formula, so that figures of another program can be written down beside them."""
    i, j = np.indices((rows, width))
    return np.sin(step * (i + 1) * (j + 1) ** 1.5) * (1 + 3 / (1 + j)) + 0.3 * np.cos(step * j)


@pytest.mark.parametrize(
    ("pairs", "neutral", "width", "alpha", "projected"),
    [
        (5, 6, 24, 0.7, [[1.661925287382, 2.735511205664], [4.532649895578, 1.61486853738]]),
        (30, 40, 24, 2.0, [[3.102903529209, 2.563568079236], [4.494968326146, 1.38286411593]]),
        (10, 20, 96, 1.0, [[4.174041332035, 2.399575595166], [5.970363797826, 0.221212364648]]),
    ],
)
def test_the_basis_equals_that_of_the_contrastive_package(
    pairs: int, neutral: int, width: int, alpha: float, projected: list[list[float]]
) -> None:
    """Figures of CPCA(n_components=2, standardize=False) of PyPI's contrastive 1.2.0, first two rows."""
    r, e = waves(pairs, width, 0.7), waves(neutral, width, 1.3)[:, ::-1]
    found = basis_of(r, e, rank=2, alpha=alpha, relative=False).vectors.numpy()
    np.testing.assert_allclose(np.abs(r[:2] @ found), projected, rtol=0, atol=1e-10)
    other = basis_of(r, e, rank=2, alpha=alpha, relative=True).vectors.numpy()
    assert np.abs(np.abs(r[:2] @ other) - projected).max() > 1e-3


def test_pca_is_contrast_without_contrast() -> None:
    r, e = samples(12, 5), samples(20, 6)
    wanted = oracle(r, None, 0, False, True)[1][:, :3]
    assert distance(basis_of(r, None, rank=3, alpha=1.0).vectors, wanted) < 1e-10
    assert distance(basis_of(r, e, rank=3, alpha=0.0).vectors, wanted) < 1e-10
    assert distance(basis_of(r, e, rank=3, alpha=1.0).vectors, wanted) > 0.01


def test_the_largest_algebraic_eigenvalue_is_taken_not_the_largest_absolute() -> None:
    """Neutral rows vary hugely along one axis: an SVD of C would pick just that axis."""
    r, e = np.zeros((8, H)), np.zeros((30, H))
    r[:, 0] = np.linspace(-1, 1, 8)
    e[:, 1] = np.linspace(-50, 50, 30)
    for e_rows in (e, np.concatenate([e, e])):  # QR path, full path
        found = basis_of(r, e_rows, rank=1, alpha=1.0, relative=False)
        assert abs(float(found.vectors[0, 0])) == pytest.approx(1.0)
        assert found.available == 1
        full = np.cov(r.T) - np.cov(e_rows.T)
        assert abs(np.linalg.svd(full)[0][1, 0]) == pytest.approx(1.0)


def test_nonpositive_eigenvalues_are_never_used() -> None:
    r, e = samples(6, 6), samples(40, 7)
    values = oracle(r, e, 1.0, True, True)[0]
    for r_rows, e_rows in ((r, e), (padded(r, 200), padded(e, 200))):
        found = basis_of(r_rows, e_rows, rank=50, alpha=1.0)
        assert found.available == int((values > 1e-10).sum()) == found.vectors.shape[1] < 6
        assert (found.values > 0).all()
    with pytest.raises(RankError) as caught:
        basis_of(e, e, rank=1, alpha=2.0)
    assert str(caught.value) == "No direction varies more in the pairs than in neutral prompts; lower alpha."
    assert basis_of(e, e, rank=1, alpha=0.5).available > 0


@pytest.mark.parametrize("width", [8, H])
def test_five_pooled_pairs_hold_four_directions(width: int) -> None:
    """Centring takes one; 8 inputs take the full path, 96 the QR. The rest of rank 100 is clamped."""
    r = samples(5, 8, width)
    found = basis_of(r, None, rank=100)
    assert found.available == found.vectors.shape[1] == len(found.values) == 4
    assert basis_of(r + 1e4, None, rank=100).available == 4  # a large mean leaves no fifth by rounding
    assert basis_of(r, None, rank=100, center=False).available == 5
    assert basis_of(samples(6, 8, width), None, rank=100).available == 5


def test_full_rank_keeps_the_whole_refusal_vector_where_the_mean_counts() -> None:
    r = samples(12, 9)
    mean = tensor(r.mean(0))
    p, share = kept_part(mean, basis_of(r, None, rank=12, center=False))
    np.testing.assert_allclose(p, mean, rtol=0, atol=1e-10)
    assert share == pytest.approx(1.0, abs=1e-12)
    p, share = kept_part(mean, basis_of(r, None, rank=12, center=True))  # centring takes the mean away
    assert share < 0.99
    assert float((p - mean).norm()) > 0.1 * float(mean.norm())


@pytest.mark.parametrize("center", [True, False])
def test_the_kept_part_is_the_orthogonal_projection_and_its_share_grows_with_the_rank(center: bool) -> None:
    r = samples(12, 10)
    mean = r.mean(0)
    shares = []
    for k in (1, 4, 8, 11):
        u = oracle(r, None, 0, False, center)[1][:, :k]
        p, share = kept_part(tensor(mean), basis_of(r, None, rank=k, center=center))
        np.testing.assert_allclose(p, u @ u.T @ mean, rtol=0, atol=1e-9)
        assert share == pytest.approx(np.sum((u.T @ mean) ** 2) / np.sum(mean**2), abs=1e-9)
        shares.append(share)
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]
    assert kept_part(torch.zeros(H).double(), basis_of(r, None, rank=1))[1] == 0.0


def test_a_rotation_of_the_space_rotates_the_result() -> None:
    r, e, q = samples(9, 10), samples(15, 11), turn(1)
    plain, turned = basis_of(r, e, rank=3, alpha=0.5), basis_of(r @ q.T, e @ q.T, rank=3, alpha=0.5)
    assert distance(turned.vectors, q @ plain.vectors.numpy()) < 1e-9
    np.testing.assert_allclose(turned.values, plain.values, rtol=1e-10)
    assert distance(basis_of(r @ q.T, e, rank=3, alpha=0.5).vectors, q @ plain.vectors.numpy()) > 0.01


@pytest.mark.parametrize("factor", [1e-6, 1e3])
def test_scaling_the_inputs_changes_nothing_but_the_scale(factor: float) -> None:
    r, e = samples(9, 10), samples(15, 11)
    for relative in (True, False):
        plain = basis_of(r, e, rank=3, alpha=0.5, relative=relative)
        scaled = basis_of(factor * r, factor * e, rank=3, alpha=0.5, relative=relative)
        assert distance(scaled.vectors, plain.vectors) < 1e-9
        np.testing.assert_allclose(scaled.values, factor**2 * plain.values, rtol=1e-10)
        assert scaled.available == plain.available
    # the neutral rows' own scale is ignored by a relative alpha, and counts for a raw one
    relative_only = basis_of(r, factor * e, rank=3, alpha=0.5)
    assert distance(relative_only.vectors, basis_of(r, e, rank=3, alpha=0.5).vectors) < 1e-9
    raw = basis_of(r, 3 * e, rank=3, alpha=0.5, relative=False)
    assert distance(raw.vectors, basis_of(r, e, rank=3, alpha=0.5, relative=False).vectors) > 0.01


@cheap
@given(seeds, st.floats(0.0, 2.0), st.floats(0.01, 2.0))
def test_raising_alpha_never_finds_more(seed: int, alpha: float, more: float) -> None:
    """Weyl: taking away a positive matrix lowers every eigenvalue."""
    r, e = samples(6, seed, 16), samples(5, seed + 1, 16)
    low = basis_of(r, e, rank=16, alpha=alpha, center=False)
    high = basis_of(r, e, rank=16, alpha=alpha + more, center=False)
    assert high.available <= low.available
    assert (high.values <= low.values[: high.available] + 1e-10 * low.values[0]).all()


@pytest.mark.parametrize(
    ("rank", "alpha", "sentence"),
    [
        (0, 1.0, "rank is 0; it must be 1 or more."),
        (-3, 1.0, "rank is -3; it must be 1 or more."),
        (1, -1.0, "alpha is -1.0; it must be 0 or more."),
        (1, float("nan"), "alpha is nan; it must be 0 or more."),
        (1, float("inf"), "alpha is inf; it must be 0 or more."),
    ],
)
def test_wrong_rank_and_alpha_get_one_sentence(rank: int, alpha: float, sentence: str) -> None:
    span = sample_span(tensor(samples(5, 12)), None, center=True)
    with pytest.raises(InputError) as caught:
        contrastive_basis(span, rank=rank, alpha=alpha, relative=True)
    assert str(caught.value) == sentence


def test_rows_given_are_not_changed_and_one_that_is_not_finite_is_refused() -> None:
    r, e = tensor(samples(40, 13)), tensor(samples(60, 14))
    before = r.clone(), e.clone()
    contrastive_basis(sample_span(r, e, center=True), rank=2, alpha=1.0, relative=True)
    whiten(r, e, shrinkage=0.02)
    assert torch.equal(r, before[0])
    assert torch.equal(e, before[1])
    e[3, 5] = float("nan")
    for center in (True, False):
        with pytest.raises(InputError, match="The activations hold NaN or infinity"):
            sample_span(r, e, center=center)
    with pytest.raises(InputError, match="The activations hold NaN or infinity"):
        whiten(r, e, shrinkage=0.02)


def test_rows_too_large_for_float64_agree_to_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is lowered until all rows together just pass it: one precision for a site, whichever rows."""
    r, e = samples(40, 15), samples(60, 16)
    wanted = basis_of(r, e, rank=2, alpha=0.5).vectors, whiten(tensor(r), tensor(e), shrinkage=0.02)
    for limit, dtype in ((100 * H * 8, torch.float64), (100 * H * 8 - 1, torch.float32)):
        monkeypatch.setattr(subspace, "DOUBLE_LIMIT", limit)
        found = basis_of(r, e, rank=2, alpha=0.5).vectors
        oblique = whiten(tensor(r), tensor(e), shrinkage=0.02)
        assert found.dtype == oblique.remove.dtype == oblique.detect.dtype == oblique.mean.dtype == dtype
        assert distance(found, wanted[0]) < 1e-4
        np.testing.assert_allclose(operator(oblique, 2), operator(wanted[1], 2), rtol=0, atol=1e-4)


# --- the whitened edit -----------------------------------------------------------------------------


def operator(found: Whitening, k: int) -> Array:
    """U Q^T [H, H]: what the edit takes out of an input."""
    return found.remove[:, :k].numpy() @ found.detect[:, :k].numpy().T


def ordinary_covariance(x: Array, shrinkage: float) -> Array:
    sigma = np.cov(x.T)
    width = x.shape[1]
    return sigma + shrinkage * np.trace(sigma) / width * np.eye(width)


def whitened_oracle(r: Array, x: Array, shrinkage: float) -> tuple[Array, Array, Array]:
    """All of U [H, H], Q [H, H] and w by the formulas of the method, with full matrices and inverses.

    Q = Sigma^-1 U (U^T Sigma^-1 U)^-1; U^T Sigma^-1 U is I for the whole of U, and so for any part.
    """
    sigma = ordinary_covariance(x, shrinkage)
    inverse_root = np.linalg.inv(np.linalg.cholesky(sigma))
    values, z = np.linalg.eigh(inverse_root @ (r.T @ r / len(r)) @ inverse_root.T)
    u = np.linalg.cholesky(sigma) @ z[:, ::-1]
    inverse = np.linalg.inv(sigma)
    return u, inverse @ u @ np.linalg.inv(u.T @ inverse @ u), values[::-1]


def signed(columns: Array | Tensor, like: Array) -> Array:
    """The columns, each turned to the side of its counterpart: an eigenvector has no sign."""
    x = np.asarray(columns)
    return x * np.sign(np.sum(x * like, axis=0))


@pytest.mark.parametrize("shrinkage", [0.02, 1.0])
@pytest.mark.parametrize("rows", [(8, 20), (80, 200)])
def test_the_whitened_edit_equals_its_formulas(rows: tuple[int, int], shrinkage: float) -> None:
    r, x = samples(rows[0], 13), samples(rows[1], 14)
    found = whiten(tensor(r), tensor(x), shrinkage=shrinkage)
    u, q, w = whitened_oracle(r, x, shrinkage)
    assert found.available == min(rows[0], H)
    np.testing.assert_allclose(found.values, w[: found.available], rtol=0, atol=1e-10 * w[0])
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=0, atol=1e-14)
    for k in (1, 3, 5):
        np.testing.assert_allclose(operator(found, k), u[:, :k] @ q[:, :k].T, rtol=0, atol=1e-9)
    np.testing.assert_allclose(signed(found.remove[:, :5], u[:, :5]), u[:, :5], rtol=0, atol=1e-9)
    np.testing.assert_allclose(signed(found.detect[:, :5], q[:, :5]), q[:, :5], rtol=0, atol=1e-9)
    assert np.abs(operator(found, 3) - operator(found, 3).T).max() > 1e-2  # oblique, no mere projector


@pytest.mark.parametrize("rows", [(8, 20), (80, 200)])
def test_the_detector_of_each_direction_reads_one_there_and_zero_at_the_others(rows: tuple[int, int]) -> None:
    found = whiten(tensor(samples(rows[0], 15)), tensor(samples(rows[1], 16)), shrinkage=0.02)
    u, q, one = found.remove.numpy(), found.detect.numpy(), np.eye(found.available)
    np.testing.assert_allclose(q.T @ u, one, rtol=0, atol=1e-10)
    assert np.linalg.norm(u.T @ u - one) > 0.1


@pytest.mark.parametrize("rows", [(10, 20), (64, 200)])
def test_the_whitened_edit_solves_the_generalised_eigenproblem(rows: tuple[int, int]) -> None:
    """C_r Q = Sigma Q diag(w) at H = 64, and no root of an inverse anywhere: w are those of Sigma^-1 C_r."""
    r, x = samples(rows[0], 17, 64), samples(rows[1], 18, 64)
    second, sigma = r.T @ r / len(r), ordinary_covariance(x, 0.02)
    found = whiten(tensor(r), tensor(x), shrinkage=0.02)
    q, w = found.detect.numpy(), found.values.numpy()
    np.testing.assert_allclose(second @ q, sigma @ q * w, rtol=0, atol=1e-9 * w[0])
    wanted = np.sort(np.linalg.eigvals(np.linalg.solve(sigma, second)).real)[::-1][: len(w)]
    np.testing.assert_allclose(w, wanted, rtol=0, atol=1e-9 * w[0])
    assert (np.diff(w) <= 0).all()
    assert np.abs(second @ q - q * w).max() > 1e-3  # it is not the plain eigenproblem


@pytest.mark.parametrize("rows", [(10, 20), (64, 200)])
def test_directions_and_detectors_are_orthogonal_in_the_metric_of_ordinary_samples(
    rows: tuple[int, int],
) -> None:
    r, x = samples(rows[0], 19), samples(rows[1], 20)
    sigma = ordinary_covariance(x, 0.02)
    found = whiten(tensor(r), tensor(x), shrinkage=0.02)
    u, q, one = found.remove.numpy(), found.detect.numpy(), np.eye(found.available)
    np.testing.assert_allclose(u.T @ np.linalg.solve(sigma, u), one, rtol=0, atol=1e-9)
    np.testing.assert_allclose(q.T @ sigma @ q, one, rtol=0, atol=1e-9)
    np.testing.assert_allclose(u, sigma @ q, rtol=0, atol=1e-9)
    assert np.linalg.norm(q.T @ q - np.diag(np.diag(q.T @ q))) > 0.1


@pytest.mark.parametrize("rows", [(10, 25), (80, 300)])
def test_the_detector_reads_zero_on_the_mean_ordinary_sample(rows: tuple[int, int]) -> None:
    r, x = samples(rows[0], 21), samples(rows[1], 22)
    found = whiten(tensor(r), tensor(x), shrinkage=0.02)
    q = found.detect.numpy()
    level = q.T @ found.mean.numpy()
    np.testing.assert_allclose((x @ q - level).mean(0), 0, rtol=0, atol=1e-10)
    assert np.abs((x @ q).mean(0)).max() > 0.1


@cheap
@given(seeds, st.floats(1e-4, 10), st.booleans())
def test_ordinary_variation_is_read_no_more_than_by_the_plain_detector(
    seed: int, shrinkage: float, one: bool
) -> None:
    """Both detectors scaled to read 1 on r; a theorem for one pair, and for all directions read together.

    Sigma^-1 r has the least variance of all that read 1 on r, shrinkage counted; r / |r|^2 the least norm.
    """
    r, x = samples(1 if one else 4, seed, 16), samples(24, seed + 1, 16)
    found = whiten(tensor(r), tensor(x), shrinkage=shrinkage)
    mean, detect = r.mean(0), found.detect.numpy()
    lead = detect @ (detect.T @ mean)
    lead = lead / (lead @ mean)
    plain = mean / (mean @ mean)
    assert np.var(x @ lead) <= np.var(x @ plain) * (1 + 1e-9)
    strange = x + 100 * np.outer(np.linspace(-1, 1, len(x)), lead)  # a variation it has not been shown
    if np.linalg.norm(lead) > 2 * np.linalg.norm(plain):
        assert np.var(strange @ lead) > np.var(strange @ plain)


def test_isotropic_ordinary_variation_gives_the_papers_edit() -> None:
    """With Sigma a multiple of I, U Q^T is the orthogonal projector on the top directions of C_r."""
    r = samples(20, 23)
    x = np.concatenate([np.eye(H), -np.eye(H)])
    found = whiten(tensor(r), tensor(x), shrinkage=0.02)
    top = np.linalg.eigh(r.T @ r)[1][:, ::-1]
    for k in (1, 2):
        np.testing.assert_allclose(operator(found, k), top[:, :k] @ top[:, :k].T, rtol=0, atol=1e-9)
    p = top[:, 0] * 7  # of any length
    np.testing.assert_allclose(operator(found, 1), np.outer(p, p) / (p @ p), rtol=0, atol=1e-9)
    stretched = whiten(tensor(r), tensor(x * np.linspace(1, 5, H)), shrinkage=0.02)
    assert np.abs(operator(stretched, 1) - np.outer(p, p) / (p @ p)).max() > 1e-3


@pytest.mark.parametrize("rows", [20, 200])
def test_differences_along_one_direction_remove_the_refusal_vector(rows: int) -> None:
    """U is then r itself: only the detector differs from the paper's, by the ordinary covariance."""
    r, x = samples(1, 24)[0], samples(rows, 25)
    u, q = whitened_basis(tensor(np.outer([1.0, 2.0, 0.5], r)), tensor(x), rank=4, shrinkage=0.02)
    assert u.shape == q.shape == (1, H)
    inverse = np.linalg.inv(ordinary_covariance(x, 0.02))
    np.testing.assert_allclose(u.T @ q, np.outer(r, inverse @ r) / (r @ inverse @ r), rtol=0, atol=1e-10)
    assert np.abs(u.numpy().T @ q.numpy() - np.outer(r, r) / (r @ r)).max() > 1e-2


def test_raising_the_shrinkage_moves_the_edit_towards_the_papers() -> None:
    r, x = samples(20, 26), samples(200, 27)
    p = np.linalg.eigh(r.T @ r)[1][:, -1]
    gaps = [
        np.abs(operator(whiten(tensor(r), tensor(x), shrinkage=s), 1) - np.outer(p, p)).max()
        for s in (0.02, 1.0, 100.0, 1e8)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.1
    assert gaps[-1] < 1e-7


def test_both_paths_whiten_the_same_rows_alike() -> None:
    """10 + 30 rows: the full path at 64 inputs, the QR at 128; shrinkage is a share of tr / H, so doubled."""
    r, x = samples(10, 28, 64), samples(30, 29, 64)
    full = whiten(tensor(r), tensor(x), shrinkage=0.02)
    fast = whiten(tensor(padded(r, 128)), tensor(padded(x, 128)), shrinkage=0.04)
    assert full.available == fast.available == 10
    np.testing.assert_allclose(fast.values, full.values, rtol=1e-10)
    for k in (1, 4, 10):
        np.testing.assert_allclose(operator(fast, k)[:64, :64], operator(full, k), rtol=0, atol=1e-9)
        assert np.abs(operator(fast, k)[64:]).max() < 1e-12
    same_share = whiten(tensor(padded(r, 128)), tensor(padded(x, 128)), shrinkage=0.02)
    assert np.abs(operator(same_share, 4)[:64, :64] - operator(full, 4)).max() > 1e-4


def test_an_invertible_map_of_the_inputs_carries_the_whitened_edit_along() -> None:
    """U -> A U and Q -> A^-T Q at vanishing shrinkage; the paper's orthogonal projector has no such law."""
    rng = np.random.default_rng(2)
    r, x = rng.standard_normal((40, H)) * np.linspace(2, 1, H), rng.standard_normal((600, H)) + 1
    a = turn(3) @ np.diag(np.linspace(1, 4, H)) @ turn(4)  # condition 4
    back = np.linalg.inv(a)
    plain = whiten(tensor(r), tensor(x), shrinkage=1e-12)
    mapped = whiten(tensor(r @ a.T), tensor(x @ a.T), shrinkage=1e-12)
    np.testing.assert_allclose(mapped.values, plain.values, rtol=1e-9)  # coordinates do not count
    wanted_u, wanted_q = a @ plain.remove[:, :3].numpy(), back.T @ plain.detect[:, :3].numpy()
    np.testing.assert_allclose(signed(mapped.remove[:, :3], wanted_u), wanted_u, rtol=0, atol=1e-8)
    np.testing.assert_allclose(signed(mapped.detect[:, :3], wanted_q), wanted_q, rtol=0, atol=1e-8)
    np.testing.assert_allclose(operator(mapped, 3), a @ operator(plain, 3) @ back, rtol=0, atol=1e-8)
    mean = r.mean(0)
    paper, there = np.outer(mean, mean) / (mean @ mean), np.outer(a @ mean, a @ mean)
    assert np.abs(there / np.sum((a @ mean) ** 2) - a @ paper @ back).max() > 1e-2


@pytest.mark.parametrize("rows", [(10, 30), (30, 300)])
def test_a_rotation_carries_the_whitened_edit_along_at_any_shrinkage(rows: tuple[int, int]) -> None:
    r, x, q = samples(rows[0], 30), samples(rows[1], 31), turn(5)
    plain = operator(whiten(tensor(r), tensor(x), shrinkage=0.5), 3)
    turned = operator(whiten(tensor(r @ q.T), tensor(x @ q.T), shrinkage=0.5), 3)
    np.testing.assert_allclose(turned, q @ plain @ q.T, rtol=0, atol=1e-9)
    half = operator(whiten(tensor(r @ q.T), tensor(x), shrinkage=0.5), 3)
    assert np.abs(half - q @ plain @ q.T).max() > 1e-2


@pytest.mark.parametrize("factor", [1e-6, 1e3])
def test_scaling_the_inputs_leaves_what_the_whitened_edit_takes_out(factor: float) -> None:
    r, x = samples(10, 32), samples(30, 33)
    plain = whiten(tensor(r), tensor(x), shrinkage=0.02)
    scaled = whiten(tensor(factor * r), tensor(factor * x), shrinkage=0.02)
    assert scaled.available == plain.available
    np.testing.assert_allclose(operator(scaled, 3), operator(plain, 3), rtol=0, atol=1e-9)
    np.testing.assert_allclose(scaled.values, plain.values, rtol=1e-9)
    np.testing.assert_allclose(scaled.remove.norm(dim=0), factor * plain.remove.norm(dim=0), rtol=1e-9)
    louder = whiten(tensor(factor * r), tensor(x), shrinkage=0.02)  # a louder concept is the same concept
    np.testing.assert_allclose(operator(louder, 3), operator(plain, 3), rtol=0, atol=1e-9)
    np.testing.assert_allclose(louder.values, factor**2 * plain.values, rtol=1e-9)


def test_the_whitened_edit_ignores_where_the_ordinary_mean_lies_but_counts_that_of_the_differences() -> None:
    r, x = samples(10, 34), samples(30, 35)
    plain = whiten(tensor(r), tensor(x), shrinkage=0.02)
    moved = whiten(tensor(r), tensor(x + 5.0), shrinkage=0.02)
    np.testing.assert_allclose(operator(moved, 3), operator(plain, 3), rtol=0, atol=1e-9)
    np.testing.assert_allclose(moved.mean, plain.mean + 5.0, rtol=0, atol=1e-12)
    assert (
        np.abs(operator(whiten(tensor(r + 5.0), tensor(x), shrinkage=0.02), 3) - operator(plain, 3)).max()
        > 0.01
    )


def test_a_lower_rank_is_the_head_of_a_higher_one_and_too_high_a_rank_is_clamped() -> None:
    r, x = tensor(samples(5, 36)), tensor(samples(30, 37))
    u, q = whitened_basis(r, x, rank=100, shrinkage=0.02)
    assert u.shape == q.shape == (5, H)
    for k in (1, 3):
        u_k, q_k = whitened_basis(r, x, rank=k, shrinkage=0.02)
        assert torch.equal(u_k, u[:k])
        assert torch.equal(q_k, q[:k])
    assert not torch.equal(u[:1], u[1:2])


FEW, MANY = tensor(samples(5, 38)), tensor(samples(9, 39))
EQUAL = "Unsafe and safe activations are equal at this site."
STILL = "The ordinary samples do not vary at this site; use rv here."


@pytest.mark.parametrize(
    ("r", "x", "shrinkage", "error", "sentence"),
    [
        (torch.zeros(5, H), MANY, 0.02, RankError, EQUAL),
        (torch.zeros(60, H), MANY, 0.02, RankError, EQUAL),
        (FEW, torch.ones(4, H), 0.02, RankError, STILL),
        (FEW, MANY[:1].repeat(7, 1), 0.02, RankError, STILL),  # its mean is off by rounding
        (FEW, MANY[:1].repeat(77, 1), 0.02, RankError, STILL),
        (
            FEW,
            MANY[:1],
            0.02,
            InputError,
            "The whitened edit needs at least 2 ordinary samples; add neutral prompts.",
        ),
        (FEW, MANY, 0.0, InputError, "shrinkage is 0.0; it must be above 0."),
        (FEW, MANY, -1.0, InputError, "shrinkage is -1.0; it must be above 0."),
        (FEW, MANY, float("nan"), InputError, "shrinkage is nan; it must be above 0."),
        (FEW * float("nan"), MANY, 0.02, InputError, NOT_FINITE),
    ],
)
def test_whitening_refuses_what_it_cannot_solve(
    r: Tensor, x: Tensor, shrinkage: float, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        whiten(r, x, shrinkage=shrinkage)
    assert str(caught.value) == sentence
    whiten(FEW, MANY, shrinkage=0.02)
    with pytest.raises(InputError, match=r"^rank is 0; it must be 1 or more\.$"):
        whitened_basis(FEW, MANY, rank=0, shrinkage=0.02)
