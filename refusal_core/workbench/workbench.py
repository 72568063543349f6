"""The app's only door to the core: paths, text and numbers in and out. Knows neither tensors nor Gradio."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from refusal_core.concepts import Preset
from refusal_core.directions import Directions, Estimator
from refusal_core.edit import Edit, combine, make_edit, save_edit, site_figures, sound_note
from refusal_core.errors import InputError
from refusal_core.evaluate.judges.verdict import Outcome, Verdict
from refusal_core.evaluate.measures.metrics import likeness
from refusal_core.io.video import Video, save_video, side_by_side
from refusal_core.models.calling import check_prompts
from refusal_core.models.load import LoadSettings, Needs, bundled_models, describe_needs
from refusal_core.progress import Progress, each, part, silent
from refusal_core.recipe import EditRequest, Recipe, changed, own_name, preset_recipe
from refusal_core.sampling import size_note
from refusal_core.settings import SamplingSettings
from refusal_core.workbench.cached import CachedModel
from refusal_core.workbench.pairs import Row, note_pair, pairs_of
from refusal_core.workbench.remaking import describe
from refusal_core.workbench.values import (
    Comparison,
    Cosines,
    Estimate,
    JudgedVideo,
    ModelFacts,
    PairNote,
    SiteRow,
    SpectrumView,
)

MAX_CONCEPTS = 5
SESSION_AGE = 2 * 3600.0  # seconds
AS_PRESET: Mapping[str, object] = MappingProxyType({})


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
        self._guard, self._loading = threading.Lock(), threading.Lock()
        self._models: OrderedDict[str, CachedModel] = OrderedDict()
        self._shared: Path | None = None
        self.cached(model)

    def share_activations(self) -> None:
        """From now on pass activations through files: work runs in processes that end with it."""
        self._shared = Path(tempfile.mkdtemp(prefix="refusal-studio-activations-"))
        for cached in self._models.values():
            cached.shared = self._shared

    def model_names(self) -> tuple[str, ...]:
        """Return the models that can be chosen without typing."""
        return tuple(dict.fromkeys((self.default_model, *bundled_models())))

    def cached(self, name: str | None = None, progress: Progress = silent) -> CachedModel:
        """Return a loaded model, loading it where it is not; by default the first one.

        Raises:
            InputError: only bundled models may be used here.
            RefusalError: it cannot be loaded; the others stay as they are.
        """
        name = name or self.default_model
        self._check_allowed(name)
        if name in self._models:
            return self.ready(name)
        with self._loading:  # not under the guard: whoever has a model works on meanwhile
            if name not in self._models:
                loaded = CachedModel(name, LoadSettings(), progress)
                loaded.shared = self._shared
                with self._guard:
                    others = [held for held in self._models if held != self.default_model]
                    for oldest in others[: max(0, len(self._models) + 1 - self._kept)]:
                        del self._models[oldest]
                    self._models[name] = loaded
        return self.ready(name)

    def ready(self, name: str | None = None) -> CachedModel:
        """Return a model that is loaded; never loads one.

        Raises:
            InputError: it is not, or only bundled models may be used here.
        """
        name = name or self.default_model
        self._check_allowed(name)
        with self._guard:
            if name not in self._models:
                raise InputError(f"'{name[:60]}' is not loaded; press Load model first.")
            self._models.move_to_end(name)
            return self._models[name]

    def _check_allowed(self, name: str) -> None:
        if self.only_bundled and name not in self.model_names():
            raise InputError(f"Only the bundled models can be used here: {', '.join(self.model_names())}.")

    def needs(self, name: str) -> Needs:
        """Return what a model would take to load, before any weight is read.

        Raises:
            InputError: only bundled models may be used here.
            ModelError: it is missing, gated, or no supported pipeline.
        """
        self._check_allowed(name)
        return describe_needs(name)

    def facts(self, model: str | None = None) -> ModelFacts:
        """Return what a page has to know of a loaded model."""
        return self.ready(model).facts()

    def presets(self, model: str | None = None) -> tuple[Preset, ...]:
        """Return the presets for a model."""
        return self.ready(model).presets()

    def preset(self, name: object, model: str | None = None) -> Preset:
        """Return one of a model's presets; raises InputError where there is none of that name."""
        presets = {preset.concept.name: preset for preset in self.presets(model)}
        if not isinstance(name, str) or name not in presets:
            known = ", ".join(presets)
            raise InputError(
                f"There is no preset '{str(name or '')[:60]}' for this model; choose one of {known}."
            )
        return presets[name]

    def check_pairs(self, rows: Sequence[Row], model: str | None = None) -> tuple[PairNote, ...]:
        """Return what is to be said of each row: an error, a warning, and which words differ."""
        loaded = self.ready(model).model
        return tuple(note_pair(loaded, row[0], row[1]) for row in rows)

    def request(
        self,
        preset: str | None,
        model: str | None = None,
        rows: Sequence[Row] | None = None,
        values: Mapping[str, object] = AS_PRESET,
        further: Sequence[tuple[str, float]] = (),
    ) -> EditRequest:
        """Return a request for an edit, from what a form or a program names.

        Args:
            preset: the preset to start from: its pairs, ordinary prompts and settings.
            model: by default the first one.
            rows: pairs to take in place of the preset's.
            values: settings to change, by the names of their knobs.
            further: presets that are removed at the same time, each with its strength.

        Raises:
            InputError: a preset, a row or a setting is not usable; one sentence.
        """
        loaded, chosen = self.ready(model), self.preset(preset, model)
        first = changed(preset_recipe(chosen, loaded.model), values, loaded.model.block_count)
        if rows is not None and (pairs := pairs_of(rows)) != chosen.concept.pairs:
            # A preset of which half is left is still about its concept, and so is the judge.
            edited = 2 * len({*pairs} & {*chosen.concept.pairs}) >= len(chosen.concept.pairs)
            name = chosen.concept.name if edited else own_name(pairs)
            first = replace(first, concept=replace(chosen.concept, name=name, pairs=pairs))
        if len(further) >= MAX_CONCEPTS:
            raise InputError(f"{MAX_CONCEPTS} concepts at once are the limit; leave some out.")
        names = [first.concept.name]
        others = []
        for name, strength in further:
            other = self.preset(name, model)
            if other.concept.name in names:
                raise InputError(f"'{other.title}' is chosen twice; leave it out of the others.")
            names.append(other.concept.name)
            own = preset_recipe(other, loaded.model)
            capture = replace(first.capture, kinds=own.capture.kinds, layers=own.capture.layers)
            others.append(changed(replace(own, capture=capture), {"strength": strength}))
        return EditRequest(loaded.name, chosen.concept.name, first, tuple(others))

    def estimate(self, request: EditRequest, progress: Progress = silent) -> Estimate:
        """Return each site's separation and kept share; quick once the activations are there."""
        directions = self.cached(request.model).directions(request.recipe, progress, held_out=True)
        rows = tuple(
            SiteRow(f.site, s.kind, s.block, f.auc, f.d_prime, f.kept_share, f.rank_used)
            for s, f in zip(directions.sites, site_figures(directions), strict=True)
        )
        return Estimate(rows, directions.notes)

    def estimate_everywhere(self, request: EditRequest, progress: Progress = silent) -> Estimate:
        """Return the figures of every kind of site at every layer, whatever the request chooses."""
        everywhere = {"sites": self.facts(request.model).site_kinds, "layers": None}
        return self.estimate(replace(request, recipe=changed(request.recipe, everywhere)), progress)

    def save_edit(self, request: EditRequest, progress: Progress = silent, *, session: str) -> Path:
        """Write the edit of a request to a file of this session."""
        made, _ = self.make(request, progress, held_out=True)
        return save_edit(
            made, self.session_folder(session) / f"{name_of(made)}-{uuid.uuid4().hex[:8]}.safetensors"
        )

    def spectrum(
        self, request: EditRequest, site: str | None = None, progress: Progress | None = None
    ) -> SpectrumView | None:
        """Return the eigenvalues at a site, by default the first one chosen.

        Without a progress the model is never run: None where its activations are not there yet.
        """
        cached, recipe = self.cached(request.model), request.recipe
        ready = cached.ready_estimator(recipe) if progress is None else cached.estimator(recipe, progress)
        return None if ready is None else _view(ready, recipe, site)

    def cosines(self, request: EditRequest, progress: Progress = silent) -> Cosines:
        """Return how alike the directions of the request's concepts are."""
        every = self._every_directions(request, progress)
        names = tuple(recipe.concept.name for recipe, _ in every)
        return Cosines(names, tuple(tuple(_cosine(a, b) for _, b in every) for _, a in every))

    def make(
        self, request: EditRequest, progress: Progress = silent, *, held_out: bool = False
    ) -> tuple[Edit, tuple[str, ...]]:
        """Return the edit of a request, all its concepts in one, and notes on what was clamped."""
        every = self._every_directions(request, progress, held_out)
        edits = [make_edit(directions, recipe.edit) for recipe, directions in every]
        notes = dict.fromkeys(note for _, directions in every for note in directions.notes)
        made = edits[0] if len(edits) == 1 else combine(*edits)
        return made, (*notes, *sound_note(made))

    def _every_directions(
        self, request: EditRequest, progress: Progress, held_out: bool = False
    ) -> list[tuple[Recipe, Directions]]:
        """Return the recipe of each concept of a request with its directions."""
        cached, recipes = self.cached(request.model), (request.recipe, *request.further)
        return [(r, cached.directions(r, s, held_out=held_out)) for r, s in each(progress, recipes)]

    def compare(
        self,
        request: EditRequest,
        prompt: str,
        sampling: SamplingSettings,
        progress: Progress = silent,
        *,
        session: str,
    ) -> Iterator[Comparison]:
        """Generate the prompt without and with the edit; yields the original first, then both."""
        text = check_prompts(self.cached(request.model).model, [prompt])[0]
        made, notes = self.make(request, part(progress, 0.0, 0.3))
        folder = self.session_folder(session)

        def shown(video: Video, written: dict[str, object]) -> JudgedVideo:
            path = save_video(video, new_file(folder, ".mp4"), written)
            return self.judged(request, path, video, text, sampling.seed)

        pair = self.pair(request, made, text, sampling, part(progress, 0.3, 1.0))
        video, written = next(pair)
        original = shown(video, written)
        notes += size_note(self.cached(request.model).model, sampling, video)
        yield Comparison(original, None, None, notes)
        changed_video, written = next(pair)
        unlearned = shown(changed_video, written)
        joined = new_file(folder, ".mp4")
        save_video(side_by_side(video, changed_video), joined, {**written, "shows": "original | unlearned"})
        yield Comparison(original, unlearned, joined, notes, tuple(likeness(video, changed_video).items()))

    def pair(
        self, request: EditRequest, made: Edit, prompt: str, sampling: SamplingSettings, progress: Progress
    ) -> Iterator[tuple[Video, dict[str, object]]]:
        """Yield the original video of a prompt, then the unlearned one, each with what makes it again."""
        cached = self.cached(request.model)
        recipes = (request.recipe, *request.further)
        written = describe(cached.model, recipes, made, prompt, sampling)
        yield cached.original(prompt, sampling, part(progress, 0.0, 0.5)), {**written, "shows": "original"}
        changed_video = cached.unlearned(made, prompt, sampling, part(progress, 0.5, 1.0))
        yield changed_video, {**written, "shows": "unlearned"}

    def verdicts(self, request: EditRequest, video: Video) -> dict[str, Verdict]:
        """Return what the judge of a request's model sees of each of its concepts."""
        cached, recipes = self.cached(request.model), (request.recipe, *request.further)
        return {recipe.concept.name: cached.verdict(video, recipe.concept) for recipe in recipes}

    def judged(self, request: EditRequest, path: Path, video: Video, prompt: str, seed: int) -> JudgedVideo:
        """Return a video that lies at a path with what the judge sees of a request's concepts."""
        verdicts = self.verdicts(request, video)
        seconds, seen = len(video.frames) / video.fps, tuple((n, v.outcome) for n, v in verdicts.items())
        facts = prompt, seed, 1 / video.fps, seen, self.cached(request.model).is_toy
        return JudgedVideo(path, sentence(verdicts), overall(verdicts), seconds, *facts)

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
        for path in self._shared.glob("*") if self._shared else ():
            if time.time() - _last_written(path) > age:
                path.unlink(missing_ok=True)

    def forget(self, session: str) -> None:
        """Delete the files of a session."""
        shutil.rmtree(self.folder / session_name(session), ignore_errors=True)

    def close(self) -> None:
        """Delete the files of all sessions."""
        for folder in filter(None, (self.folder, self._shared)):
            shutil.rmtree(folder, ignore_errors=True)


