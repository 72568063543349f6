"""A loaded model with what is kept of it: activations, originals, its judge."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from refusal_core.activations import Activations, load_activations, save_activations
from refusal_core.apply import applied
from refusal_core.capturing import capture
from refusal_core.concepts import Concept, Preset, list_presets
from refusal_core.directions import Directions, Estimator
from refusal_core.edit import Edit
from refusal_core.errors import FileError
from refusal_core.evaluate.judges.sources import open_judge
from refusal_core.evaluate.judges.toyworld import toyworld_aspect
from refusal_core.evaluate.judges.verdict import Verdict
from refusal_core.io.video import Video
from refusal_core.models.load import BUNDLED, LoadSettings, load_model, world_of
from refusal_core.models.model import Model
from refusal_core.progress import Progress, silent
from refusal_core.recipe import Recipe, concept_phrases
from refusal_core.sampling import generate
from refusal_core.settings import SITE_KINDS, SamplingSettings
from refusal_core.toyworld import world
from refusal_core.workbench.values import ModelFacts

CACHED_CAPTURES, CACHED_VIDEOS = 8, 64
T = TypeVar("T")


class CachedModel:
    """A loaded model and its caches. Caches are filled under one lock, so that work is done once."""

    def __init__(self, name: str, settings: LoadSettings | None = None, progress: Progress = silent) -> None:
        self.model: Model = load_model(name, settings, progress=progress)
        self.name = name
        self.is_toy = name in BUNDLED
        self.shared: Path | None = None  # where activations go and come from, too: other processes' as well
        self._judge = open_judge(world_of(name)) if self.is_toy else None
        self._lock = threading.Lock()
        self._estimators: OrderedDict[str, Estimator] = OrderedDict()
        self._originals: OrderedDict[str, Video] = OrderedDict()

    def presets(self) -> tuple[Preset, ...]:
        """Return the presets of this model; those for real models where it has none of its own."""
        return list_presets(self.name) or list_presets("toyworld" if self.is_toy else "any")

    def facts(self) -> ModelFacts:
        """Return what a page has to know of the model."""
        return ModelFacts(
            title=self.model.title,
            layer_count=self.model.block_count,
            site_kinds=tuple(k for k in SITE_KINDS if any(s.kind == k for s in self.model.sites)),
            site_names=tuple(site.name for site in self.model.sites),
            presets=self.presets(),
            vocabulary=world.words() if self.is_toy and world_of(self.name) == "toyworld" else (),
            takes_image=self.model.takes_image,
        )

    def estimator(self, recipe: Recipe, progress: Progress = silent) -> Estimator:
        """Return the estimator on the activations of a recipe; they are read where they are not yet there."""
        with self._lock:
            return recall(
                self._estimators,
                digest(recipe.concept, recipe.capture),
                lambda: self._from_file(recipe) or Estimator(self._captured(recipe, progress)),
                CACHED_CAPTURES,
            )

    def ready_estimator(self, recipe: Recipe) -> Estimator | None:
        """Return the estimator where its activations are there, None otherwise. Never runs the model."""
        key = digest(recipe.concept, recipe.capture)
        if key not in self._estimators and (found := self._from_file(recipe)) is not None:
            recall(self._estimators, key, lambda: found, CACHED_CAPTURES)
        return self._estimators.get(key)

    def _captured(self, recipe: Recipe, progress: Progress) -> Activations:
        seen = capture(self.model, recipe.concept, recipe.capture, progress=progress)
        if self.shared is not None:
            with suppress(FileError):  # a full disk: they are read again where they are needed again
                save_activations(seen, self._file(self.shared, recipe))
        return seen

    def _from_file(self, recipe: Recipe) -> Estimator | None:
        """Return the estimator on activations that another process has read, None where there are none."""
        if self.shared is None or not (path := self._file(self.shared, recipe)).is_file():
            return None
        with suppress(FileError):
            return Estimator(load_activations(path))
        return None

    def _file(self, folder: Path, recipe: Recipe) -> Path:
        return folder / f"{digest(self.model.fingerprint, recipe.concept, recipe.capture)}.safetensors"

    def directions(
        self, recipe: Recipe, progress: Progress = silent, *, held_out: bool = False
    ) -> Directions:
        """Return the directions of a recipe."""
        estimator = self.estimator(recipe, progress)
        with self._lock:
            return estimator.estimate(recipe.subspace, held_out=held_out)

    def original(self, prompt: str, sampling: SamplingSettings, progress: Progress = silent) -> Video:
        """Return the unedited model's video of a prompt, made once."""
        with self._lock:
            return recall(
                self._originals,
                digest(prompt, sampling),
                lambda: generate(self.model, prompt, sampling, progress=progress),
                CACHED_VIDEOS,
            )

    def unlearned(
        self, made: Edit, prompt: str, sampling: SamplingSettings, progress: Progress = silent
    ) -> Video:
        """Return the edited model's video; the model is as it was before and after."""
        with applied(self.model, made):
            return generate(self.model, prompt, sampling, progress=progress)

    def verdict(self, video: Video, concept: Concept) -> Verdict:
        """Return what the judge of this model sees; without one nothing is judged."""
        if self._judge is None:
            return Verdict("not judged", why="there is no judge for this model here")
        return self._judge([video], aspect_of(concept, self.name))[0]


def aspect_of(concept: Concept, model: str) -> str:
    """Return what the judge of a bundled model is asked for a concept."""
    return toyworld_aspect(world_of(model), concept.name, concept_phrases(concept))


def digest(*values: object) -> str:
    """Return a key of plain values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()


def recall(cache: OrderedDict[str, T], key: str, make: Callable[[], T], limit: int) -> T:
    """Return the cached value, making it where it is missing and dropping the oldest over the limit."""
    if key not in cache:
        cache[key] = make()
        while len(cache) > limit:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]
