"""Folding an edit into a linear layer, in closed form. Tensors in, tensors out.

Directions are rows: ``remove`` U [m, H] and ``detect`` Q [m, H]; ``strength`` D = diag(lambda) [m].
The paper's edit is m = 1 and U = Q = p / |p|; the whitened edit is oblique. Nothing H x H is built.
"""

from __future__ import annotations

import torch
from torch import Tensor

from refusal_core.errors import InputError

ORTHOGONAL_LIMIT = 100.0  # cond of the Gram matrix: cond(P) <= 10, squared
OBLIQUE_LIMIT = 10.0
BLOCK = 256 << 10  # bytes of a weight edited at a time on a CPU: what is worked on stays in the cache


def _working(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)


def project_out(weight: Tensor, remove: Tensor, detect: Tensor, strength: Tensor) -> Tensor:
    """Return W~ = W - (W U) D Q^T, a new tensor in the weight's dtype.

    With m = 1, U = Q = p/|p| this is the paper's W (I - lambda p p^T / |p|^2). Worked in float32 or
    better. Strength zero everywhere returns an exact copy.

    Args:
        weight: W [O, H].
        remove: directions taken out, U [m, H].
        detect: how much of each there is, Q [m, H].
        strength: lambda [m]; 0 leaves a direction, 1 removes it whole.
    """
    _check_shapes(weight, remove, detect, strength)
    if not strength.any():
        return weight.clone()
    on_cpu = weight.device.type == "cpu"
    rows = max(1, BLOCK // (weight.shape[1] * weight.element_size())) if on_cpu else len(weight)
    edited, dtype = torch.empty_like(weight), _working(weight)
    for old, new in zip(
        torch.split(weight, rows), torch.split(edited, rows), strict=True
    ):  # rows stand alone
        wide = new if new.dtype == dtype else torch.empty_like(new, dtype=dtype)
        a, b = lora_factors(wide.copy_(old), remove, detect, strength)
        wide.addmm_(b, a)
        if wide is not new:
            new.copy_(wide)
    return edited


def lora_factors(weight: Tensor, remove: Tensor, detect: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
    """Return the edit as an exact rank-m LoRA: A = Q^T [m, H] and B = -W U D [O, m], W~ = W + B A."""
    _check_shapes(weight, remove, detect, strength)
    dtype, device = _working(weight), weight.device
    u, d = remove.to(device, dtype), strength.to(device, dtype)
    b = weight.to(dtype) @ u.T
    return detect.to(device, dtype), b.mul_(-d)


def shift_bias(weight: Tensor, bias: Tensor, remove: Tensor, strength: Tensor, level: Tensor) -> Tensor:
    """Return b~ = b + W U D level: the bias of the anchored form x~ = x - U D (Q^T x - level).

    Strength zero everywhere returns an exact copy.

    Args:
        weight: the original W [O, H].
        bias: b [O].
        remove: U [m, H].
        strength: lambda [m].
        level: Q^T mu [m], the value each component is moved to.
    """
    _check_shapes(weight, remove, remove, strength)
    if bias.shape != weight.shape[:1] or level.shape != strength.shape:
        raise InputError("An anchored edit needs a bias [O] and a level for each of its m directions.")
    if not strength.any():
        return bias.clone()
    dtype, device = _working(weight), weight.device
    moved = remove.to(device, dtype).T @ (strength * level).to(device, dtype)
    return (bias.to(dtype) + weight.to(dtype) @ moved).to(bias.dtype)


def joint_detector(
    remove: Tensor,
    detect: Tensor,
    strength: Tensor,
    level: Tensor | None,
    concept: tuple[int, ...] | None = None,
) -> tuple[Tensor, Tensor | None, float]:
    """Return the detector that keeps several concepts apart: Q' = B G^-1 Q with G = Q U^T.

    B are the blocks of G within a concept, I where each detector reads its own directions whole. Then
    Q' U^T = B: each concept does to its own directions what it does alone, and nothing to another's, in any
    order. Orthogonal projectors of one strength reduce to the projector on the span of all directions, those
    under 2e-5 apart counting as one.

    Args:
        remove: U [m, H], the directions of all concepts.
        detect: Q [m, H], each concept's own detector.
        strength: lambda [m].
        level: own levels [m], or None.
        concept: of each row; None: B is I.

    Returns:
        Q' [m, H], the joint levels, and cond(B^-1 G), balanced: above its limit the edit must be refused
        (``is_separable``), as nearly equal directions blow up.
    """
    q, u = detect.double(), remove.double()
    gram = q @ u.T
    whole, own = None if level is None else level.double(), torch.eye(len(gram)).to(gram)
    if concept is not None and not _one_projector(q, u, strength):
        number = torch.tensor(concept)
        own = torch.where(number[:, None] == number, gram, 0.0)
        gram, q = torch.linalg.solve(own, gram), torch.linalg.solve(own, q)
        whole = None if whole is None else torch.linalg.solve(own, whole)
    condition = float(torch.linalg.cond(_balanced(gram))) if len(gram) > 1 else 1.0
    if _one_projector(q, u, strength):
        inverse = torch.linalg.pinv(gram, hermitian=True, rtol=1e-10)
    elif condition < 1e12:
        inverse = torch.linalg.inv(gram)
    else:
        inverse = torch.linalg.pinv(gram)
    inverse = own @ inverse
    return inverse @ q, None if whole is None else inverse @ whole, condition


def is_separable(remove: Tensor, detect: Tensor, strength: Tensor, condition: float) -> bool:
    """Return whether several directions may be removed together without blowing up."""
    u, q = remove.double(), detect.double()
    if _one_projector(q, u, strength):
        return True
    return condition <= (ORTHOGONAL_LIMIT if _is_orthogonal(q, u) else OBLIQUE_LIMIT)


def _balanced(gram: Tensor) -> Tensor:
    """Return the Gram matrix with its directions scaled so that rows and columns weigh the same.

    An edit is the same for (U, Q) and (t U, Q / t), its condition must be too: unscaled, a direction of
    unit length beside a whitened one in the units of its site looks like one direction. A symmetric
    matrix, as of concepts that share Sigma, stays as it is.
    """
    for _ in range(20):  # two directions are balanced after the first round
        off = (gram - gram.diagonal().diag()).square()
        rows, columns = off.sum(1), off.sum(0)
        scale = torch.where((rows > 0) & (columns > 0), columns / rows, 1.0) ** 0.125
        gram = scale[:, None] * gram / scale
    return gram


def _is_orthogonal(detect: Tensor, remove: Tensor) -> bool:
    return torch.allclose(detect, remove, rtol=1e-5, atol=1e-7 * float(remove.abs().max()))


def _one_projector(detect: Tensor, remove: Tensor, strength: Tensor) -> bool:
    return _is_orthogonal(detect, remove) and bool((strength == strength[0]).all())


def _check_shapes(weight: Tensor, remove: Tensor, detect: Tensor, strength: Tensor) -> None:
    if weight.ndim != 2 or remove.ndim != 2 or remove.shape != detect.shape:
        raise InputError("An edit needs a weight [O, H] and directions U and Q of one shape [m, H].")
    if remove.shape[1] != weight.shape[1] or strength.shape != remove.shape[:1]:
        raise InputError(
            f"The edit is made for {remove.shape[1]} inputs, this layer has {weight.shape[1]};"
            " use it on the model it was made for."
        )
