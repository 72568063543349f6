"""A comparison that comes from elsewhere, in a video's recipe or in a link, for the form. Runs no model."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from refusal_core.concepts import PromptPair
from refusal_core.errors import InputError, ModelError
from refusal_core.io.reading import shown
from refusal_core.io.video import load_recipe
from refusal_core.models.calling import check_prompts
from refusal_core.recipe import EditRequest, Recipe
from refusal_core.settings import SamplingSettings, recipe_knobs, show_layers
from refusal_core.workbench.pairs import parse_pasted
from refusal_core.workbench.remaking import as_told, read_video_recipe
from refusal_core.workbench.workbench import Workbench

VERSION = "1"  # of a link
MAX_LINK = 4000  # characters, which every browser and messenger takes
NAMES = ("link", "model", "preset", "pairs", "also", "prompt", "seed", *(k.name for k in recipe_knobs()))


@dataclass(frozen=True, slots=True)
class Received:
    """What the form shall show; ``left_out`` says what of it the form cannot hold."""

    request: EditRequest
    prompt: str
    seed: int
    left_out: tuple[str, ...] = ()


def open_recipe(workbench: Workbench, path: Path, model: str, preset: str | None) -> Received:
    """Read what made a video, for a form.

    Args:
        workbench: with the model.
        path: a video of ours, or its recipe.json.
        model: which the form has chosen.
        preset: which it has chosen: what is under pairs that are no preset's.

    Raises:
        FileError: the file cannot be read.
        InputError: it holds no recipe, that of another model, or one that this form cannot have.
    """
    told = read_video_recipe(load_recipe(path), path.name)
    try:
        as_told(told, workbench.ready(model).model)
    except ModelError as e:
        raise InputError(
            f"{path.name} was made with '{shown(told.model, 60)}', which is not the form's model or has other"
            " weights; load that under Model, then open the file again."
        ) from e
    first, names = told.edits[0], [known.concept.name for known in workbench.presets(model)]
    base = first.concept.name if first.concept.name in names else preset
    rows = [(pair.unsafe, pair.safe) for pair in first.concept.pairs]
    further = [(recipe.concept.name, recipe.edit.strength) for recipe in told.edits[1:]]
    request = workbench.request(base, model, rows, first.values(), further)
    differing = {
        "ordinary prompts of its own": request.recipe.concept.neutral != first.concept.neutral,
        "images of the pairs": request.recipe.concept.pairs != first.concept.pairs,
        "settings of the further concepts": request.further != told.edits[1:],
        "steps, size or image of the video": told.sampling != SamplingSettings(told.sampling.seed),
    }
    left_out = tuple(name for name, differs in differing.items() if differs)
    return Received(request, told.prompt, told.sampling.seed, left_out)


def link_of(workbench: Workbench, request: EditRequest, prompt: str, sampling: SamplingSettings) -> str:
    """Return the query of a link that opens a comparison: what differs from its preset, by value.

    Raises:
        InputError: it holds images, or is longer than a link can be.
    """
    recipe, base = request.recipe, workbench.request(request.preset, request.model).recipe
    if sampling.image or any(pair.unsafe_image or pair.safe_image for pair in recipe.concept.pairs):
        raise InputError("Images do not go into a link; send the video, which carries its recipe.")
    known, every = _texts(base), show_layers(tuple(range(workbench.facts(request.model).layer_count)))
    values = {name: text for name, text in _texts(recipe).items() if text != known[name]}
    if values.get("layers") == every and base.capture.layers is None:
        del values["layers"]
    query = {"link": VERSION, "model": request.model, "preset": request.preset or "", **values}
    if recipe.concept.pairs != base.concept.pairs:
        query["pairs"] = _table(recipe.concept.pairs)
    if request.further:
        query["also"] = ",".join(f"{r.concept.name}:{r.edit.strength!r}" for r in request.further)
    text = urlencode({**query, "prompt": prompt, "seed": sampling.seed})
    if len(text) > MAX_LINK:
        raise InputError("That is too long for a link; send the video, which carries its recipe.")
    return text


def _texts(recipe: Recipe) -> dict[str, str]:
    """Return the settings of a recipe as a knob reads them from text."""
    return {name: _text(name, value) for name, value in recipe.values().items()}


def _text(name: str, value: Any) -> str:
    if name in ("layers", "edit_layers"):
        return show_layers(value)
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _table(pairs: Sequence[PromptPair]) -> str:
    """Return pairs as ``parse_pasted`` reads them."""
    written = io.StringIO()
    rows = csv.writer(written, delimiter="\t", lineterminator="\n")
    rows.writerows((pair.unsafe, pair.safe) for pair in pairs)
    return written.getvalue()


def is_link(query: Mapping[str, str]) -> bool:
    """Return whether a page was asked for by a link of ours."""
    return "link" in query


def open_link(workbench: Workbench, query: Mapping[str, str]) -> Received:
    """Read a link, as strictly as what is typed.

    Raises:
        InputError: it is of another version, its model is not loaded, or something in it cannot be.
    """
    told = {name: text for name, text in query.items() if not name.startswith(("__", "utm_"))}
    if told.get("link") != VERSION or sum(map(len, told.values())) > MAX_LINK:
        raise InputError("This link is of another version of the app; ask for a new one.")
    if unknown := [name for name in told if name not in NAMES]:
        raise InputError(f"The link names '{shown(unknown[0], 40)}', which is no setting; ask for a new one.")
    model, seed, prompt = told.get("model"), told.get("seed", "0"), told.get("prompt", "")
    if not seed.isascii() or not seed.isdecimal():
        raise InputError(
            f"The link's seed is '{shown(seed, 20)}', which is no whole number; ask for a new one."
        )
    values = {name: text for name, text in told.items() if name not in NAMES[:7]}
    rows = [(row[0], row[1]) for row in parse_pasted(told["pairs"])] if "pairs" in told else None
    request = workbench.request(told.get("preset"), model, rows, values, _further(told.get("also", "")))
    check_prompts(workbench.ready(model).model, [prompt])
    return Received(request, prompt, SamplingSettings(int(seed)).seed)


def _further(text: str) -> list[tuple[str, float]]:
    found = []
    for piece in filter(None, text.split(",")):
        name, _, strength = piece.partition(":")
        try:
            found.append((name, float(strength)))
        except ValueError as e:
            raise InputError(f"'{shown(strength, 20)}' in the link is no strength; ask for a new one.") from e
    return found
