"""The app's only door to the core: paths, text and numbers in and out. Knows neither tensors nor Gradio."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from refusal_core.apply import applied
from refusal_core.concepts import Concept, Preset, PromptPair
from refusal_core.directions import Directions, Estimator
from refusal_core.edit import Edit, combine, make_edit, save_edit, site_figures
from refusal_core.errors import InputError
from refusal_core.evaluate.judges.verdict import Verdict
from refusal_core.evaluate.measures.metrics import likeness
from refusal_core.io.video import Video, save_video, side_by_side
from refusal_core.models.calling import check_prompts
from refusal_core.models.load import LoadSettings, Needs, bundled_models, describe_needs
from refusal_core.progress import Progress, part, silent
from refusal_core.recipe import Recipe, changed, describe, preset_recipe
from refusal_core.sampling import generate
from refusal_core.settings import (
    CaptureSettings,
    EditSettings,
    SamplingSettings,
    SiteKind,
    SubspaceSettings,
    parse_layers,
)
from refusal_core.workbench.held import HeldModel, recall
from refusal_core.workbench.pairs import note_pair
from refusal_core.workbench.values import (
    Clip,
    Comparison,
    Cosines,
    EditRequest,
    Estimate,
    PairNote,
    SiteRow,
    SpectrumView,
)

MAX_SHOWN_PAIRS = 20
MAX_CONCEPTS = 5
SESSION_AGE = 2 * 3600.0  # seconds


class Workbench:
    """Holds models and their caches. A model is edited only while an unlearned video is generated, under
    its lock, so that sessions never see each other's edits.
    """

    def __init__(
        self,
        model: str = "toyworld",
        *,
        only_bundled: bool = False,
        kept_models: int = 2,
        folder: Path | None = None,
    ) -> None:
        """Load the first model.

        Args:
            model: its name, shown first.
            only_bundled: refuse all others, as in public.
            kept_models: at most so many are held at once; the one used longest ago goes first.
            folder: where the folder of the sessions' files is made; by default among temporary files.
        """
        self.default_model = model
        self.only_bundled = only_bundled
        self.folder = Path(tempfile.mkdtemp(prefix="sessions-" if folder else "refusal-studio-", dir=folder))
        self._kept = kept_models
        self._guard = threading.Lock()
        self._models: OrderedDict[str, HeldModel] = OrderedDict()
        self.held(model)

    def model_names(self) -> tuple[str, ...]:
        """Return the models that can be chosen without typing."""
        return tuple(dict.fromkeys((self.default_model, *bundled_models())))

    def held(self, name: str, progress: Progress = silent) -> HeldModel:
        """Return a loaded model, loading it where it is not.

        Raises:
            InputError: only bundled models may be used here.
            RefusalError: it cannot be loaded; the others stay as they are.
        """
        self._check_allowed(name)
        with self._guard:
            return recall(self._models, name, lambda: HeldModel(name, LoadSettings(), progress), self._kept)

    def _check_allowed(self, name: str) -> None:
        if self.only_bundled and name not in self.model_names():
            raise InputError(f"Only the bundled models can be used here: {', '.join(self.model_names())}.")

    def presets(self, model: str | None = None) -> tuple[Preset, ...]:
        """Return the presets for a model, the bundled one where none is named."""
        return self._held(model).presets()

    def title(self, model: str | None = None) -> str:
        """Return a model's title."""
        return self._held(model).model.title

    def layer_count(self, model: str | None = None) -> int:
        """Return how many layers a model has."""
        return self._held(model).model.block_count

    def site_kinds(self, model: str | None = None) -> tuple[SiteKind, ...]:
        """Return the kinds of sites that a model has."""
        return self._held(model).site_kinds

    def preset_recipe(self, preset: Preset, model: str | None = None) -> Recipe:
        """Return the recipe that a preset recommends for a model."""
        return preset_recipe(preset, self._held(model).model)

    def preset_request(self, preset: Preset, model: str) -> EditRequest:
        """Return what asks for a preset's own edit."""
        values: dict[str, Any] = self.preset_recipe(preset, model).values()
        values["layers"] = ",".join(map(str, values["layers"])) if values["layers"] else "all"
        fields = EditRequest.__dataclass_fields__
        pairs = tuple((p.unsafe, p.safe) for p in preset.concept.pairs)
        mine = {name: value for name, value in values.items() if name in fields}
        return EditRequest(preset=preset.concept.name, pairs=pairs, model=model, **mine)

    def site_names(self, model: str | None = None) -> tuple[str, ...]:
        """Return the names of a model's sites, in execution order."""
        return tuple(site.name for site in self._held(model).model.sites)

    def vocabulary(self, model: str | None = None) -> tuple[str, ...]:
        """Return every word that a bundled model knows; nothing for others."""
        return self._held(model).vocabulary

    def takes_image(self, model: str | None = None) -> bool:
        """Return whether a model's videos start from an image."""
        return self._held(model).model.takes_image

    def needs(self, name: str) -> Needs:
        """Return what a model would take to load, before any weight is read.

        Raises:
            InputError: only bundled models may be used here.
            ModelError: it is missing, gated, or no supported pipeline.
        """
        self._check_allowed(name)
        return describe_needs(name)

    def _held(self, model: str | None) -> HeldModel:
        return self.held(model or self.default_model)

    def check_pairs(self, pairs: Sequence[tuple[str, str]], model: str | None = None) -> tuple[PairNote, ...]:
        """Return what is to be said of each row: an error, a warning, and which words differ."""
        loaded = self._held(model).model
        return tuple(note_pair(loaded, unsafe, safe) for unsafe, safe in pairs)

    def estimate(self, request: EditRequest, progress: Progress = silent) -> Estimate:
        """Return each site's separation and kept share; quick once the activations are there."""
        found = self.held(request.model).directions(self.recipe(request), progress, held_out=True)
        rows = tuple(
            SiteRow(f.site, s.kind, s.block, f.auc, f.d_prime, f.kept_share, f.rank_used)
            for s, f in zip(found.sites, site_figures(found), strict=True)
        )
        return Estimate(rows, found.notes)

    def map(self, request: EditRequest, progress: Progress = silent) -> Estimate:
        """Return the figures of every kind of site at every layer, whatever the request chooses."""
        everywhere = replace(request, sites=self.site_kinds(request.model), layers="all")
        return self.estimate(everywhere, progress)

    def save_edit(self, request: EditRequest, progress: Progress = silent, *, session: str) -> Path:
        """Write the edit of a request to a file of this session."""
        made, _ = self.make(request, progress, held_out=True)
        name = "-".join(origin.concept for origin in made.origins)[:60]
        return save_edit(made, self.session_folder(session) / f"{name}-{uuid.uuid4().hex[:8]}.safetensors")

    def spectrum(self, request: EditRequest, site: str | None = None) -> SpectrumView | None:
        """Return the eigenvalues at a site, by default the first one chosen.

        The model is never run: None where its activations are not there yet.
        """
        recipe = self.recipe(request)
        estimator = self.held(request.model).ready_estimator(recipe)
        return None if estimator is None else self._view(estimator, recipe, site)

    def read_spectrum(
        self, request: EditRequest, site: str | None = None, progress: Progress = silent
    ) -> SpectrumView:
        """Return the eigenvalues at a site, reading the activations where they are not there yet."""
        recipe = self.recipe(request)
        return self._view(self.held(request.model).estimator(recipe, progress), recipe, site)

    def _view(self, estimator: Estimator, recipe: Recipe, site: str | None) -> SpectrumView:
        chosen = next((s for s in estimator.seen.sites if s.name == site), next(iter(estimator.seen.sites)))
        found = estimator.spectrum(chosen, recipe.subspace)
        if found is None:
            return SpectrumView(chosen.name, (), (), 0, 0)
        used = min(recipe.subspace.rank, found.available)
        return SpectrumView(chosen.name, found.values, found.shares, used, found.available)

    def cosines(self, request: EditRequest, progress: Progress = silent) -> Cosines:
        """Return how alike the directions of the request's concepts are."""
        held = self.held(request.model)
        recipes = self.recipes(request)
        found = [
            held.directions(r, part(progress, i / len(recipes), (i + 1) / len(recipes)))
            for i, r in enumerate(recipes)
        ]
        names = tuple(recipe.concept.name for recipe in recipes)
        return Cosines(names, tuple(tuple(_cosine(a, b) for b in found) for a in found))

    def make(
        self, request: EditRequest, progress: Progress = silent, *, held_out: bool = False
    ) -> tuple[Edit, tuple[str, ...]]:
        """Return the edit of a request, all its concepts in one, and notes on what was clamped."""
        held = self.held(request.model)
        recipes = self.recipes(request)
        edits, notes = [], []
        for i, recipe in enumerate(recipes):
            step = part(progress, i / len(recipes), (i + 1) / len(recipes))
            found = held.directions(recipe, step, held_out=held_out)
            edits.append(make_edit(found, recipe.edit))
            notes += found.notes
        return (edits[0] if len(edits) == 1 else combine(*edits)), tuple(dict.fromkeys(notes))

    def compare(
        self,
        request: EditRequest,
        prompt: str,
        seed: int,
        progress: Progress = silent,
        *,
        session: str,
        image: Path | None = None,
    ) -> Iterator[Comparison]:
        """Generate the prompt without and with the edit; yields the original first, then both."""
        held, recipe = self.held(request.model), self.recipe(request)
        sampling = SamplingSettings(seed=seed, image=image)
        text = check_prompts(held.model, [prompt])[0]
        made, notes = self.make(request, part(progress, 0.0, 0.3))
        written = describe(held.model, recipe, made, text, sampling)
        folder = self.session_folder(session)
        video = held.original(text, sampling, part(progress, 0.3, 0.65))
        original = self._clip(held, video, folder, recipe, {**written, "shows": "original"})
        yield Comparison(original, None, None, notes)
        changed = self.unlearned(held, made, text, sampling, part(progress, 0.65, 1.0))
        unlearned = self._clip(held, changed, folder, recipe, {**written, "shows": "unlearned"})
        both = side_by_side(video, changed)
        joined = save_video(both, new_file(folder, ".mp4"), {**written, "shows": "original | unlearned"})
        quality = tuple(likeness(video, changed).items())
        yield Comparison(original, unlearned, joined, notes, quality)

    def unlearned(
        self,
        held: HeldModel,
        made: Edit,
        prompt: str,
        sampling: SamplingSettings,
        progress: Progress = silent,
    ) -> Video:
        """Return the edited model's video; the model is as it was before and after."""
        with applied(held.model, made):
            return generate(held.model, prompt, sampling, progress=progress)

    def session_folder(self, session: str) -> Path:
        """Return the folder of a session's files, which no session id can steer elsewhere."""
        folder = self.folder / session_name(session)
        for made in (self.folder, folder):
            made.mkdir(mode=0o700, exist_ok=True)
        return folder

    def purge(self, age: float = SESSION_AGE) -> None:
        """Delete the files of sessions in whose folder nothing was written for so many seconds."""
        for folder in self.folder.glob("*"):
            if time.time() - _last_written(folder) > age:
                shutil.rmtree(folder, ignore_errors=True)

    def forget(self, session: str) -> None:
        """Delete the files of a session."""
        shutil.rmtree(self.folder / session_name(session), ignore_errors=True)

    def close(self) -> None:
        """Delete the files of all sessions."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def recipe(self, request: EditRequest) -> Recipe:
        """Return the recipe of the request's own pairs.

        Raises:
            InputError: a row, a layer or a setting is not usable; one sentence.
        """
        held = self.held(request.model)
        preset = self._preset(request.preset, held)
        pairs = _pairs(request)
        name = preset.concept.name if pairs == preset.concept.pairs else "own-pairs"
        layers = parse_layers(request.layers, held.model.block_count)
        return Recipe(
            Concept(name, pairs, preset.concept.neutral),
            CaptureSettings(
                kinds=request.sites,
                layers=layers,
                pool=request.pool,
                trajectory=request.trajectory,
                timesteps=request.timesteps,
            ),
            SubspaceSettings(
                method=request.method,
                rank=request.rank,
                alpha=request.alpha,
                relative=request.relative,
                center=request.center,
                shrinkage=request.shrinkage,
            ),
            EditSettings(strength=request.strength, anchor=request.anchor),
        )

    def recipes(self, request: EditRequest) -> list[Recipe]:
        """Return the recipe of the request's own pairs and those of the presets erased with them."""
        first = self.recipe(request)
        if len(request.also) >= MAX_CONCEPTS:
            raise InputError(f"{MAX_CONCEPTS} concepts at once are the limit; leave some out.")
        found, held = [first], self.held(request.model)
        for name, strength in request.also:
            preset = self._preset(name, held)
            if preset.concept.name in [r.concept.name for r in found]:
                raise InputError(f"'{preset.title}' is chosen twice; leave it out of the others.")
            more = changed(preset_recipe(preset, held.model), {"strength": strength})
            found.append(
                replace(
                    more, capture=replace(first.capture, kinds=more.capture.kinds, layers=more.capture.layers)
                )
            )
        return found

    def _preset(self, name: str | None, held: HeldModel) -> Preset:
        preset = next((p for p in held.presets() if p.concept.name == name), None)
        if preset is None:
            raise InputError(
                f"There is no preset '{(name or '')[:60]}' for this model; choose one in step 1."
            )
        return preset

    def _clip(
        self, held: HeldModel, video: Video, folder: Path, recipe: Recipe, written: dict[str, object]
    ) -> Clip:
        path = save_video(video, new_file(folder, ".mp4"), written)
        seen = held.verdict(video, recipe.concept.name)
        prompt, seed = str(written["prompt"]), int(written["sampling"]["seed"])  # type: ignore[index]
        return Clip(path, sentence(seen), seen.outcome, len(video.frames) / video.fps, prompt, seed)


