"""Folding: the closed form equals steering the input, whatever the form of the edit.

The oracle is full H x H algebra in numpy float64.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from refusal_core.errors import InputError
from refusal_core.fold import is_separable, joint_detector, lora_factors, project_out, shift_bias

O, H = 40, 64  # noqa: E741 - the paper's names
Array = NDArray[np.float64]
seeds = st.integers(0, 10_000)
cheap = settings(derandomize=True, max_examples=50, deadline=None)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(seed: int) -> Tensor:
    """A direction p / |p|, as one row."""
    p = random(1, H, seed=seed)
    return p / p.norm()


def oblique(rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """U and Q [rank, H] with Q U^T = I, unlike one another, about 45 degrees apart."""
    u = random(rank, H, seed=seed) / H**0.5
    q = u + random(rank, H, seed=seed + 20_000) / H**0.5
    return u, torch.linalg.inv(q @ u.T) @ q


def at_cosine(c: float, seed: int) -> Tensor:
    """Two unit directions with this cosine."""
    a, b = unit(seed), unit(seed + 1)
    b = b - (b @ a.T) * a
    return torch.cat([a, c * a + (1 - c * c) ** 0.5 * b / b.norm()])


def ones(m: int) -> Tensor:
    return torch.ones(m, dtype=torch.float64)


def edit_matrix(u: Tensor, q: Tensor, strength: Tensor) -> Array:
    """U D Q^T [H, H], U and Q as columns."""
    return u.numpy().T @ np.diag(strength.numpy()) @ q.numpy()


def close(a: Tensor | Array, b: Tensor | Array, atol: float) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=atol)


def differ(a: Tensor | Array, b: Tensor | Array) -> bool:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max()) > 1e-3


# --- one edit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.0])
def test_the_fold_is_the_papers_formula(strength: float) -> None:
    """W~ = W (I - lambda p p^T / |p|^2), for p of any length."""
    w, p = random(O, H), 5 * random(H, seed=1)
    n, v = w.numpy(), p.numpy()
    wanted = n @ (np.eye(H) - strength * np.outer(v, v) / (v @ v))
    row = (p / p.norm())[None]
    close(project_out(w, row, row, strength * ones(1)), wanted, 1e-12)
    assert differ(project_out(w, p[None], p[None], strength * ones(1)), wanted)  # the length counts


@cheap
@given(seeds, st.integers(1, 4), st.booleans())
def test_the_fold_equals_steering_the_input(seed: int, rank: int, plain: bool) -> None:
    """y = W~ x + b is W x~ + b with x~ = x - U D Q^T x, for the paper's and for oblique edits."""
    w, bias, x = random(O, H, seed=seed), random(O, seed=seed + 1), random(5, H, seed=seed + 2)
    u, q = (unit(seed), unit(seed)) if plain else oblique(rank, seed)
    strength = torch.rand(len(u), generator=torch.Generator().manual_seed(seed)).double() + 0.1
    steered = x - ((x @ q.T) * strength) @ u
    got = torch.nn.functional.linear(x, project_out(w, u, q, strength), bias)
    close(got, torch.nn.functional.linear(steered, w, bias), 1e-11)
    close(project_out(w, u, q, strength), w.numpy() @ (np.eye(H) - edit_matrix(u, q, strength)), 1e-11)
    assert differ(torch.nn.functional.linear(x, w, bias), got)


