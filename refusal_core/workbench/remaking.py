"""The recipe in a video: all that makes its frames again, written and read. Runs no model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from refusal_core.edit import Edit
from refusal_core.errors import FileError, InputError, ModelError
from refusal_core.io.images import MAX_BYTES
from refusal_core.io.reading import Plain, Prompt, read_ordinary, shown
from refusal_core.io.video import MAX_RECIPE, load_recipe
from refusal_core.models.families.family import Defaults
from refusal_core.models.load_settings import LoadSettings
from refusal_core.models.model import Fingerprint, Model
from refusal_core.recipe import Recipe
from refusal_core.settings import SamplingSettings

FORMAT, VERSION = "refusal-studio recipe", 2
ADDED = ("format", "version", "sites", "shows")  # to a ``VideoRecipe``, for who reads the file


@dataclass(frozen=True, slots=True)
class VideoRecipe:
    """All that decides the frames of a video. Of files it has the names alone, never their folders."""

    model: Plain  # as ``load_model`` takes it
    fingerprint: Fingerprint
    precision: Plain  # of the editable weights
    loading: LoadSettings
    defaults: Defaults
    edits: tuple[Recipe, ...]  # one a concept
    prompt: Prompt
    sampling: SamplingSettings
    images: dict[Plain, Plain]  # SHA-256 of each image that it names
    versions: dict[Plain, Plain]


def describe(
    model: Model, recipes: Sequence[Recipe], made: Edit, prompt: str, sampling: SamplingSettings
) -> dict[str, object]:
    """Return all that makes a video again, as plain data for JSON: ``read_video_recipe`` gives it back.

    Args:
        model: that makes the video.
        recipes: of each concept that is removed.
        made: the edit of all of them.
        prompt: what the video shows.
        sampling: how it is generated.

    Raises:
        FileError: an image that is named cannot be read.
        InputError: it is longer than a video carries.
    """
    settings = model.loading
    dtype = "saved" if settings.dtype == "saved" else str(settings.weights).removeprefix("torch.")
    images = [i for r in recipes for p in r.concept.pairs for i in (p.unsafe_image, p.safe_image)]
    whole = VideoRecipe(
        model.name,
        model.fingerprint,
        model.precision,
        replace(
            settings,
            dtype=dtype,  # type: ignore[arg-type]  # auto means another on another machine
            denoiser=_name(settings.denoiser),
            denoiser_2=_name(settings.denoiser_2),
            compiled=bool(settings.compiled),
            accept_guess=None,
        ),
        model.defaults,
        tuple(_moved(recipe, _name) for recipe in recipes),
        prompt,
        replace(sampling, image=_name(sampling.image)),
        {i.name: _hash(i) for i in (*images, sampling.image) if i is not None},
        made.origins[0].versions,
    )
    written = {"format": FORMAT, "version": VERSION, **_plain(whole), "sites": [s.name for s in made.sites]}
    if len(json.dumps(written)) > MAX_RECIPE - 100:  # what it shows is said beside it
        raise InputError("The ordinary prompts are too long to be kept in a video; give fewer of them.")
    return written


def _plain(whole: VideoRecipe) -> dict[str, Any]:
    without = {"loading": {"accept_guess", "cache"}}  # a function, and what changes no frame
    found: dict[str, Any] = TypeAdapter(VideoRecipe).dump_python(whole, mode="json", exclude=without)
    return found


def _name(path: Path | None) -> Path | None:
    """Return a file's name: its folder says where a person keeps their files."""
    return None if path is None else Path(path.name)


def _hash(path: Path) -> str:
    return hashlib.sha256(read_ordinary(path, MAX_BYTES)).hexdigest()


def _moved(recipe: Recipe, move: Any) -> Recipe:
    """Return a recipe with each image of its pairs given to ``move``."""
    pairs = tuple(
        replace(p, unsafe_image=move(p.unsafe_image), safe_image=move(p.safe_image))
        for p in recipe.concept.pairs
    )
    return replace(recipe, concept=replace(recipe.concept, pairs=pairs))