def sentence(seen: Verdict) -> str:
    """Return a verdict in words: what is shown, and the attributes where the judge reads them."""
    v = seen.values
    thing = f"; {v['colour']} {v['shape']}, {v['motion']}, {v['background']}" if v else ""
    return f"Judge: {seen.why}{thing}" if seen.outcome != "not judged" else f"Not judged: {seen.why}."


def _pairs(request: EditRequest) -> tuple[PromptPair, ...]:
    if len(request.pairs) > MAX_SHOWN_PAIRS:
        raise InputError(f"The table has {len(request.pairs)} pairs; {MAX_SHOWN_PAIRS} is its limit.")
    pairs = []
    for row, (unsafe, safe) in enumerate(request.pairs, start=1):
        images = request.images[row - 1] if row <= len(request.images) else (None, None)
        try:
            pairs.append(PromptPair(unsafe, safe, *images))
        except InputError as e:
            raise InputError(f"Row {row}: {e}") from e
    return tuple(pairs)


def _cosine(a: Directions, b: Directions) -> float:
    """Return the mean over common sites of the largest |cosine| of the two subspaces."""
    common = [site for site in a.sites if site in b.sites]
    values = [a.sites[s].largest_cosine(b.sites[s]) for s in common]
    return sum(values) / len(values) if values else 0.0


def _last_written(folder: Path) -> float:
    """Return when anything in a folder was last written; a file that goes meanwhile does not count."""
    times = [0.0]
    for path in (folder, *folder.rglob("*")):
        try:
            times.append(path.stat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


def session_name(session: str) -> str:
    """Return a folder name that no session id can steer."""
    return hashlib.sha256(session.encode()).hexdigest()[:32]


def new_file(folder: Path, suffix: str) -> Path:
    """Return a path in a folder that no one can guess."""
    return folder / f"{uuid.uuid4().hex}{suffix}"
