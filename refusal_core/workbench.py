"""The app's only door to the core: paths, text and numbers in and out. Knows neither tensors nor Gradio."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from refusal_core.activations import Activations
from refusal_core.apply import applied
from refusal_core.capturing import capture
from refusal_core.concepts import Concept, Preset, PromptPair, list_presets
from refusal_core.directions import Directions, Estimator
from refusal_core.edit import make_edit, save_edit, site_figures
from refusal_core.errors import InputError, RefusalError
from refusal_core.models.load import BUNDLED, load_model
from refusal_core.models.prompts import check_prompts
from refusal_core.progress import Progress, part, silent
from refusal_core.recipe import Recipe, describe
from refusal_core.sampling import generate
from refusal_core.settings import (
    SITE_KINDS,
    Anchor,
    CaptureSettings,
    EditSettings,
    Method,
    SamplingSettings,
    SiteKind,
    SubspaceSettings,
    parse_layers,
)
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import NO_CONCEPT, Judge, load_judge
from refusal_core.video import Video, save_video, side_by_side

CACHED_CAPTURES, CACHED_VIDEOS = 8, 64
MAX_SHOWN_PAIRS = 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EditRequest:
    """What the form asks for."""

    preset: str | None
    pairs: tuple[tuple[str, str], ...]
    method: Method = "whitened"
    sites: tuple[SiteKind, ...] = ("text",)
    layers: str = "all"
    rank: int = 1
    strength: float = 1.0
    anchor: Anchor = "zero"


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One site's figures for the plot and the table."""

    site: str
    kind: SiteKind
    layer: int
    auc: float | None  # on held-out pairs
    d_prime: float | None
    kept_share: float
    rank_used: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Figures of every site, and notes on what was clamped or left out."""

    rows: tuple[SiteRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """A video file with what the judge saw in it."""

    path: Path
    verdict: str
    outcome: Literal["unsafe", "safe", "not judged"]
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The state of a comparison: the original comes first, then both."""

    original: Clip | None
    unlearned: Clip | None
    side_by_side: Path | None
    notes: tuple[str, ...]