def overall(verdicts: Mapping[str, Verdict]) -> Outcome:
    """Return the outcome of several concepts: unsafe where one is shown, safe only where each was judged."""
    outcomes = {verdict.outcome for verdict in verdicts.values()}
    return next((o for o in ("unsafe", "not judged") if o in outcomes), "safe")


def sentence(verdicts: Mapping[str, Verdict]) -> str:
    """Return verdicts in words: what is shown, and the attributes where the judge reads them."""
    verdict = next(iter(verdicts.values()))  # what is shown is the same for all
    v = verdict.values
    thing = f"; {v['colour']} {v['shape']}, {v['motion']}, {v['background']}" if v else ""
    return (
        f"Judge: {verdict.why}{thing}" if verdict.outcome != "not judged" else f"Not judged: {verdict.why}."
    )


def name_of(made: Edit) -> str:
    """Return a file's name for an edit: its concepts."""
    return "-".join(origin.concept for origin in made.origins)[:60]


def _view(estimator: Estimator, recipe: Recipe, site: str | None) -> SpectrumView:
    """Return the eigenvalues at a site, or at the first where there is none of that name."""
    chosen = next((s for s in estimator.seen.sites if s.name == site), next(iter(estimator.seen.sites)))
    spectrum = estimator.spectrum(chosen, recipe.subspace)
    if spectrum is None:
        return SpectrumView(chosen.name, (), (), 0, 0)
    used = min(recipe.subspace.rank, spectrum.available)
    return SpectrumView(chosen.name, spectrum.values, spectrum.shares, used, spectrum.available)


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