@cheap
@given(seeds, st.integers(1, 3))
def test_the_anchored_fold_equals_steering_towards_the_level(seed: int, rank: int) -> None:
    """x~ = x - U D (Q^T x - level), for any level."""
    w, bias, x = random(O, H, seed=seed), random(O, seed=seed + 1), random(5, H, seed=seed + 2)
    (u, q), level = oblique(rank, seed), random(rank, seed=seed + 3)
    strength = torch.rand(rank, generator=torch.Generator().manual_seed(seed)).double() + 0.1
    steered = x - ((x @ q.T - level) * strength) @ u
    moved = shift_bias(w, bias, u, strength, level)
    got = torch.nn.functional.linear(x, project_out(w, u, q, strength), moved)
    close(got, torch.nn.functional.linear(steered, w, bias), 1e-11)
    close(moved, bias.numpy() + w.numpy() @ u.numpy().T @ (strength * level).numpy(), 1e-11)
    assert differ(torch.nn.functional.linear(x, project_out(w, u, q, strength), bias), got)


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_strength_zero_is_bit_identical(dtype: torch.dtype) -> None:
    w, bias, (u, q) = random(O, H).to(dtype), random(O, seed=1), oblique(2, 3)
    w[0, 0], bias[0] = -0.0, -0.0
    same, same_bias = project_out(w, u, q, torch.zeros(2)), shift_bias(w, bias, u, torch.zeros(2), ones(2))
    assert torch.equal(same, w)
    assert same.data_ptr() != w.data_ptr()
    assert torch.equal(same_bias, bias)  # also of a bias finer than the weight
    assert same_bias.data_ptr() != bias.data_ptr()
    assert torch.signbit(same)[0, 0]
    assert torch.signbit(same_bias)[0]
    assert not torch.equal(project_out(w, u, q, torch.tensor([0.0, 0.1])), w)
    assert not torch.equal(shift_bias(w, bias, u, torch.tensor([0.0, 0.1]), ones(2)), bias)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_weights_dtype_is_kept_and_the_work_is_done_in_float32_or_better(dtype: torch.dtype) -> None:
    """The result is the exact one, rounded once to the weight's dtype; stepwise half precision is not."""
    w, (u, q), strength = random(O, H).to(dtype), oblique(2, 5), torch.tensor([0.7, 1.0]).double()
    exact = w.double().numpy() @ (np.eye(H) - edit_matrix(u, q, strength))
    new = project_out(w, u, q, strength)
    assert new.dtype == dtype
    a, b = lora_factors(w, u, q, strength)
    assert a.dtype == b.dtype == torch.promote_types(dtype, torch.float32)
    rounding = torch.finfo(dtype).eps * np.abs(exact) / 2
    work = 64 * torch.finfo(a.dtype).eps  # sums of H products
    assert (np.abs(new.double().numpy() - exact) <= rounding + work).all()
    if dtype.itemsize == 2:
        stepwise = w - (w @ u.T.to(dtype) * strength.to(dtype)) @ q.to(dtype)
        assert not (np.abs(stepwise.double().numpy() - exact) <= rounding + work).all()
    bias = random(O, seed=2).to(dtype)
    assert shift_bias(w, bias, u, strength, ones(2)).dtype == dtype


@pytest.mark.parametrize("plain", [True, False])
def test_at_strength_one_the_edit_is_idempotent(plain: bool) -> None:
    w, (u, q) = random(O, H), (unit(4), unit(4)) if plain else oblique(3, 4)
    one = ones(len(u))
    once = project_out(w, u, q, one)
    close(project_out(once, u, q, one), once, 1e-12)
    half = project_out(w, u, q, one / 2)
    assert differ(project_out(half, u, q, one / 2), half)


def test_after_the_papers_edit_the_layer_is_blind_to_the_direction_and_to_nothing_else() -> None:
    w, p, other = random(O, H), unit(5), random(1, H, seed=6)
    new = project_out(w, p, p, ones(1))
    close(new @ p.T, np.zeros((O, 1)), 1e-13)
    assert differ(w @ p.T, np.zeros((O, 1)))
    across = other - (other @ p.T) * p
    close(new @ across.T, w @ across.T, 1e-12)
    assert differ(new @ other.T, w @ other.T)
    close(project_out(w, p, p, 2 * ones(1)) @ p.T, -(w @ p.T), 1e-12)  # strength 2 turns it round


