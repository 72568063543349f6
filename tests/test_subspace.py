"""The subspaces against an independent float64 oracle: full H x H covariances and numpy's eigh."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from refusal_core.errors import InputError, RankError
from refusal_core.subspace import (
    contrastive_basis,
    kept_part,
    refusal_vector,
    sample_span,
    whiten,
    whitened_basis,
)

H = 96
Array = NDArray[np.float64]


def samples(rows: int, seed: int, scale: Array | None = None) -> Array:
    """Random rows whose directions have unlike spreads, so that eigenvectors are well apart."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(np.random.default_rng(99 + seed).standard_normal((H, H)))[0]
    spreads = np.geomspace(3.0, 0.05, H) if scale is None else scale
    return rng.standard_normal((rows, H)) * spreads @ rotation.T + rng.standard_normal(H)


def tensor(x: Array) -> torch.Tensor:
    return torch.from_numpy(x)


def oracle(r: Array, e: Array | None, alpha: float, relative: bool, center: bool) -> tuple[Array, Array]:
    """All eigenvalues, largest first, and their eigenvectors, of the full H x H matrix."""
    c = np.cov(r.T) if center else r.T @ r / len(r)
    if e is not None:
        ordinary = np.cov(e.T)
        if relative:
            ordinary = ordinary * (np.trace(c) / np.trace(ordinary))
        c = c - alpha * ordinary
    values, vectors = np.linalg.eigh(c)
    return values[::-1], vectors[:, ::-1]


def same_space(a: Array, b: Array) -> float:
    """The largest difference of the projectors on two spaces."""
    return float(np.abs(a @ a.T - b @ b.T).max())


def test_the_refusal_vector_is_the_mean_difference_in_any_order_of_pairs() -> None:
    u, s = samples(7, 1), samples(7, 2)
    r = refusal_vector(tensor(u), tensor(s))
    np.testing.assert_allclose(r.numpy(), (u - s).mean(0), atol=1e-14)
    order = np.random.default_rng(0).permutation(7)
    np.testing.assert_allclose(
        refusal_vector(tensor(u[order]), tensor(s[order])).numpy(), r.numpy(), atol=1e-14
    )
    assert not np.allclose(refusal_vector(tensor(s), tensor(u)).numpy(), r.numpy())


def test_rows_that_are_no_twins_or_not_finite_are_refused() -> None:
    u = torch.zeros(3, 4)
    with pytest.raises(InputError, match=r"Unsafe \[3, 4\] and safe \[2, 4\] rows must be twins"):
        refusal_vector(u, torch.zeros(2, 4))
    with pytest.raises(InputError, match="The activations hold NaN or infinity"):
        refusal_vector(u, torch.full((3, 4), float("nan")))


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(("pairs", "neutral"), [(10, 20), (60, 90)])
def test_the_fast_basis_equals_numpy_eigh(pairs: int, neutral: int, relative: bool, center: bool) -> None:
    """Few rows take the QR path, many the full one; both must give the oracle's space and values."""
    r, e = samples(pairs, 3), samples(neutral, 4)
    span = sample_span(tensor(r), tensor(e), center=center)
    assert (span.basis is None) == (pairs + neutral > H / 2)
    found = contrastive_basis(span, rank=4, alpha=0.7, relative=relative)
    values, vectors = oracle(r, e, 0.7, relative, center)
    np.testing.assert_allclose(found.values.numpy(), values[:4], rtol=1e-10)
    assert same_space(found.vectors.numpy(), vectors[:, :4]) < 1e-9
    assert same_space(found.vectors.numpy(), vectors[:, 4:8]) > 0.1


def test_pca_is_contrast_without_contrast() -> None:
    r = samples(12, 5)
    found = contrastive_basis(sample_span(tensor(r), None, center=True), rank=3, alpha=1.0, relative=True)
    assert same_space(found.vectors.numpy(), oracle(r, None, 0, False, True)[1][:, :3]) < 1e-10


