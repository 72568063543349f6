"""From a preset or a form to an edit, in one plain value. Knows no files and no screens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import SequenceMatcher

from pydantic import TypeAdapter, ValidationError

from refusal_core.capturing import capture
from refusal_core.concepts import Concept, Preset, PromptPair, neutral_prompts
from refusal_core.directions import Directions, Estimator
from refusal_core.edit import Edit, combine, make_edit, sound_note
from refusal_core.errors import InputError
from refusal_core.models.model import Model
from refusal_core.progress import Progress, each, silent
from refusal_core.settings import (
    MOST_ROWS,
    CaptureSettings,
    EditSettings,
    Method,
    SubspaceSettings,
    check_layers,
    recipe_knobs,
    values_of,
    with_values,
)

COMPARED = 400  # words of a prompt: comparing takes their cube in time
PAPER_BLOCKS, PAPER_LAYERS, PAPER_RANK = 28, (17, 18), 100  # STDiT, counted from 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides an edit, but the model."""

    concept: Concept
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    subspace: SubspaceSettings = field(default_factory=SubspaceSettings)
    edit: EditSettings = field(default_factory=EditSettings)

    def values(self) -> dict[str, object]:
        """Return every setting by its knob's name, as ``changed`` takes them."""
        return values_of(self.capture, self.subspace, self.edit)


@dataclass(frozen=True, slots=True)
class EditRequest:
    """An edit that is asked for, whoever asks: the app, the command line, a program, a parent process."""

    model: str  # as ``load_model`` takes it
    preset: str | None  # from which the recipe was made
    recipe: Recipe
    further: tuple[Recipe, ...] = ()  # of concepts that are removed at the same time


def changed(recipe: Recipe, values: Mapping[str, object], layer_count: int | None = None) -> Recipe:
    """Return a recipe with some settings changed, such as ``{"rank": 4, "sites": "text,feed-forward"}``.

    Args:
        recipe: to start from.
        values: by the names of ``settings.recipe_knobs()``, as values, as text or as JSON has them.
        layer_count: layers of the model, where it is known.

    Raises:
        InputError: a name is not known, or a value cannot be; one sentence.
    """
    known = [knob.name for knob in recipe_knobs()]
    if unknown := [name for name in values if name not in known]:
        raise InputError(f"'{unknown[0][:40]}' is no setting; choose one of {', '.join(known)}.")
    made = replace(
        recipe,
        capture=with_values(recipe.capture, values),
        subspace=with_values(recipe.subspace, values),
        edit=with_values(recipe.edit, values),
    )
    neutral_prompts(made.concept, made.capture.neutral, made.capture.neutral_count)
    if layer_count is not None:
        for layers in (made.capture.layers, made.edit.layers):
            check_layers(layers, layer_count)
    return made


def plain_request(request: EditRequest) -> dict[str, object]:
    """Return a request as plain data for JSON, whole: ``read_request`` gives it back."""
    plain: dict[str, object] = TypeAdapter(EditRequest).dump_python(request, mode="json")
    return plain


def read_request(plain: object) -> EditRequest:
    """Return a request from plain data, for example in another process.

    Raises:
        InputError: it is no request, or something in it cannot be; one sentence.
    """
    try:
        return TypeAdapter(EditRequest).validate_json(json.dumps(plain), strict=True)
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InputError(f"The request cannot be read at {place}: {first['msg'].lower()}.") from e


def preset_recipe(preset: Preset, model: Model) -> Recipe:
    """Return a preset's recommended recipe for a model.

    Where the preset says nothing of this model, two things are added to what it says of others: where the
    model has none of its kinds of sites, they are the family's default, and where it makes sound, too, what
    is edited of the picture's text is edited of the sound's. Raises InputError on layers the model does not
    have.
    """
    chosen = preset.recommended_for(model.name)
    recipe = changed(Recipe(preset.concept), chosen, model.block_count)
    if model.name in preset.by_model:
        return recipe
    kinds = recipe.capture.kinds
    if not any(site.kind in kinds for site in model.sites):
        return changed(recipe, {"sites": model.family.default_kinds})
    if model.family.makes_sound and "text" in kinds and "sound-text" not in kinds:
        return changed(recipe, {"sites": (*kinds, "sound-text")})
    return recipe


