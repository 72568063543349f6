"""SAFREE: filtering the text embeddings at inference (Yoon et al., 2024), written from its formulas.

Tokens that carry the concept are projected out of the concept's subspace and kept in the prompt's own.
Its re-attention in a U-Net's frequency domain belongs to its image version and is not done here.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from refusal_core.concepts import Concept
from refusal_core.errors import ModelError
from refusal_core.models.conditioning import check_conditioning, conditioned
from refusal_core.models.model import Model
from refusal_core.models.recording import first_call
from refusal_core.progress import Progress, silent
from refusal_core.recipe import concept_phrases

ALPHA, GAMMA = 0.01, 10.0  # its authors' settings; gamma counts denoising steps


@dataclass(frozen=True, slots=True)
class Safree:
    """What is needed to filter any prompt: the projector on the concept's subspace, P_C [H, H]."""

    model: Model
    concept: Tensor

    def filtered(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the prompts' embeddings with trigger tokens replaced, and the steps each stays filtered."""
        filtered = [self._filter(prompt) for prompt in prompts]
        return torch.stack([e for e, _ in filtered]), torch.tensor([t for _, t in filtered])

    def _filter(self, prompt: str) -> tuple[Tensor, float]:
        whole, length = _embed(self.model, [prompt])[0], _length(self.model, prompt)
        words = _read_words(self.model, prompt)
        masked = [" ".join(words[:i] + words[i + 1 :]) or prompt for i in range(len(words))]
        pooled = _pooled(self.model, masked)  # [n, H]: the prompt without one word each
        away = torch.linalg.vector_norm(pooled - pooled @ self.concept, dim=1)
        # Leaving a trigger out moves the prompt away from the concept more than others do.
        rest = (away.sum() - away) / max(1, len(away) - 1)
        trigger = away > (1 + ALPHA) * rest
        own = _projector(pooled)
        changed = whole.clone()
        for start, stop, is_trigger in _spans(self.model, words, trigger.tolist()):
            if is_trigger and stop <= length:
                rows = whole[start:stop]
                changed[start:stop] = (rows - rows @ self.concept) @ own
        cosine = torch.nn.functional.cosine_similarity(
            whole[:length].mean(0), changed[:length].mean(0), dim=0
        )
        return changed, GAMMA / (1 + math.exp(-(1 - float(cosine))))


def prepare_safree(model: Model, concept: Concept, progress: Progress = silent) -> Safree:
    """Build the concept's subspace from the phrases that the unsafe prompts add.

    Raises:
        ModelError: the text does not reach the denoiser as one tensor of embeddings, one a video.
    """
    check_conditioning(model, "SAFREE")
    progress(0.0, "Reading the concept's phrases")
    return Safree(model, _projector(_pooled(model, concept_phrases(concept))))


@contextmanager
def safree(filter_: Safree, prompts: Sequence[str]) -> Iterator[None]:
    """Filter these prompts in the conditional pass of the first steps, while the block runs."""
    with conditioned(filter_.model, *filter_.filtered(prompts)):
        yield


def _embed(model: Model, prompts: Sequence[str]) -> Tensor:
    """Return what the pipeline hands to its denoiser for these prompts, [B, T, H]."""
    rows = first_call(model, prompts)["encoder_hidden_states"].float()
    if len(rows) != len(prompts):
        raise ModelError(f"SAFREE filters one text a video; {model.family.title} has one for every frame.")
    return rows


def _length(model: Model, prompt: str) -> int:
    return len(model.tokenizer(prompt).input_ids)


def _read_words(model: Model, prompt: str) -> list[str]:
    """Return the words of a prompt up to the one at which the pipeline cuts it."""
    words, limit = prompt.split(), model.defaults.text_length
    whole = bisect_right(range(1, len(words) + 1), limit, key=lambda n: _length(model, " ".join(words[:n])))
    return words[: whole + 1]


def _pooled(model: Model, prompts: Sequence[str]) -> Tensor:
    rows = _embed(model, prompts)
    return torch.stack([r[: _length(model, p)].mean(0) for r, p in zip(rows, prompts, strict=True)])


def _projector(rows: Tensor) -> Tensor:
    """Return the projector on the span of rows [n, H]."""
    basis = torch.linalg.svd(rows.double(), full_matrices=False)
    kept = basis.Vh[basis.S > 1e-6 * basis.S[0]]
    return (kept.T @ kept).to(rows)


def _spans(model: Model, words: Sequence[str], flags: Sequence[bool]) -> Iterator[tuple[int, int, bool]]:
    """Yield the token span of each word: prefixes are tokenised, so that any tokenizer will do."""
    empty, first = model.tokenizer("").input_ids, model.tokenizer(words[0]).input_ids
    # A sign at the start of every prompt, as CLIP's tokenizer puts there, is no word's.
    start = next((i for i, (a, b) in enumerate(zip(empty, first, strict=False)) if a != b), len(empty))
    after = len(empty) - start
    for i, flag in enumerate(flags):
        stop = len(model.tokenizer(" ".join(words[: i + 1])).input_ids) - after
        yield start, stop, flag
        start = stop