def read_video_recipe(plain: Mapping[str, object], name: str) -> VideoRecipe:
    """Return a recipe from what a file holds, trusting nothing in it.

    Args:
        plain: what ``load_recipe`` read.
        name: of the file, for sentences.

    Raises:
        InputError: no recipe, one of another version, or one that cannot be; one sentence.
    """
    if plain.get("format") != FORMAT:
        raise InputError(f"{name} holds no recipe; give a video that this program wrote, or its recipe.json.")
    if (version := plain.get("version")) != VERSION:
        why = "which leaves out what makes the video again" if version == 1 else "which is unknown here"
        raise InputError(
            f"{name} has a recipe of version {shown(str(version), 20)}, {why}; give one of {VERSION}."
        )
    told = {key: value for key, value in plain.items() if key not in ADDED}
    try:
        found = TypeAdapter(VideoRecipe).validate_json(json.dumps(told), strict=True)
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InputError(f"The recipe in {name} cannot be read at {place}: {first['msg'].lower()}.") from e
    if not _says(_plain(found), told):
        raise InputError(f"The recipe in {name} says more than this version knows; update this program.")
    if not found.edits:
        raise InputError(f"The recipe in {name} names no concept; make the video again.")
    if any(file.name != str(file) for file in _files(found)):
        raise InputError(f"The recipe in {name} names a folder where it may only name files; make it anew.")
    return found


def _says(whole: object, told: object) -> bool:
    """Return whether all that was told is in the whole; settings that came later are in it alone."""
    if isinstance(whole, dict) and isinstance(told, dict):
        return all(key in whole and _says(whole[key], value) for key, value in told.items())
    if isinstance(whole, list) and isinstance(told, list):
        return len(whole) == len(told) and all(map(_says, whole, told))
    return whole == told


def _files(told: VideoRecipe) -> Iterable[Path]:
    pairs = [pair for recipe in told.edits for pair in recipe.concept.pairs]
    named = [path for pair in pairs for path in (pair.unsafe_image, pair.safe_image)]
    named += [told.sampling.image, told.loading.denoiser, told.loading.denoiser_2]
    return (path for path in named if path is not None)


def load_video_recipe(path: Path, given: Mapping[str, Any]) -> VideoRecipe:
    """Read the recipe of a file, with the files it names where they lie here.

    Args:
        path: a video, or the recipe.json beside it.
        given: what a person says of this machine, by the names of ``LoadSettings`` and ``image``; what is
            not said is as in the recipe, and files are looked for beside it and in the working folder.

    Raises:
        FileError: it cannot be read, or a file that it names is not here, or is another.
        InputError: it is no recipe of this version.
    """
    path = Path(path)
    told = read_video_recipe(load_recipe(path), path.name)

    def find(file: Path | None, option: str = "") -> Any:
        if file is None:
            return None
        beside = next((place for place in (path.parent / file, file) if place.is_file()), None)
        here = given.get(option, beside)
        if here is None:
            how = f"give it by --{option.replace('_', '-')}" if option else f"put it beside {path.name}"
            raise FileError(f"The recipe in {path.name} names {file}, which is not here; {how}.")
        if file.name in told.images and _hash(here) != told.images[file.name]:
            raise FileError(f"{here.name} is another image than that of the recipe in {path.name}.")
        return here

    for option, file in (
        ("image", told.sampling.image),
        ("denoiser", told.loading.denoiser),
        ("denoiser_2", told.loading.denoiser_2),
    ):
        if file is None and option in given:
            raise InputError(f"The recipe in {path.name} has no {option}; leave that option out.")
    machine = {name: given[name] for name in ("device", "offload", "cache") if name in given}
    files = {name: find(getattr(told.loading, name), name) for name in ("denoiser", "denoiser_2")}
    return replace(
        told,
        loading=replace(told.loading, **machine, **files),
        edits=tuple(_moved(recipe, find) for recipe in told.edits),
        sampling=replace(told.sampling, image=find(told.sampling.image, "image")),
    )


def as_told(told: VideoRecipe, model: Model) -> Model:
    """Return a loaded model with the recipe's defaults.

    Raises:
        ModelError: it is another model than the recipe's, or has other weights or another precision.
    """
    mine, theirs = model.fingerprint, told.fingerprint
    if "sequential" in (told.loading.offload, model.loading.offload):  # weights that are away have no hash
        mine = replace(mine, weights=theirs.weights)
    if mine != theirs or model.precision != told.precision:
        raise ModelError(
            f"'{shown(model.name, 60)}' is not the model of the recipe, or has other weights;"
            " give the one that it was made with by --model."
        )
    return replace(model, defaults=told.defaults)


def other_versions(told: VideoRecipe, made: Edit) -> tuple[str, ...]:
    """Return a note where programs of other versions than here made the video; nothing where none did."""
    here = made.origins[0].versions
    other = [f"{n} {shown(v, 20)}, not {here.get(n)}" for n, v in told.versions.items() if here.get(n) != v]
    return (f"The video was made by {'; '.join(other)}: frames may differ.",) if other else ()