def test_after_the_whitened_edit_the_layer_is_blind_to_u_and_keeps_what_q_does_not_read() -> None:
    w, (u, q), other = random(O, H), oblique(3, 7), random(1, H, seed=8)
    new = project_out(w, u, q, ones(3))
    close(new @ u.T, np.zeros((O, 3)), 1e-12)
    assert differ(new @ q.T, np.zeros((O, 3)))
    unread = other - (other @ torch.linalg.pinv(q)) @ q
    close(q @ unread.T, np.zeros((3, 1)), 1e-12)
    close(new @ unread.T, w @ unread.T, 1e-11)
    across = other - (other @ torch.linalg.pinv(u)) @ u  # orthogonal to U is not enough
    assert differ(new @ across.T, w @ across.T)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_weight_given_is_not_changed_and_the_change_has_rank_m(rank: int) -> None:
    w, bias, (u, q) = random(O, H), random(O, seed=1), oblique(rank, 9)
    strength, level = torch.linspace(0.2, 1.0, rank).double(), random(rank, seed=2)
    given_values = (w, bias, u, q, strength, level)
    before = [x.clone() for x in given_values]
    new = project_out(w, u, q, strength)
    lora_factors(w, u, q, strength)
    shift_bias(w, bias, u, strength, level)
    joint_detector(u, q, strength, level)
    assert all(torch.equal(x, y) for x, y in zip(given_values, before, strict=True))
    assert np.linalg.matrix_rank((new - w).numpy()) == rank
    strength[0] = 0.0
    assert np.linalg.matrix_rank((project_out(w, u, q, strength) - w).numpy()) == rank - 1


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_lora_factors_equal_the_fold(rank: int) -> None:
    w, (u, q), strength = random(O, H), oblique(rank, 10), torch.linspace(0.4, 1.0, rank).double()
    a, b = lora_factors(w, u, q, strength)
    assert a.shape == (rank, H)
    assert b.shape == (O, rank)
    close(w + b @ a, project_out(w, u, q, strength), 1e-12)
    close(w.numpy() + b.numpy() @ a.numpy(), w.numpy() @ (np.eye(H) - edit_matrix(u, q, strength)), 1e-11)
    swapped, back = lora_factors(w, q, u, strength)
    assert differ(w + back @ swapped, w + b @ a)


def test_the_lora_of_the_paper_has_rank_one_and_its_factors_are_the_papers() -> None:
    w, p = random(O, H), unit(11)
    a, b = lora_factors(w, p, p, 0.5 * ones(1))
    close(a, p, 0)
    close(b, -0.5 * w.numpy() @ p.numpy().T, 1e-13)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_anchored_edit_leaves_the_ordinary_mean_alone(rank: int) -> None:
    """At any strength; the edit that moves to zero does not."""
    w, bias, mean, (u, q) = random(O, H), random(O, seed=8), random(H, seed=9), oblique(rank, 12)
    for strength in (ones(rank), 0.3 * ones(rank)):
        new, moved = project_out(w, u, q, strength), shift_bias(w, bias, u, strength, q @ mean)
        close(new @ mean + moved, w @ mean + bias, 1e-12)
        assert differ(new @ mean + bias, w @ mean + bias)
        off = mean + u[0]
        assert differ(new @ off + moved, w @ off + bias)


FIT = "The edit is made for 64 inputs, this layer has {}; use it on the model it was made for."
SHAPES = "An edit needs a weight [O, H] and directions U and Q of one shape [m, H]."
LEVELS = "An anchored edit needs a bias [O] and a level for each of its m directions."


