"""Folding: the closed form equals steering the input, whatever the form of the edit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from refusal_core.errors import InputError
from refusal_core.fold import is_separable, joint_detector, lora_factors, project_out, shift_bias

O, H = 40, 64  # noqa: E741 - the paper's names


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(seed: int) -> Tensor:
    p = random(1, H, seed=seed)
    return p / p.norm()


def oblique(rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """U and Q [rank, H] with Q U^T = I, unlike one another."""
    u, q = random(rank, H, seed=seed), random(rank, H, seed=seed + 100)
    return u, torch.linalg.inv(q @ u.T) @ q


def test_the_fold_is_the_papers_formula() -> None:
    w, p, strength = random(O, H), random(H, seed=1), 0.7
    n, v = w.numpy(), p.numpy()
    wanted = n @ (np.eye(H) - strength * np.outer(v, v) / (v @ v))
    unit_p = (p / p.norm())[None]
    got = project_out(w, unit_p, unit_p, torch.tensor([strength], dtype=torch.float64))
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-13)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_fold_equals_steering_the_input(rank: int) -> None:
    w, x = random(O, H), random(10, H, seed=5)
    u, q = oblique(rank, 7)
    strength = torch.linspace(0.3, 1.0, rank).double()
    steered = x - ((x @ q.T) * strength) @ u
    torch.testing.assert_close(x @ project_out(w, u, q, strength).T, steered @ w.T, atol=1e-11, rtol=1e-11)
    assert not torch.allclose(x @ w.T, steered @ w.T)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_strength_zero_is_bit_identical(dtype: torch.dtype) -> None:
    w, (u, q) = random(O, H).to(dtype), oblique(2, 3)
    same = project_out(w, u, q, torch.zeros(2))
    assert torch.equal(same, w)
    assert same.data_ptr() != w.data_ptr()
    changed = project_out(w, u, q, torch.ones(2))
    assert changed.dtype == dtype
    assert not torch.equal(changed, w)


def test_at_strength_one_the_edit_is_idempotent_and_blind_to_the_direction() -> None:
    w, (u, q), one = random(O, H), oblique(3, 4), torch.ones(3).double()
    once = project_out(w, u, q, one)
    torch.testing.assert_close(project_out(once, u, q, one), once, atol=1e-11, rtol=1e-11)
    assert (once @ u.T).abs().max() < 1e-11
    half = project_out(w, u, q, one / 2)
    assert not torch.allclose(project_out(half, u, q, one / 2), half)


def test_the_weight_given_is_not_changed_and_the_change_has_rank_m() -> None:
    w, (u, q) = random(O, H), oblique(3, 5)
    before = w.clone()
    new = project_out(w, u, q, torch.ones(3).double())
    assert torch.equal(w, before)
    assert torch.linalg.matrix_rank(new - w) == 3


def test_lora_factors_equal_the_fold() -> None:
    w, (u, q), strength = random(O, H), oblique(2, 6), torch.tensor([0.4, 1.0]).double()
    a, b = lora_factors(w, u, q, strength)
    assert a.shape == (2, H) and b.shape == (O, 2)
    torch.testing.assert_close(w + b @ a, project_out(w, u, q, strength), atol=1e-12, rtol=1e-12)


def test_the_anchored_edit_leaves_the_ordinary_mean_alone() -> None:
    w, bias, mean, (u, q) = random(O, H), random(O, seed=8), random(H, seed=9), oblique(2, 10)
    strength = torch.ones(2).double()
    new, moved = project_out(w, u, q, strength), shift_bias(w, bias, u, strength, q @ mean)
    torch.testing.assert_close(new @ mean + moved, w @ mean + bias, atol=1e-11, rtol=1e-11)
    assert not torch.allclose(new @ mean + bias, w @ mean + bias)


def test_combining_is_order_free_and_each_direction_is_removed_once() -> None:
    u, q = oblique(2, 11)
    v, s = oblique(1, 12)
    strength = torch.tensor([1.0, 1.0, 0.5]).double()
    w = random(O, H)

    def fold(parts: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        remove, detect, lam = (torch.cat(x) for x in zip(*parts, strict=True))
        joint, _, _ = joint_detector(remove, detect, lam, None)
        torch.testing.assert_close(joint @ remove.T, torch.eye(3).double(), atol=1e-9, rtol=1e-9)
        return project_out(w, remove, joint, lam)

    a, b = (u, q, strength[:2]), (v, s, strength[2:])
    torch.testing.assert_close(fold([a, b]), fold([b, a]), atol=1e-9, rtol=1e-9)
    one_after_another = project_out(project_out(w, u, q, strength[:2]), v, s, strength[2:])
    assert not torch.allclose(fold([a, b]), one_after_another, atol=1e-6)


def test_equal_projectors_reduce_to_the_projector_on_their_span_even_when_nearly_parallel() -> None:
    p = unit(13)
    near = p + 1e-6 * unit(14)
    near = near / near.norm()
    both, one = torch.cat([p, near]), torch.ones(2).double()
    joint, _, condition = joint_detector(both, both, one, None)
    assert condition > 1e6
    assert is_separable(both, both, one, condition)
    basis = torch.linalg.qr(both.T)[0]
    far = torch.cat([p, unit(15)])
    joint_far, _, _ = joint_detector(far, far, one, None)
    q = torch.linalg.qr(far.T)[0]
    torch.testing.assert_close(far.T @ joint_far, q @ q.T, atol=1e-10, rtol=1e-10)
    assert (both.T @ joint).norm() < 2.1  # bounded: it removes the common direction
    assert basis.shape == (H, 2)


def test_unequal_strengths_on_nearly_one_direction_are_not_separable() -> None:
    p = unit(16)
    near = p + 1e-6 * unit(17)
    both = torch.cat([p, near / near.norm()])
    unequal = torch.tensor([1.0, 0.5]).double()
    *_, condition = joint_detector(both, both, unequal, None)
    assert not is_separable(both, both, unequal, condition)
    apart = torch.cat([p, unit(18)])
    *_, condition = joint_detector(apart, apart, unequal, None)
    assert is_separable(apart, apart, unequal, condition)


def test_concepts_that_share_their_covariance_equal_the_joint_estimate() -> None:
    """U = [U1 U2], Q = Sigma^-1 U (U^T Sigma^-1 U)^-1, from each concept's own detector."""
    x = random(200, H, seed=19).numpy()
    inverse = np.linalg.inv(np.cov(x.T))
    u1, u2 = random(1, H, seed=20).numpy().T, random(2, H, seed=21).numpy().T

    def detector(u: np.ndarray) -> np.ndarray:
        return inverse @ u @ np.linalg.inv(u.T @ inverse @ u)

    both = np.concatenate([u1, u2], axis=1)
    own = np.concatenate([detector(u1), detector(u2)], axis=1)
    joint, _, _ = joint_detector(torch.from_numpy(both.T), torch.from_numpy(own.T), torch.ones(3), None)
    np.testing.assert_allclose(joint.numpy().T, detector(both), atol=1e-9)


def test_shapes_that_do_not_fit_get_one_sentence() -> None:
    w, (u, q) = random(O, H), oblique(2, 22)
    with pytest.raises(InputError, match="The edit is made for 64 inputs, this layer has 63"):
        project_out(w[:, :63], u, q, torch.ones(2))
    with pytest.raises(InputError, match="directions U and Q of one shape"):
        project_out(w, u, q[:1], torch.ones(2))
