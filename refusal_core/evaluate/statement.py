"""What an edit stops for certain, and what of the concept still arrives by other ways.

At a site edited at strength 1 the layer sees x~ = x - U Q^T x, and Q^T U = I gives W~ (x + U c) = W~ x for
every c: whatever prompt, learned word, embedding or image made x, nothing passes this layer along U. That is
a law of one layer. How much of the concept goes round the edited layers is measured on the whole denoiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from refusal_core.apply import applied
from refusal_core.edit import Edit
from refusal_core.errors import InputError, ModelError
from refusal_core.models.calling import check_prompts
from refusal_core.models.gradients import predicted
from refusal_core.models.model import Model
from refusal_core.models.recording import Call, record, text_of
from refusal_core.progress import Progress, silent
from refusal_core.reading.video_side import short_clip
from refusal_core.settings import CaptureSettings

Guesses = list[Tensor]  # what the denoiser predicts at each step


@dataclass(frozen=True, slots=True)
class Passing:
    """How much of what lies along the removed directions passes an edited layer."""

    site: str
    width: int  # H
    directions: int  # m
    share: float  # |W~ U| / |W U|, computed as the model computes it: 1 - strength, but for rounding


@dataclass(frozen=True, slots=True)
class Arriving:
    """How much of the difference between two prompts still reaches what the denoiser predicts.

    ``share`` is |f~(x, u) - f~(x, s)| / |f(x, u) - f(x, s)| over all steps, the mean over the twins.
    """

    share: float
    least: float
    most: float
    twins: int
    steps: int


@dataclass(frozen=True, slots=True)
class Statement:
    """What can be said of an edit on a model."""

    sites: tuple[Passing, ...]
    concept: Arriving  # of the difference within pairs
    ordinary: Arriving  # of the difference between the safe sides of two pairs

    def lines(self) -> list[str]:
        """Return it in sentences that can be quoted, with what they do not say."""
        most = max(site.share for site in self.sites)
        c, o = self.concept, self.ordinary
        return [
            f"In each of {len(self.sites)} edited layers at most {most:.1e} of what lies along the removed"
            " directions passes, whatever prompt, learned word, embedding or image is given.",
            f"Through the whole denoiser {c.share:.0%} of what the concept changes still arrives"
            f" ({c.least:.0%} to {c.most:.0%}; {c.twins} pairs, {c.steps} steps, without guidance); of what"
            f" tells two ordinary prompts apart, {o.share:.0%} ({o.least:.0%} to {o.most:.0%}).",
            "This does not say that the concept cannot come back: it may lie along other directions, and what"
            " arrives may be enough to draw it. `attack` measures how cheaply it does, `evaluate` how often.",
        ]


def statement(
    model: Model, edit: Edit, pairs: Sequence[tuple[str, str]], *, progress: Progress = silent
) -> Statement:
    """Measure what an edit lets through, layer by layer and through the whole denoiser.

    Args:
        model: the model it was made for; it is unchanged afterwards.
        edit: any edit; at a strength below 1 its layers let the rest pass.
        pairs: unsafe and safe prompt; pairs that the edit was not made from say more.
        progress: told after each pair.

    Raises:
        InputError: fewer than two pairs, or the two sides of one give the model no difference.
        ModelError: the edit was made for another model, or the model has several denoisers.
    """
    if len(pairs) < 2:
        raise InputError("A statement needs at least 2 pairs; give more with --pairs.")
    if len(model.denoisers) > 1:
        raise ModelError("A statement reads one denoiser; this model has several.")
    unsafe, safe = (check_prompts(model, side) for side in zip(*pairs, strict=True))
    with model.lock, torch.inference_mode():
        sites = _passing(model, edit)
        others = [*zip(unsafe, [*safe[1:], safe[0]], strict=True)]
        concept, ordinary = _arriving(model, edit, safe, others, progress)
    return Statement(sites, concept, ordinary)


def _passing(model: Model, edit: Edit) -> tuple[Passing, ...]:
    rows: dict[str, Tensor] = {site.name: change.remove for site, change in edit.sites.items()}
    before = _along(model, rows)
    with applied(model, edit):
        after = _along(model, rows)
    return tuple(
        Passing(name, u.shape[1], len(u), float(after[name].norm() / before[name].norm()))
        for name, u in rows.items()
    )


def _along(model: Model, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return W U [m, O] of each layer, through its forward: quantised and offloaded ones have no plain W."""
    found = {}
    for name, u in rows.items():
        layer = model.layers[name]
        like = next(layer.parameters())
        dtype = like.dtype if like.dtype.is_floating_point and like.dtype.itemsize > 1 else torch.float32
        x = (u / u.norm(dim=1, keepdim=True)).to(like.device, dtype)
        found[name] = (layer(x) - layer(torch.zeros_like(x))).float().cpu()
    return found


def _arriving(
    model: Model,
    edit: Edit,
    prompts: Sequence[str],
    others: Sequence[tuple[str, ...]],
    progress: Progress,
) -> list[Arriving]:
    """Compare what the denoiser predicts for prompts and for others, on the noisy videos of the first.

    Returns:
        One for the first of each prompt's others, one for the second ...
    """
    shares, steps, clip = [], 0, short_clip(model, CaptureSettings())
    for number, (prompt, compared) in enumerate(zip(prompts, others, strict=True)):
        calls = record(model, [prompt], [number], clip, 0, None)
        texts = [{}, *(text_of(model, [other], None, clip) for other in compared)]
        sides = [[Call(c.denoiser, c.arguments | text) for c in calls] for text in texts]
        before = _differences(sides)
        if 0 in before:
            other = compared[before.index(0)]
            raise InputError(f"'{prompt}' and '{other}' make no difference to this model; give other pairs.")
        with applied(model, edit):
            after = _differences(sides)
        shares.append([(a / b) ** 0.5 for a, b in zip(after, before, strict=True)])
        steps = len(calls)
        progress((number + 1) / len(prompts), f"Comparing prompts, {number + 1} of {len(prompts)}")
    return [
        Arriving(sum(own) / len(own), min(own), max(own), len(own), steps)
        for own in zip(*shares, strict=True)
    ]


def _differences(sides: Sequence[Sequence[Call]]) -> list[float]:
    """Return |f(x, other) - f(x, first)|^2 over all steps of each side but the first."""
    first, *others = (_predictions(side) for side in sides)
    return [sum(float((a - b).square().sum()) for a, b in zip(first, other, strict=True)) for other in others]


def _predictions(calls: Sequence[Call]) -> Guesses:
    return [predicted(call.denoiser, call.arguments).float().cpu() for call in calls]