def method_recipe(preset: Preset, model: Model, method: Method) -> Recipe:
    """Return the preset's sites and strength with another method.

    PCA and cPCA take the paper's rank (100, clamped to what the samples hold) and move the component
    to zero, as the paper does; all others take the preset's rank and anchor, switch the safe mean.
    """
    base = preset_recipe(preset, model)
    if method not in ("rv", "pca", "cpca"):
        return changed(base, {"method": method} | ({"anchor": "mean"} if method == "switch" else {}))
    return Recipe(
        base.concept,
        base.capture,
        SubspaceSettings(method=method, rank=PAPER_RANK),
        EditSettings(strength=base.edit.strength),
    )


def paper_recipe(preset: Preset, model: Model) -> Recipe:
    """Return the paper's own settings: cross-attention and feed-forward at layers 17-18 of 28 (scaled to
    the model's depth), centred cPCA with raw covariances, k = 100, lambda = 1, one row a frame.
    """
    layers = tuple(sorted({(n - 1) * model.block_count // PAPER_BLOCKS for n in PAPER_LAYERS}))
    return Recipe(
        preset.concept,
        CaptureSettings(
            kinds=("cross-attention", "feed-forward"),
            layers=layers,
            pool="frame",
            frames=model.defaults.frames,  # of a short clip, rows by frame give other directions
            pair_rows=MOST_ROWS,
            neutral_rows=MOST_ROWS,
        ),
        SubspaceSettings(method="cpca", rank=PAPER_RANK, relative=False),
        EditSettings(),
    )


def build(
    model: Model, recipe: Recipe, *, held_out: bool = False, progress: Progress = silent
) -> tuple[Edit, Directions]:
    """Capture, estimate and make the edit of a recipe.

    Raises:
        RefusalError: whatever ``capture``, ``Estimator.estimate`` and ``make_edit`` raise.
    """
    seen = capture(model, recipe.concept, recipe.capture, progress=progress)
    found = Estimator(seen).estimate(recipe.subspace, held_out=held_out)
    return make_edit(found, recipe.edit), found


def build_together(
    model: Model, recipes: Sequence[Recipe], *, progress: Progress = silent
) -> tuple[Edit, tuple[str, ...]]:
    """Make one edit of several concepts, with notes on what was clamped. Raises as ``build``, ``combine``."""
    built = [build(model, recipe, progress=step) for recipe, step in each(progress, recipes)]
    notes = dict.fromkeys(note for _, directions in built for note in directions.notes)
    edits = [made for made, _ in built]
    made = edits[0] if len(edits) == 1 else combine(*edits)
    return made, (*notes, *sound_note(made))


def concept_phrases(concept: Concept) -> list[str]:
    """Return what the pairs' unsafe prompts add, each phrase once: all that the edits know of the concept."""
    return list(dict.fromkeys(added_words(pair) for pair in concept.pairs))


def added_words(pair: PromptPair) -> str:
    """Return the words that a pair's unsafe prompt has and its safe one has not."""
    unsafe, safe = pair.unsafe.split()[:COMPARED], pair.safe.split()[:COMPARED]
    matches = SequenceMatcher(None, safe, unsafe, autojunk=False).get_opcodes()
    words = [w for tag, _, _, u0, u1 in matches if tag != "equal" for w in unsafe[u0:u1]]
    return " ".join(words) or pair.unsafe


def own_name(pairs: Sequence[PromptPair]) -> str:
    """Return a name for pairs of one's own: the one phrase that all of them add, or ``own-pairs``."""
    phrases = {added_words(pair) for pair in pairs}
    phrase = phrases.pop().lower() if len(phrases) == 1 else ""
    return re.sub(r"[^a-z0-9]+", "-", phrase)[:40].strip("-") or "own-pairs"


def plain_recipe(recipe: Recipe) -> dict[str, object]:
    """Return a recipe as plain data for JSON; of the neutral prompts only their number."""
    return {
        "concept": recipe.concept.name,
        "pairs": [_plain_pair(pair) for pair in recipe.concept.pairs],
        "neutral_prompts": len(
            neutral_prompts(recipe.concept, recipe.capture.neutral, recipe.capture.neutral_count)
        ),
        "capture": asdict(recipe.capture),
        "subspace": asdict(recipe.subspace),
        "edit": asdict(recipe.edit),
    }


def _plain_pair(pair: PromptPair) -> dict[str, str | None]:
    """Return a pair; of its images the names alone, as paths say where a person keeps their files."""
    images = (pair.unsafe_image, pair.safe_image)
    unsafe_image, safe_image = (image.name if image else None for image in images)
    return {
        "unsafe": pair.unsafe,
        "safe": pair.safe,
        "unsafe_image": unsafe_image,
        "safe_image": safe_image,
    }
