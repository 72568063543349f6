"""Wan's rotary embedding as a product of matrices, for compiled blocks on a CPU.

diffusers writes the rotated numbers with a stride of two. torch's compiler turns that into code that takes
them one by one; in bfloat16 a quarter of a video's time went there. All else of the attention is diffusers'.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor, nn

Angles = tuple[Tensor, Tensor]  # cosines and sines [1, N, 1, D], each angle twice


class RotatingProcessor(WanAttnProcessor):
    """Rotates queries and keys itself, and leaves the rest to diffusers. Equal to it in every bit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._quarter = quarter_turn(width)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Angles | None = None,
    ) -> Tensor:
        """Return attention's output [B, N, H], as diffusers' processor does."""
        rotated = attn if rotary_emb is None else _Rotated(attn, rotary_emb, self._quarter)
        return super().__call__(rotated, hidden_states, encoder_hidden_states, attention_mask)


class _Rotated:
    """An attention layer whose queries and keys leave their norms rotated."""

    def __init__(self, attn: Any, angles: Angles, quarter: Tensor) -> None:
        self._attn, self._angles, self._quarter = attn, angles, quarter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attn, name)

    def norm_q(self, x: Tensor) -> Tensor:
        return rotate(self._attn.norm_q(x), self._angles, self._quarter)

    def norm_k(self, x: Tensor) -> Tensor:
        return rotate(self._attn.norm_k(x), self._angles, self._quarter)


def rotate(x: Tensor, angles: Angles, quarter: Tensor) -> Tensor:
    """Return x [B, N, heads D] with each pair of neighbours (a, b) turned: (a cos - b sin, a sin + b cos).

    The rotary embedding (Su et al., RoFormer, 2021), as Wan pairs its numbers.
    """
    cos, sin = angles
    each = x.unflatten(2, (-1, len(quarter)))
    turned = each @ quarter.to(each)  # exact: of each sum one term is not zero
    return (each * cos + turned * sin).to(x).flatten(2)


def quarter_turn(width: int) -> Tensor:
    """Return the matrix [D, D] that takes a row of pairs (a, b) to (-b, a)."""
    return torch.block_diag(*[torch.tensor([[0.0, 1.0], [-1.0, 0.0]])] * (width // 2))


def rotate_by_products(denoiser: nn.Module) -> None:
    """Let the attention of a Wan denoiser rotate so; what another processor computes stays as it is."""
    for module in denoiser.modules():
        old: Any = getattr(module, "processor", None)
        if type(old) is WanAttnProcessor:
            attn: Any = module
            new = RotatingProcessor(attn.inner_dim // attn.heads)
            vars(new).update(vars(old))  # a backend chosen before
            attn.set_processor(new)
