"""The methods that are compared: what each does to the model while its videos are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from refusal_core.apply import applied, replaced
from refusal_core.baselines.esd import esd_weights
from refusal_core.baselines.negative_prompt import negative_prompt
from refusal_core.baselines.safree import prepare_safree, safree
from refusal_core.baselines.uce import rece_weights, uce_weights
from refusal_core.concepts import Preset
from refusal_core.edit import Edit
from refusal_core.errors import InputError
from refusal_core.models.model import Model
from refusal_core.progress import Progress, silent
from refusal_core.recipe import Recipe, build, method_recipe, paper_recipe, preset_recipe
from refusal_core.settings import METHODS, SamplingSettings

DEFAULT_METHODS = ("original", *METHODS, "negative-prompt", "paper")
RANKS = {"whitened-1": 1, "whitened-2": 2, "whitened-4": 4}
BASELINES = ("safree", "uce", "rece", "esd")
METHOD_NAMES = (*DEFAULT_METHODS, *RANKS, "anchored", *BASELINES)


@dataclass(frozen=True, slots=True, eq=False)
class Treatment:
    """What a method does: an edit, other weights, other sampling, or something around each batch."""

    key: str = "original"  # equal keys give equal videos
    edit: Edit | None = None
    weights: Mapping[str, Tensor] | None = None
    sampling: SamplingSettings = SamplingSettings()  # noqa: RUF009 - a frozen value
    batch: Callable[[Sequence[str]], AbstractContextManager[None]] | None = None

    def held(self, model: Model) -> AbstractContextManager[Any]:
        """Return the context in which the model is changed."""
        if self.edit is not None:
            return applied(model, self.edit)
        return replaced(model, self.weights) if self.weights is not None else nullcontext()

    def around(self, prompts: Sequence[str]) -> AbstractContextManager[Any]:
        """Return the context of one batch of prompts."""
        return self.batch(prompts) if self.batch is not None else nullcontext()


def treatment(model: Model, preset: Preset, method: str, progress: Progress = silent) -> Treatment:
    """Prepare a method for a preset's concept.

    Raises:
        InputError: the method is not known.
        RankError: there is nothing of the concept at the method's sites.
    """
    if method not in METHOD_NAMES:
        raise InputError(f"Method '{method}' is not known; choose from {', '.join(METHOD_NAMES)}.")
    if method == "original":
        return Treatment()
    prepared = _prepare(model, preset, method, progress)
    return replace(prepared, key=_key(model, preset, method))


def _prepare(model: Model, preset: Preset, method: str, progress: Progress) -> Treatment:
    concept = preset.concept
    if method == "negative-prompt":
        return Treatment(sampling=negative_prompt(concept))
    if method == "safree":
        filter_ = prepare_safree(model, concept, progress)
        return Treatment(batch=lambda prompts: safree(filter_, prompts))
    trained = {"uce": uce_weights, "rece": rece_weights, "esd": esd_weights}
    if method in trained:
        return Treatment(weights=trained[method](model, concept, progress))
    return Treatment(edit=build(model, _recipe(model, preset, method), progress=progress)[0])


def _recipe(model: Model, preset: Preset, method: str) -> Recipe:
    if method == "paper":
        return paper_recipe(preset, model)
    base = preset_recipe(preset, model)
    if method in RANKS:
        return replace(base, subspace=replace(base.subspace, method="whitened", rank=RANKS[method]))
    if method == "anchored":
        whitened = replace(base.subspace, method="whitened")
        return replace(base, subspace=whitened, edit=replace(base.edit, anchor="mean"))
    return method_recipe(preset, model, next(m for m in METHODS if m == method))


def _key(model: Model, preset: Preset, method: str) -> str:
    """Return a short hash of all that decides a method's videos but prompt and seed."""
    parts = [asdict(model.fingerprint), asdict(preset.concept), asdict(preset.recommended), method]
    return method + "-" + hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]