@pytest.mark.parametrize(
    ("weight", "remove", "detect", "strength", "sentence"),
    [
        ((O, 63), (2, H), (2, H), (2,), FIT.format(63)),
        ((H, O), (2, H), (2, H), (2,), FIT.format(O)),
        ((O, H), (2, H), (2, H), (3,), FIT.format(H)),
        ((O, H), (2, H), (2, H), (1,), FIT.format(H)),
        ((O, H), (2, H), (1, H), (2,), SHAPES),
        ((O, H), (H,), (H,), (1,), SHAPES),
        ((O, H, 3), (2, H), (2, H), (2,), SHAPES),
        ((H,), (2, H), (2, H), (2,), SHAPES),
    ],
)
def test_shapes_that_do_not_fit_get_one_sentence(
    weight: tuple[int, ...],
    remove: tuple[int, ...],
    detect: tuple[int, ...],
    strength: tuple[int, ...],
    sentence: str,
) -> None:
    for fold in (project_out, lora_factors):
        with pytest.raises(InputError) as caught:
            fold(torch.zeros(weight), torch.zeros(remove), torch.zeros(detect), torch.ones(strength))
        assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("bias", "level", "strength", "sentence"),
    [
        ((O,), (1,), (2,), LEVELS),  # would be spread over both directions unseen
        ((O,), (3,), (2,), LEVELS),
        ((H,), (2,), (2,), LEVELS),
        ((1,), (2,), (2,), LEVELS),
        ((O,), (2,), (1,), FIT.format(H)),
    ],
)
def test_a_bias_or_level_that_does_not_fit_gets_one_sentence(
    bias: tuple[int, ...], level: tuple[int, ...], strength: tuple[int, ...], sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        shift_bias(
            torch.zeros(O, H), torch.zeros(bias), torch.zeros(2, H), torch.ones(strength), torch.zeros(level)
        )
    assert str(caught.value) == sentence


# --- several concepts ------------------------------------------------------------------------------


@cheap
@given(seeds, st.permutations(range(5)), st.booleans())
def test_combining_is_order_free_and_each_direction_is_removed_once(
    seed: int, order: list[int], anchored: bool
) -> None:
    """Three concepts: two oblique ones of rank 2, one of the paper's."""
    parts = [oblique(2, seed), oblique(2, seed + 1), (unit(seed + 2), unit(seed + 2))]
    u, q = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    strength = torch.tensor([1.0, 1.0, 0.5, 0.5, 0.8]).double()
    level = random(5, seed=seed) if anchored else None
    joint, levels, condition = joint_detector(u, q, strength, level)
    close(joint @ u.T, np.eye(5), 1e-10)
    one = ones(5)
    close(project_out(random(O, H), u, joint, one) @ u.T, np.zeros((O, 5)), 1e-10)  # blind to every one
    shuffled, moved, same = joint_detector(
        u[order], q[order], strength[order], None if level is None else level[order]
    )
    close(edit_matrix(u[order], shuffled, strength[order]), edit_matrix(u, joint, strength), 1e-10)
    close(shuffled, joint[order], 1e-10)
    assert same == pytest.approx(condition, rel=1e-6)
    if level is not None and levels is not None and moved is not None:
        close(moved, levels[order], 1e-10)
        close((q @ u.T) @ levels, level, 1e-10)  # each concept's own detector then reads its level


def test_edits_one_after_another_depend_on_the_order() -> None:
    w, (u, q), (v, s) = random(O, H), oblique(2, 13), oblique(1, 14)
    one_way = project_out(project_out(w, u, q, ones(2)), v, s, ones(1))
    other_way = project_out(project_out(w, v, s, ones(1)), u, q, ones(2))
    assert differ(one_way, other_way)
    both = torch.cat([u, v]), torch.cat([q, s])
    joint, _, _ = joint_detector(*both, ones(3), None)
    assert differ(project_out(w, both[0], joint, ones(3)), one_way)


@pytest.mark.parametrize("cosine", [0.0, 0.5, -0.9, 0.99, 0.9999])
def test_projectors_of_one_strength_reduce_to_the_projector_on_their_span(cosine: float) -> None:
    """Q Q^T of an orthonormal basis by QR, even nearly parallel; one after another does not."""
    p = torch.cat([at_cosine(cosine, 15), unit(17)])
    for strength in (ones(3), 0.6 * ones(3)):
        joint, _, condition = joint_detector(p, p, strength, None)
        basis = np.linalg.qr(p.numpy().T)[0]
        close(edit_matrix(p, joint, strength), float(strength[0]) * basis @ basis.T, 1e-10)
        assert is_separable(p, p, strength, condition)
    one_by_one = np.eye(H)
    for row in p.numpy():
        one_by_one = one_by_one @ (np.eye(H) - np.outer(row, row))
    assert differ(np.eye(H) - one_by_one, basis @ basis.T)


def test_projectors_that_are_one_direction_but_for_rounding_are_removed_as_one() -> None:
    """1e-6 apart is the rounding of an edit file's float32: the difference is noise, and stays."""
    p, noise = unit(18), unit(19)
    noise = noise - (noise @ p.T) * p
    near = p + 1e-6 * noise / noise.norm()
    both = torch.cat([p, near / near.norm()])
    joint, _, condition = joint_detector(both, both, ones(2), None)
    assert condition > 1e6
    assert is_separable(both, both, ones(2), condition)
    removed = edit_matrix(both, joint, ones(2))
    middle = (both[0] + both[1]) / (both[0] + both[1]).norm()
    close(removed, np.outer(middle, middle), 1e-9)
    close(both.numpy() @ (np.eye(H) - removed), np.zeros((2, H)), 1e-6)  # both are gone
    assert float(joint.abs().max()) < 1.0
    unequal = torch.tensor([1.0, 0.5]).double()
    blown, _, condition = joint_detector(both, both, unequal, None)
    assert not is_separable(both, both, unequal, condition)
    assert np.linalg.norm(edit_matrix(both, blown, unequal), 2) > 1e5


@pytest.mark.parametrize(("cosine", "fits"), [(0.0, True), (0.9, True), (0.97, True), (0.985, False)])
def test_unequal_strengths_need_directions_that_are_apart(cosine: float, fits: bool) -> None:
    """cond(P) = sqrt((1 + c) / (1 - c)) up to 10, which bounds what an input can grow by."""
    p, strength = at_cosine(cosine, 20), torch.tensor([1.0, 0.5]).double()
    joint, _, condition = joint_detector(p, p, strength, None)
    assert condition == pytest.approx((1 + cosine) / (1 - cosine), rel=1e-6)
    assert is_separable(p, p, strength, condition) == fits
    if fits:
        assert np.linalg.norm(edit_matrix(p, joint, strength), 2) <= 10
        inverse = np.linalg.pinv(p.numpy().T)
        close(edit_matrix(p, joint, strength), p.numpy().T @ np.diag(strength.numpy()) @ inverse, 1e-10)


def detector(u: Array, inverse: Array) -> Array:
    """Q = Sigma^-1 U (U^T Sigma^-1 U)^-1, U and Q as columns."""
    return inverse @ u @ np.linalg.inv(u.T @ inverse @ u)


def test_concepts_that_share_their_covariance_equal_the_joint_estimate() -> None:
    """U = [U1 U2], Q = Sigma^-1 U (U^T Sigma^-1 U)^-1, from each concept's own detector."""
    x = random(200, H, seed=21).numpy() * np.linspace(0.5, 3, H)
    inverse, foreign = np.linalg.inv(np.cov(x.T)), np.linalg.inv(np.cov(x[:, ::-1].T))
    u1, u2 = random(1, H, seed=22).numpy().T, random(2, H, seed=23).numpy().T
    both = np.concatenate([u1, u2], axis=1)

    def joined(first: Array, second: Array) -> Array:
        own = np.concatenate([detector(u1, first), detector(u2, second)], axis=1)
        joint, _, _ = joint_detector(torch.from_numpy(both.T), torch.from_numpy(own.T), ones(3), None)
        return joint.numpy().T

    close(joined(inverse, inverse), detector(both, inverse), 1e-10)
    assert differ(joined(inverse, foreign), detector(both, inverse))


@pytest.mark.parametrize(("cosine", "fits"), [(0.0, True), (0.8, True), (0.83, False), (0.999, False)])
def test_whitened_concepts_must_be_apart_in_the_metric_of_ordinary_samples(cosine: float, fits: bool) -> None:
    """With a shared Sigma, U = L Z and Q = L^-T Z: cond(G) = (1 + c) / (1 - c) of the whitened cosine."""
    z = at_cosine(cosine, 24)
    lower = torch.linalg.cholesky(torch.diag(torch.linspace(0.1, 9, H).double()) + 0.05)
    u, q = z @ lower.T, z @ torch.linalg.inv(lower)
    _, _, condition = joint_detector(u, q, ones(2), None)
    assert condition == pytest.approx((1 + cosine) / (1 - cosine), rel=1e-6)
    assert is_separable(u, q, ones(2), condition) == fits


@cheap
@given(seeds, st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3))
def test_the_units_of_a_direction_do_not_count(seed: int, factors: list[float]) -> None:
    """(t U, Q / t) is the same edit: so are the joint edit, its condition and whether it is refused."""
    u, q = oblique(2, seed)
    p = unit(seed + 3)
    u, q, t = torch.cat([u, p]), torch.cat([q, p]), torch.tensor(factors).double()[:, None]
    strength = torch.tensor([1.0, 1.0, 0.5]).double()
    joint, _, condition = joint_detector(u, q, strength, None)
    scaled, _, same = joint_detector(t * u, q / t, strength, None)
    close(edit_matrix(t * u, scaled, strength), edit_matrix(u, joint, strength), 1e-9)
    assert same == pytest.approx(condition, rel=1e-3)
    raw = np.linalg.cond((q / t).numpy() @ (t * u).numpy().T)  # the plain condition does not know
    if max(factors) > 100 * min(factors) and abs(condition - 1) > 0.1:
        assert raw != pytest.approx(condition, rel=1e-3)


