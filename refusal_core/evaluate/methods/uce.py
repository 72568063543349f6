"""UCE and RECE: closed-form edits of the key and value projections of cross-attention.

UCE: Gandikota et al., Unified Concept Editing (2024). RECE: Gong et al., Reliable and Efficient Concept
Erasure (2024), which finds the embedding that still brings the concept back, erases it too, and repeats.
Both are written from their formulas. UNets: spatial cross-attention only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from refusal_core.activations import Samples
from refusal_core.capturing import capture
from refusal_core.concepts import Concept
from refusal_core.errors import ModelError
from refusal_core.models.model import Model
from refusal_core.models.sites import Site
from refusal_core.models.slots import slot_of
from refusal_core.progress import Progress, silent
from refusal_core.settings import CaptureSettings

PRESERVE = 0.02  # eps, as a share of the preserved embeddings' mean variance
ROUNDS = 3  # of RECE, of the 2 to 5 its authors use


@dataclass(frozen=True, slots=True)
class _Texts:
    """Embeddings as rows: the concept's, what they are mapped to, and S of those to preserve."""

    concept: Tensor  # c [n, H]
    target: Tensor  # c* [n, H]
    preserve: Tensor  # S [H, H]


def uce_weights(model: Model, concept: Concept, progress: Progress = silent) -> dict[str, Tensor]:
    """Return W = (sum W0 c* c^T + W0 S)(sum c c^T + S)^-1 of each key and value projection.

    The embeddings are the tokens of the unsafe prompts, mapped to those of their safe twins;
    ``S = sum c_j c_j^T + eps I`` over the neutral prompts.
    """
    return {site.name: w for site, w in _uce(model, _texts(model, concept, progress)).items()}


def rece_weights(model: Model, concept: Concept, progress: Progress = silent) -> dict[str, Tensor]:
    """Return UCE's weights after also erasing, round by round, the embedding that brings the concept back.

    c' = (eps I + sum W^T W)^-1 (sum W^T W0) c, summed over all projections, for the mean embedding c
    of the concept.

    Raises:
        ModelError: what enters the projections is not the same text in every layer.
    """
    texts_of = _texts(model, concept, progress)
    if len({id(texts) for texts in texts_of.values()}) > 1:
        raise ModelError(f"RECE needs one text for all layers; in {model.family.title} each has its own.")
    originals = {site: _weight(model, site) for site in texts_of}
    mean = next(iter(texts_of.values())).concept.mean(0)  # before adversaries are put beside
    edited = _uce(model, texts_of)
    for _ in range(ROUNDS):
        back = _adversary(originals, edited, mean)
        texts_of = {site: _with(texts, back) for site, texts in texts_of.items()}
        edited = _uce(model, texts_of)
    return {site.name: w for site, w in edited.items()}


def _texts(model: Model, concept: Concept, progress: Progress) -> dict[Site, _Texts]:
    seen = capture(model, concept, CaptureSettings(kinds=("text",)), progress=progress)
    made: dict[int, _Texts] = {}
    return {site: made.setdefault(id(s), _prepare(s)) for site, s in seen.sites.items()}


def _prepare(samples: Samples) -> _Texts:
    neutral = samples.neutral.double()
    second = neutral.T @ neutral
    width = second.shape[0]
    second.diagonal().add_(PRESERVE * float(second.trace()) / width)
    return _Texts(samples.unsafe.double(), samples.safe.double(), second)


def _with(texts: _Texts, back: Tensor) -> _Texts:
    target = texts.target.mean(0, keepdim=True)
    return _Texts(torch.cat([texts.concept, back]), torch.cat([texts.target, target]), texts.preserve)


def _weight(model: Model, site: Site) -> Tensor:
    return slot_of(model.layers[site.name], site.name, "weight").get().double()


def _uce(model: Model, texts_of: Mapping[Site, _Texts]) -> dict[Site, Tensor]:
    maps: dict[int, Tensor] = {}
    edited = {}
    for site, texts in texts_of.items():
        if id(texts) not in maps:
            numerator = texts.target.T @ texts.concept + texts.preserve
            denominator = texts.concept.T @ texts.concept + texts.preserve
            maps[id(texts)] = torch.linalg.solve(denominator, numerator.T).T  # numerator denominator^-1
        weight = model.layers[site.name].weight
        edited[site] = (_weight(model, site) @ maps[id(texts)].to(weight.device)).to(weight.dtype)
    return edited


def _adversary(originals: Mapping[Site, Tensor], edited: Mapping[Site, Tensor], mean: Tensor) -> Tensor:
    width = next(iter(originals)).inputs
    left = torch.zeros(width, width, dtype=torch.float64)
    right = torch.zeros(width, width, dtype=torch.float64)
    for site, original in originals.items():
        new = edited[site].double().cpu()
        left += new.T @ new
        right += new.T @ original.cpu()
    left.diagonal().add_(1e-3 * float(left.trace()) / width)
    return torch.linalg.solve(left, right @ mean)[None]
