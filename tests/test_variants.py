"""Closed forms that hold something, switch, or do nothing, against full H x H algebra in numpy float64.

Each has its law, and a control that the law does not hold without it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import refusal_core as rc
from refusal_core.apply import applied
from refusal_core.concepts import Concept, PromptPair
from refusal_core.errors import InputError, RankError
from refusal_core.keeping import kept_concepts, target_concept
from refusal_core.models.model import Model
from refusal_core.settings import METHODS, WHITENED, Method
from refusal_core.subspace import whiten
from refusal_core.variants import placebo, retained, retained_space, switched

H = 48
Array = NDArray[np.float64]


def rows(count: int, seed: int, used: int = H) -> Array:
    """Rows with unlike spreads in ``used`` directions of their own, and a mean."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((H, H)))[0][:, :used]
    return (
        rng.standard_normal((count, used)) * np.geomspace(3, 0.05, used) + rng.standard_normal(used)
    ) @ turn.T


def tensor(x: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


def edit(u: Tensor, q: Tensor) -> Array:
    """I - U Q^T [H, H]."""
    return np.eye(H) - u.numpy().T @ q.numpy()


def close(a: object, b: object, atol: float = 1e-10) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=atol)


def constrained_by_hand(d: Array, x: Array, k: Array, rank: int, shrinkage: float) -> tuple[Array, Array]:
    """U and Q [H, rank] by full matrices: W = Sigma^-1/2 whitens, P projects beside W K."""
    sigma = np.cov(x.T) + shrinkage * np.trace(np.cov(x.T)) / H * np.eye(H)
    values, vectors = np.linalg.eigh(sigma)
    w = vectors @ np.diag(values**-0.5) @ vectors.T
    p = np.eye(H) - w @ k.T @ np.linalg.pinv(w @ k.T)
    second = w @ d.T @ d @ w / len(d)
    found, z = np.linalg.eigh(p @ second @ p)
    z = z[:, np.argsort(found)[::-1][:rank]]
    u = np.linalg.inv(w) @ second @ z @ np.linalg.inv(z.T @ second @ z)
    return u, w @ z


@pytest.mark.parametrize(("count", "ordinary"), [(30, 200), (6, 12)])  # full, and in the rows' own span
@pytest.mark.parametrize("rank", [1, 3])
def test_a_held_direction_passes_and_the_concept_does_not(count: int, ordinary: int, rank: int) -> None:
    d, x, k = rows(count, 1), rows(ordinary, 2), rows(2, 3)
    solved = whiten(tensor(d), tensor(x), shrinkage=0.05, held=tensor(k))
    u, q = solved.remove[:, :rank].T, solved.detect[:, :rank].T
    ours, (a, b) = edit(u, q), constrained_by_hand(d, x, k, rank, 0.05)
    close(ours, np.eye(H) - a @ b.T, 1e-7)
    close(ours @ k.T, k.T, 1e-9)  # P Sigma_xy = Sigma_xy
    close(q @ u.T, np.eye(rank), 1e-9)
    plain = whiten(tensor(d), tensor(x), shrinkage=0.05)
    assert np.abs(edit(plain.remove[:, :rank].T, plain.detect[:, :rank].T) @ k.T - k.T).max() > 1e-3
    assert 0 < float(solved.left[0]) < 1
    close(plain.left, 1, 1e-9)


def test_with_one_label_the_held_form_is_splince() -> None:
    """P Sigma_xz = 0 whatever is held: of equal differences nothing at all is left."""
    r, x, k = rows(1, 4), rows(200, 5), rows(2, 6)
    solved = whiten(tensor(np.repeat(r, 4, 0)), tensor(x), shrinkage=0.05, held=tensor(k))
    p = edit(solved.remove.T, solved.detect.T)
    close(p @ r.T, 0, 1e-9)
    close(p @ k.T, k.T, 1e-9)
    close(p @ p, p, 1e-9)


def test_a_held_concept_that_is_the_removed_one_is_refused() -> None:
    d, x = rows(6, 1), rows(200, 2)
    with pytest.raises(RankError, match="leaves nothing of the detector"):
        whiten(tensor(d), tensor(x), shrinkage=0.05, held=tensor(d))


def test_the_null_space_edit_is_nothing_on_the_retained_rows() -> None:
    ordinary, d = rows(60, 7, used=20), rows(10, 8)
    space = retained_space(tensor(ordinary), 1.0)
    assert len(space) == 20
    solved = whiten(tensor(d), tensor(ordinary), shrinkage=0.05, held=space)
    close(edit(solved.remove.T, solved.detect.T) @ ordinary.T, ordinary.T, 1e-9)
    plain = whiten(tensor(d), tensor(ordinary), shrinkage=0.05)
    assert np.abs(edit(plain.remove.T, plain.detect.T) @ ordinary.T - ordinary.T).max() > 0.01


@pytest.mark.parametrize("count", [20, 90])  # either Gram matrix
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_the_retained_space_holds_its_share_and_no_direction_more(count: int, share: float) -> None:
    x = rows(count, 9)
    _, sizes, v = np.linalg.svd(x, full_matrices=False)
    energy = np.cumsum(sizes**2) / (sizes**2).sum()
    wanted = int(np.searchsorted(energy, share)) + 1
    space = retained_space(tensor(x), share).numpy()
    close(space.T @ space, v[:wanted].T @ v[:wanted], 1e-9)
    assert len(retained_space(tensor(x), 0.0)) == 0