def test_a_plain_and_a_whitened_concept_combine_whatever_the_size_of_the_activations() -> None:
    """A unit direction beside one in the units of activations of size 1/30, 1 and 30."""
    (u, q), p = oblique(1, 25), unit(26)
    verdicts = []
    for size in (1 / 30, 1.0, 30.0):
        remove, detect = torch.cat([size * u, p]), torch.cat([q / size, p])
        joint, _, condition = joint_detector(remove, detect, ones(2), None)
        close(joint @ remove.T, np.eye(2), 1e-10)
        verdicts.append(is_separable(remove, detect, ones(2), condition))
    assert verdicts == [True, True, True]
    near = 30 * p + 0.01 * unit(27)  # nearly the plain direction, though longer
    remove, detect = torch.cat([near, p]), torch.cat([(q + unit(28)), p])
    detect[0] /= detect[0] @ near[0]
    *_, condition = joint_detector(remove, detect, ones(2), None)
    assert not is_separable(remove, detect, ones(2), condition)


def test_one_direction_alone_keeps_its_detector_and_level() -> None:
    u, q = oblique(1, 29)
    joint, level, condition = joint_detector(u, q, ones(1), 3 * ones(1))
    close(joint, q, 1e-12)
    assert level is not None
    close(level, 3 * np.ones(1), 1e-12)
    assert condition == 1.0
    assert is_separable(u, q, ones(1), condition)


def test_a_concept_does_to_its_own_directions_what_it_does_alone() -> None:
    """A detector that reads half of its direction goes on doing so beside another concept."""
    (u, q), v = oblique(2, 40), unit(43)
    both, own = torch.cat([u, v]), torch.cat([0.5 * q, v])
    joint, level, condition = joint_detector(both, own, ones(3), own @ random(H, seed=5), (0, 0, 1))
    close(joint @ both.T, np.diag([0.5, 0.5, 1.0]), 1e-10)
    assert level is not None
    close(level, joint @ random(H, seed=5), 1e-10)
    assert condition < 5
    without, _, _ = joint_detector(both, own, ones(3), None)
    close(without @ both.T, np.eye(3), 1e-10)  # control: there each direction goes whole