def test_the_largest_algebraic_eigenvalue_is_taken_not_the_largest_absolute() -> None:
    """Neutral rows vary hugely along one axis: an SVD of C would pick just that axis."""
    r, e = np.zeros((8, H)), np.zeros((30, H))
    r[:, 0] = np.linspace(-1, 1, 8)
    e[:, 1] = np.linspace(-50, 50, 30)
    span = sample_span(tensor(r), tensor(e), center=True)
    found = contrastive_basis(span, rank=1, alpha=1.0, relative=False).vectors.numpy()[:, 0]
    assert abs(found[0]) == pytest.approx(1.0)
    full = np.cov(r.T) - np.cov(e.T)
    assert abs(np.linalg.svd(full)[0][1, 0]) == pytest.approx(1.0)


def test_nonpositive_eigenvalues_are_never_used() -> None:
    r, e = samples(6, 6), samples(40, 7)
    found = contrastive_basis(
        sample_span(tensor(r), tensor(e), center=True), rank=50, alpha=1.0, relative=True
    )
    values = oracle(r, e, 1.0, True, True)[0]
    assert found.available == int((values > 1e-10).sum()) == found.vectors.shape[1] < 6
    assert (found.values > 0).all()
    with pytest.raises(RankError, match="lower alpha"):
        contrastive_basis(sample_span(tensor(e), tensor(e), center=True), rank=1, alpha=2.0, relative=True)


def test_five_pooled_pairs_hold_four_directions() -> None:
    span = sample_span(tensor(samples(5, 8)), None, center=True)
    found = contrastive_basis(span, rank=100, alpha=0.0, relative=True)
    assert found.available == found.vectors.shape[1] == 4
    span = sample_span(tensor(samples(5, 8)), None, center=False)
    assert contrastive_basis(span, rank=100, alpha=0.0, relative=True).available == 5


def test_full_rank_keeps_the_whole_refusal_vector_where_the_mean_counts() -> None:
    r = samples(12, 9)
    mean = tensor(r.mean(0))
    whole = contrastive_basis(sample_span(tensor(r), None, center=False), rank=12, alpha=0, relative=True)
    p, share = kept_part(mean, whole)
    np.testing.assert_allclose(p.numpy(), mean.numpy(), atol=1e-10)
    assert share == pytest.approx(1.0)
    centred = contrastive_basis(sample_span(tensor(r), None, center=True), rank=12, alpha=0, relative=True)
    assert kept_part(mean, centred)[1] < 0.99  # centring takes the mean away


def test_a_rotation_of_the_space_rotates_the_result_and_a_scale_changes_nothing() -> None:
    r, e = samples(9, 10), samples(15, 11)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((H, H)))[0]

    def basis(r: Array, e: Array) -> Array:
        span = sample_span(tensor(r), tensor(e), center=True)
        return contrastive_basis(span, rank=3, alpha=0.5, relative=True).vectors.numpy()

    plain = basis(r, e)
    assert same_space(basis(r @ turn.T, e @ turn.T), turn @ plain) < 1e-9
    assert same_space(basis(1000 * r, 1000 * e), plain) < 1e-9
    assert same_space(basis(r @ turn.T, e), turn @ plain) > 0.01


def test_wrong_rank_and_alpha_get_one_sentence() -> None:
    span = sample_span(tensor(samples(5, 12)), None, center=True)
    with pytest.raises(InputError, match="rank is 0; it must be 1 or more"):
        contrastive_basis(span, rank=0, alpha=1, relative=True)
    with pytest.raises(InputError, match="alpha is -1; it must be 0 or more"):
        contrastive_basis(span, rank=1, alpha=-1, relative=True)


# --- the whitened edit -----------------------------------------------------------------------------


def whitened_oracle(r: Array, x: Array, k: int, shrinkage: float) -> tuple[Array, Array]:
    """U and Q [H, k] by the formulas of the method, with full matrices and an explicit inverse."""
    sigma = np.cov(x.T)
    sigma = sigma + shrinkage * np.trace(sigma) / H * np.eye(H)
    lower = np.linalg.cholesky(sigma)
    inner = np.linalg.inv(lower) @ (r.T @ r / len(r)) @ np.linalg.inv(lower).T
    z = np.linalg.eigh(inner)[1][:, ::-1][:, :k]
    u = lower @ z
    inverse = np.linalg.inv(sigma)
    return u, inverse @ u @ np.linalg.inv(u.T @ inverse @ u)