def test_retained_is_pures_factor() -> None:
    d, ordinary = rows(10, 10), rows(60, 11, used=20)
    space = retained_space(tensor(ordinary), 1.0)
    u, q, left = retained(tensor(d), space, 3)
    v = np.linalg.svd(d)[2][:3].T
    p_r = np.linalg.pinv(ordinary) @ ordinary
    close(edit(u, q), np.eye(H) - v @ v.T @ (np.eye(H) - p_r), 1e-9)
    close(edit(u, q) @ ordinary.T, ordinary.T, 1e-9)
    close(left, np.linalg.eigvalsh(v.T @ (np.eye(H) - p_r) @ v)[::-1], 1e-9)
    close(q @ u.T, np.diag(left.numpy()), 1e-9)
    assert np.abs(edit(u, u) @ ordinary.T - ordinary.T).max() > 0.01
    with pytest.raises(RankError, match="retain less"):
        retained(tensor(ordinary[:5]), space, 3)


def test_switch_writes_the_target_where_the_concept_was_read() -> None:
    d, x, t = rows(10, 12), rows(200, 13), rows(1, 14)[0]
    solved = whiten(tensor(d), tensor(x), shrinkage=0.05, held=tensor(t[None]))
    u, q, r = solved.remove[:, :3].T, solved.detect[:, :3].T, d.mean(0)
    both = edit(switched(u, q, tensor(r), tensor(t)), q)
    close(both @ r, edit(u, q) @ r + t, 1e-9)
    close(both @ t, t, 1e-9)  # what is the target already stays
    close(both @ both, both, 1e-8)
    assert np.abs(edit(u, q) @ r - both @ r).max() > 0.01


def test_a_placebo_has_every_norm_and_no_direction() -> None:
    d, x = rows(10, 15), rows(200, 16)
    solved = whiten(tensor(d), tensor(x), shrinkage=0.05)
    u, q = solved.remove[:, :3].T, solved.detect[:, :3].T
    v, w = placebo(u, q, 5)
    sizes = np.linalg.svd(np.eye(H) - edit(u, q))[1]
    close(np.linalg.svd(np.eye(H) - edit(v, w))[1], sizes, 1e-9)
    close(w @ v.T, q @ u.T, 1e-9)
    close(v.norm(dim=1), u.norm(dim=1), 1e-9)
    assert torch.equal(placebo(u, q, 5)[0], v) and not torch.allclose(placebo(u, q, 6)[0], v)
    cosines = torch.nn.functional.cosine_similarity(u, v)
    assert float(cosines.abs().max()) < 0.6
    assert not np.allclose(v, u)


# --- on a model ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(tiny: Model) -> rc.Activations:
    settings = rc.CaptureSettings(
        kinds=("text", "cross-attention"), layers=(1, 2), timesteps=2, keep="bleeding", target="bleeding"
    )
    concept = rc.load_concept("fire")
    return rc.capture(tiny, Concept(concept.name, concept.pairs, concept.neutral[:30]), settings)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_an_edit_that_is_undone_and_combined(
    method: Method, seen: rc.Activations, tiny: Model
) -> None:
    made = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method=method, rank=2)))
    before = {site.name: tiny.layers[site.name].weight.detach().clone() for site in made.sites}
    with applied(tiny, made):
        changed = [not torch.equal(tiny.layers[n].weight, w) for n, w in before.items()]
        edited = {n: tiny.layers[n].weight.detach().clone() for n in before}
    assert all(changed)
    assert all(torch.equal(tiny.layers[n].weight, w) for n, w in before.items())
    for site, change in made.sites.items():
        a, b = rc_lora(before[site.name], change)
        torch.testing.assert_close(before[site.name] + b @ a, edited[site.name], rtol=0, atol=1e-4)
    other = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="placebo")))
    rc.combine(made, other)


def rc_lora(weight: Tensor, change: object) -> tuple[Tensor, Tensor]:
    from refusal_core.fold import lora_factors

    return lora_factors(weight, *(getattr(change, name) for name in ("remove", "detect", "strength")))


def test_what_is_kept_by_name_passes_at_every_site(seen: rc.Activations, tmp_path) -> None:
    read = rc.load_activations(rc.save_activations(seen, tmp_path / "seen.safetensors"))
    for method in (*WHITENED[:3], "retained"):
        found = rc.estimate(read, rc.SubspaceSettings(method=method, rank=2))
        for site, d in found.sites.items():
            samples = read.sites[site]
            assert samples.kept is not None
            moved = d.detect.double() @ samples.kept.double().T
            assert float(moved.abs().max()) <= 1e-4 * float(
                (d.detect.double() @ samples.differences.double().T).abs().max()
            )
            assert 0 < d.left < 1
        assert any("leaves" in note for note in found.notes)


def test_the_target_is_asked_for_in_the_concepts_place() -> None:
    pair = PromptPair("a red circle on fire moving left", "a red circle moving left")
    made = target_concept(Concept("fire", (pair, pair)), "in steam")
    assert made.pairs[0] == PromptPair("a red circle in steam moving left", "a red circle moving left")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [("fire", "cannot be kept"), ("../fire", "no preset's name"), ("steam", "There is no preset 'steam'")],
)
def test_what_cannot_be_kept_is_one_sentence(names: str, sentence: str) -> None:
    assert [c.name for c in kept_concepts("bleeding, zorbo", rc.load_concept("fire"))] == [
        "bleeding",
        "zorbo",
    ]
    with pytest.raises(InputError, match=sentence):
        kept_concepts(names, rc.load_concept("fire"))
