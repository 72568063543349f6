"""The methods that are compared: what each does to the model while its videos are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from refusal_core.apply import applied, replaced
from refusal_core.concepts import Concept, Preset
from refusal_core.edit import Edit
from refusal_core.errors import InputError, ModelError
from refusal_core.evaluate.methods.esd import esd_weights
from refusal_core.evaluate.methods.negative_prompt import negative_prompt
from refusal_core.evaluate.methods.safree import prepare_safree, safree
from refusal_core.evaluate.methods.uce import rece_weights, uce_weights
from refusal_core.models.model import Model
from refusal_core.progress import Progress
from refusal_core.recipe import (
    Recipe,
    added_words,
    build_together,
    method_recipe,
    paper_recipe,
    plain_recipe,
    preset_recipe,
)
from refusal_core.settings import METHODS, SamplingSettings

ORIGINAL = "original"
EDIT = "edit"  # what the keys of edits begin with
# Raised where a method's videos change: old readings are not its.
REVISIONS = {"negative-prompt": 2, "rece": 2, "esd": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Treatment:
    """What a method does: an edit, other weights, other sampling, or something around each batch."""

    edit: Edit | None = None
    weights: Mapping[str, Tensor] | None = None
    sampling: SamplingSettings = SamplingSettings()  # noqa: RUF009 - a frozen value
    batch: Callable[[Sequence[str]], AbstractContextManager[None]] | None = None

    def context(self, model: Model) -> AbstractContextManager[Any]:
        """Return the context in which the model is changed."""
        if self.edit is not None:
            return applied(model, self.edit)
        return replaced(model, self.weights) if self.weights is not None else nullcontext()

    def batch_context(self, prompts: Sequence[str]) -> AbstractContextManager[Any]:
        """Return the context of one batch of prompts."""
        return self.batch(prompts) if self.batch is not None else nullcontext()

    @property
    def is_in_weights(self) -> bool:
        """Whether it lies in the weights alone, where it cannot be left out; the original does as well."""
        return self.batch is None and self.sampling == SamplingSettings()

    @property
    def stored_bytes(self) -> int:
        """What has to be kept to use the method again."""
        tensors: list[Tensor] = list((self.weights or {}).values())
        for site in self.edit.sites.values() if self.edit else ():
            tensors += [t for t in (site.remove, site.detect, site.strength, site.level) if t is not None]
        return sum(t.numel() * t.element_size() for t in tensors)


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A treatment that is yet to be prepared: what it is known by, and how it is made."""

    key: str  # equal keys give equal videos
    recipe: Mapping[str, Any]  # plain data
    prepare: Callable[[Progress], Treatment]


def _whitened(preset: Preset, model: Model, rank: int) -> Recipe:
    base = preset_recipe(preset, model)
    return replace(base, subspace=replace(base.subspace, method="whitened", rank=rank))


def _anchored(preset: Preset, model: Model) -> Recipe:
    base = preset_recipe(preset, model)
    whitened = replace(base.subspace, method="whitened")
    return replace(base, subspace=whitened, edit=replace(base.edit, anchor="mean"))


def _negative_prompt(model: Model, concepts: Sequence[Concept], _progress: Progress) -> Treatment:
    return Treatment(sampling=negative_prompt(model, concepts))


def _safree(model: Model, concepts: Sequence[Concept], progress: Progress) -> Treatment:
    filter_ = prepare_safree(model, merged(concepts), progress)
    return Treatment(batch=lambda prompts: safree(filter_, prompts))


Weights = Callable[[Model, Concept, Progress], dict[str, Tensor]]


def _in_closed_form(
    weights: Weights, model: Model, concepts: Sequence[Concept], progress: Progress
) -> Treatment:
    return Treatment(weights=weights(model, merged(concepts), progress))