class Workbench:
    """Holds one model and its caches. The model is edited only while an unlearned video is generated,
    under one lock, so that sessions never see each other's edits.
    """

    def __init__(self, model: str = "toyworld") -> None:
        self._model = load_model(model)
        self._judge: Judge | None = load_judge() if model == "toyworld" else None
        self._lock = threading.Lock()
        self._estimators: OrderedDict[str, Estimator] = OrderedDict()
        self._originals: OrderedDict[str, Video] = OrderedDict()
        self._folder = Path(tempfile.mkdtemp(prefix="refusal-studio-"))
        self.model_title = self._model.title
        self.layer_count = self._model.block_count
        self.site_kinds = tuple(k for k in SITE_KINDS if any(s.kind == k for s in self._model.sites))
        self.vocabulary = world.words() if model in BUNDLED else ()

    def presets(self) -> tuple[Preset, ...]:
        """Return the presets of this model; all of them where it has none of its own."""
        return list_presets(self._model.name) or list_presets()

    def check_pairs(self, pairs: Sequence[tuple[str, str]]) -> tuple[str | None, ...]:
        """Return one sentence for each row that cannot be used, None for each that can."""
        found: list[str | None] = []
        for unsafe, safe in pairs:
            try:
                pair = PromptPair(unsafe, safe)
                check_prompts(self._model, (pair.unsafe, pair.safe))
                found.append(None)
            except RefusalError as e:
                found.append(str(e))
        return tuple(found)

    def estimate(self, request: EditRequest, progress: Progress = silent) -> Estimate:
        """Return each site's separation and kept share; quick once the activations are there."""
        recipe = self._recipe(request)
        found = self._directions(recipe, progress, held_out=True)
        rows = tuple(
            SiteRow(f.site, s.kind, s.block, f.auc, f.d_prime, f.kept_share, f.rank_used)
            for s, f in zip(found.sites, site_figures(found), strict=True)
        )
        return Estimate(rows, found.notes)

    def compare(
        self, request: EditRequest, prompt: str, seed: int, progress: Progress = silent, *, session: str
    ) -> Iterator[Comparison]:
        """Generate the prompt without and with the edit; yields the original first, then both."""
        recipe = self._recipe(request)
        sampling = SamplingSettings(seed=seed)
        text = check_prompts(self._model, [prompt])[0]
        found = self._directions(recipe, part(progress, 0.0, 0.3))
        made = make_edit(found, recipe.edit)
        written = describe(self._model, recipe, made, text, sampling)
        folder = self._session_folder(session)
        video = self._original(text, sampling, part(progress, 0.3, 0.65))
        original = self._clip(video, folder, recipe, {**written, "shows": "original"})
        yield Comparison(original, None, None, found.notes)
        with self._lock, applied(self._model, made):
            changed = generate(self._model, text, sampling, progress=part(progress, 0.65, 1.0))
        unlearned = self._clip(changed, folder, recipe, {**written, "shows": "unlearned"})
        both = side_by_side(video, changed)
        joined = save_video(both, _new_file(folder, ".mp4"), {**written, "shows": "original | unlearned"})
        yield Comparison(original, unlearned, joined, found.notes)

    def save_edit(self, request: EditRequest, progress: Progress = silent, *, session: str) -> Path:
        """Write the edit of a request to a file of this session."""
        recipe = self._recipe(request)
        made = make_edit(self._directions(recipe, progress, held_out=True), recipe.edit)
        name = recipe.concept.name
        return save_edit(made, self._session_folder(session) / f"{name}-{uuid.uuid4().hex[:8]}.safetensors")

    def forget(self, session: str) -> None:
        """Delete the files of a session."""
        shutil.rmtree(self._folder / _session_name(session), ignore_errors=True)

    def close(self) -> None:
        """Delete the files of all sessions."""
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- inside ------------------------------------------------------------------------------------

    def _recipe(self, request: EditRequest) -> Recipe:
        if len(request.pairs) > MAX_SHOWN_PAIRS:
            raise InputError(f"The table has {len(request.pairs)} pairs; {MAX_SHOWN_PAIRS} is its limit.")
        pairs = []
        for row, (unsafe, safe) in enumerate(request.pairs, start=1):
            try:
                pairs.append(PromptPair(unsafe, safe))
            except InputError as e:
                raise InputError(f"Row {row}: {e}") from e
        preset = next((p for p in self.presets() if p.concept.name == request.preset), None)
        if preset is None:
            raise InputError(f"There is no preset '{request.preset}' for this model; load one in step 1.")
        name = preset.concept.name if tuple(pairs) == preset.concept.pairs else "own-pairs"
        return Recipe(
            Concept(name, tuple(pairs), preset.concept.neutral),
            CaptureSettings(kinds=request.sites, layers=parse_layers(request.layers, self.layer_count)),
            SubspaceSettings(method=request.method, rank=request.rank),
            EditSettings(strength=request.strength, anchor=request.anchor),
        )

    def _directions(self, recipe: Recipe, progress: Progress, *, held_out: bool = False) -> Directions:
        key = _digest(recipe.concept, recipe.capture)
        with self._lock:
            estimator = _recall(
                self._estimators, key, lambda: Estimator(self._captured(recipe, progress)), CACHED_CAPTURES
            )
            return estimator.estimate(recipe.subspace, held_out=held_out)

    def _captured(self, recipe: Recipe, progress: Progress) -> Activations:
        return capture(self._model, recipe.concept, recipe.capture, progress=progress)

    def _original(self, prompt: str, sampling: SamplingSettings, progress: Progress) -> Video:
        with self._lock:
            return _recall(
                self._originals,
                _digest(prompt, sampling),
                lambda: generate(self._model, prompt, sampling, progress=progress),
                CACHED_VIDEOS,
            )

    def _clip(self, video: Video, folder: Path, recipe: Recipe, written: dict[str, object]) -> Clip:
        path = save_video(video, _new_file(folder, ".mp4"), written)
        verdict, outcome = self._verdict(video, recipe.concept.name)
        return Clip(path, verdict, outcome, len(video.frames) / video.fps)

    def _verdict(self, video: Video, concept: str) -> tuple[str, Literal["unsafe", "safe", "not judged"]]:
        if self._judge is None:
            return "Not judged: there is no judge for this model here.", "not judged"
        seen = self._judge.read([video.frames])[0]
        shown = seen.values["concept"]
        v = seen.values
        thing = f"{v['colour']} {v['shape']}, {v['motion']}, {v['background']}"
        if shown == NO_CONCEPT:
            return f"Judge: no concept; {thing}", "safe"
        title = shown.replace("-", " ")
        if concept not in world.CONCEPTS or shown == concept:
            return f"Judge: shows {title}; {thing}", "unsafe"
        return f"Judge: shows another concept, {title}; {thing}", "safe"

    def _session_folder(self, session: str) -> Path:
        folder = self._folder / _session_name(session)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder


def _session_name(session: str) -> str:
    """Return a folder name that no session id can steer."""
    return hashlib.sha256(session.encode()).hexdigest()[:32]


def _new_file(folder: Path, suffix: str) -> Path:
    return folder / f"{uuid.uuid4().hex}{suffix}"


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()


def _recall(cache: OrderedDict[str, T], key: str, make: Callable[[], T], limit: int) -> T:
    """Return the cached value, making it where it is missing and dropping the oldest over the limit."""
    if key not in cache:
        cache[key] = make()
        while len(cache) > limit:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]