@pytest.mark.parametrize("rows", [(8, 20), (80, 200)])
def test_the_whitened_edit_equals_its_formulas(rows: tuple[int, int]) -> None:
    r, x = samples(rows[0], 13), samples(rows[1], 14)
    u, q = whitened_basis(tensor(r), tensor(x), rank=3, shrinkage=0.02)
    wanted_u, wanted_q = whitened_oracle(r, x, 3, 0.02)
    np.testing.assert_allclose(u.T.numpy() @ q.numpy(), wanted_u @ wanted_q.T, atol=1e-9)
    np.testing.assert_allclose((q @ u.T).numpy(), np.eye(3), atol=1e-10)


def test_the_detector_reads_zero_on_the_ordinary_mean_and_little_on_ordinary_variation() -> None:
    r, x = samples(40, 15), samples(300, 16)
    found = whiten(tensor(r), tensor(x), shrinkage=0.02)
    q, level = found.detect[:, 0].numpy(), float(found.detect[:, 0] @ found.mean)
    assert np.mean(x @ q - level) == pytest.approx(0.0, abs=1e-10)
    mean = r.mean(0)
    plain = mean / (mean @ mean)  # the plain detector, scaled to read 1 on r as the whitened one below
    assert np.var(x @ q / (q @ mean)) < np.var(x @ plain)


def test_isotropic_ordinary_variation_gives_the_papers_edit() -> None:
    """With Sigma a multiple of I, U Q^T is the orthogonal projector on the top directions of C_r."""
    r = samples(20, 17)
    x = np.concatenate([np.eye(H), -np.eye(H)])
    u, q = whitened_basis(tensor(r), tensor(x), rank=2, shrinkage=0.02)
    top = np.linalg.eigh(r.T @ r)[1][:, ::-1][:, :2]
    np.testing.assert_allclose(u.T.numpy() @ q.numpy(), top @ top.T, atol=1e-9)
    stretched = x * np.linspace(1, 5, H)
    u, q = whitened_basis(tensor(r), tensor(stretched), rank=2, shrinkage=0.02)
    assert np.abs(u.T.numpy() @ q.numpy() - top @ top.T).max() > 1e-3


def test_an_invertible_map_of_the_inputs_carries_the_whitened_edit_along() -> None:
    """Affine equivariance at vanishing shrinkage; the orthogonal projector has no such law."""
    r, x = samples(30, 18), samples(400, 19)
    a = np.random.default_rng(2).standard_normal((H, H)) / 10 + np.eye(H)

    def oblique(r: Array, x: Array) -> Array:
        u, q = whitened_basis(tensor(r), tensor(x), rank=2, shrinkage=1e-13)
        return u.T.numpy() @ q.numpy()

    mapped = a @ oblique(r, x) @ np.linalg.inv(a)
    np.testing.assert_allclose(oblique(r @ a.T, x @ a.T), mapped, atol=1e-5)
    top = np.linalg.eigh(r.T @ r)[1][:, -2:]
    turned = np.linalg.eigh(a @ r.T @ r @ a.T)[1][:, -2:]
    assert np.abs(turned @ turned.T - a @ top @ top.T @ np.linalg.inv(a)).max() > 1e-2


def test_whitening_refuses_what_it_cannot_solve() -> None:
    r, x = tensor(samples(5, 20)), tensor(samples(9, 21))
    with pytest.raises(RankError, match="Unsafe and safe activations are equal at this site"):
        whiten(torch.zeros(5, H), x, shrinkage=0.02)
    with pytest.raises(RankError, match="The ordinary samples do not vary"):
        whiten(r, torch.ones(4, H), shrinkage=0.02)
    with pytest.raises(InputError, match="needs at least 2 ordinary samples"):
        whiten(r, x[:1], shrinkage=0.02)
    with pytest.raises(InputError, match="shrinkage is 0; it must be above 0"):
        whiten(r, x, shrinkage=0)