def _esd(model: Model, concepts: Sequence[Concept], progress: Progress) -> Treatment:
    if len(concepts) > 1:
        raise ModelError("ESD is fine-tuned for one concept; leave it out where several are erased at once.")
    return Treatment(weights=esd_weights(model, concepts[0], progress))


EDITS: dict[str, Callable[[Preset, Model], Recipe]] = {
    **{method: partial(method_recipe, method=method) for method in METHODS},
    "paper": paper_recipe,
    **{f"whitened-{rank}": partial(_whitened, rank=rank) for rank in (1, 2, 4)},
    "anchored": _anchored,
}
BASELINES: dict[str, Callable[[Model, Sequence[Concept], Progress], Treatment]] = {
    "negative-prompt": _negative_prompt,
    "safree": _safree,
    "uce": partial(_in_closed_form, uce_weights),
    "rece": partial(_in_closed_form, rece_weights),
    "esd": _esd,
}
DEFAULT_METHODS = (ORIGINAL, "placebo", "rv", "pca", "cpca", "whitened", "negative-prompt", "paper")
METHOD_NAMES = (*DEFAULT_METHODS, *(m for m in (*EDITS, *BASELINES) if m not in DEFAULT_METHODS))


def plan_method(model: Model, presets: Sequence[Preset], method: str) -> Planned:
    """Plan a method for the concept of a preset, or for those of several at once.

    Preparing it raises RankError where there is nothing of the concept at its sites, and ModelError where
    it does not work on this model or for several concepts.

    Raises:
        InputError: the method is not known, or a preset's layers do not exist.
    """
    if method not in METHOD_NAMES:
        raise InputError(f"Method '{method}' is not known; choose from {', '.join(METHOD_NAMES)}.")
    if method == ORIGINAL:
        return Planned(treatment_key(model, ORIGINAL, []), {}, lambda _progress: Treatment())
    if method in EDITS:
        return plan_edit(model, [EDITS[method](preset, model) for preset in presets])
    concepts = [p.concept for p in presets]
    revision = [REVISIONS[method]] if method in REVISIONS else []
    return Planned(
        treatment_key(model, method, [asdict(merged(concepts)), *revision]),
        {"method": method, "concepts": [c.name for c in concepts]},
        lambda progress: BASELINES[method](model, concepts, progress),
    )


def plan_edit(model: Model, recipes: Sequence[Recipe]) -> Planned:
    """Plan the edit of a recipe, or of several combined. Methods that come to one edit share its key."""

    def prepare(progress: Progress) -> Treatment:
        return Treatment(edit=build_together(model, recipes, progress=progress)[0])

    key = treatment_key(model, EDIT, [asdict(recipe) for recipe in recipes])
    return Planned(key, {"edits": [plain_recipe(recipe) for recipe in recipes]}, prepare)


def merged(concepts: Sequence[Concept]) -> Concept:
    """Return one concept with the pairs of all; of the neutral prompts, those that are neutral for each.

    Among the neutral prompts of one there are such that ask for another, in words that no pair has: they
    are missing from that one's own. Where the lists share nothing, all prompts without a pair's words stay.
    """
    if len(concepts) == 1:
        return concepts[0]
    pairs = tuple(pair for concept in concepts for pair in concept.pairs)
    everything = dict.fromkeys(prompt for c in concepts for prompt in c.neutral)
    shared = [prompt for prompt in everything if all(prompt in c.neutral for c in concepts)]
    words = {added_words(pair) for pair in pairs}
    neutral = shared or [p for p in everything if not any(w in p for w in words)]
    return Concept("+".join(c.name for c in concepts), pairs, tuple(neutral))


def treatment_key(model: Model, kind: str, parts: object) -> str:
    """Return a short hash of all that decides a treatment's videos but prompt and seed."""
    # The fingerprint is of the values, which two precisions may share: of a file in half precision they do.
    precision = [] if model.precision == "float32" else [model.precision]
    whole = json.dumps([asdict(model.fingerprint), asdict(model.defaults), parts, *precision], default=str)
    return f"{kind}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"
