"""Concepts as plain text: prompt pairs, neutral prompts, and preset files. Knows no tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
)

from refusal_core.errors import FileError, InputError
from refusal_core.io.reading import (
    MAX_TEXT,
    Plain,
    Prompt,
    bundled,
    parse_json,
    plain,
    prompt_text,
    read_ordinary,
    read_text,
    shown,
)
from refusal_core.settings import Knob, recipe_knobs

MAX_PAIRS = 64
MAX_NEUTRAL = 2000
MAX_FILE = 1 << 20  # bytes of a preset or pairs file
PRESETS = bundled("presets")
HELD_OUT = "held-out"  # the list of prompts that no edit is made from


@dataclass(frozen=True, slots=True)
class PromptPair:
    """An unsafe and a safe prompt, equal but for the concept: (u_i, s_i) in the paper."""

    unsafe: str
    safe: str
    unsafe_image: Path | None = None  # where a video starts from one; None: plain grey
    safe_image: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "unsafe", prompt_text(self.unsafe, "The unsafe prompt"))
        object.__setattr__(self, "safe", prompt_text(self.safe, "The safe prompt"))
        same_images = self.unsafe_image == self.safe_image
        if self.unsafe.casefold() == self.safe.casefold() and same_images:
            raise InputError(f"Unsafe and safe prompt are the same ('{shown(self.safe)}'); they must differ.")


@dataclass(frozen=True, slots=True)
class Concept:
    """What is to be unlearned: pairs that show it, neutral prompts that must survive."""

    name: str
    pairs: tuple[PromptPair, ...]
    neutral: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.pairs) < 2:
            raise InputError(f"Add at least 2 prompt pairs; '{self.name}' has {len(self.pairs)}.")
        if len(self.pairs) > MAX_PAIRS:
            raise InputError(f"'{self.name}' has {len(self.pairs)} pairs; {MAX_PAIRS} is the limit.")


@dataclass(frozen=True, slots=True)
class Preset:
    """A concept with a title, a prompt to try and recommended settings, by the names of their knobs.

    The settings were chosen on a tuning split, never on the preset's evaluation.
    """

    title: str
    category: str
    model: str
    prompt: str
    concept: Concept
    recommended: Mapping[str, object] = field(default_factory=dict)
    by_model: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # instead, for these models

    def recommended_for(self, model: str) -> Mapping[str, object]:
        """Return the settings for a model."""
        return self.by_model.get(model, self.recommended)


_Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(plain)]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
# A bare file name beside the file that names it: no path leads anywhere else.
_Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,80}\.(png|jpg|jpeg|webp)$")]
_Prompts = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_NEUTRAL)]
_STRICT = ConfigDict(extra="forbid", strict=True)


class _PairFile(BaseModel):
    model_config = _STRICT
    unsafe: str  # ``PromptPair`` sees to the rest
    safe: str
    unsafe_image: _Image | None = None
    safe_image: _Image | None = None


def _file_type(knob: Knob) -> Any:  # a type is made while the program runs
    """Return what a preset file may hold for a setting: more strictly read than what a person types."""
    if knob.input in ("whole", "number"):
        number: Any = int if knob.input == "whole" else float
        return Annotated[number, Field(ge=knob.low, le=knob.high, allow_inf_nan=False)]
    if knob.input in ("choice", "choices"):
        known: Any = Literal[knob.choices]
        several = Annotated[list[known], Field(min_length=1, max_length=len(knob.choices))]
        return known if knob.input == "choice" else several
    return bool if knob.input == "yes-no" else Annotated[Plain, Field(max_length=60)]


# A preset has a field of its own for its neutral prompts.
_IN_PRESETS = [knob for knob in recipe_knobs() if knob.name not in ("neutral", "neutral_count")]

if TYPE_CHECKING:
    _SettingsFile = BaseModel
else:
    _SettingsFile = create_model(
        "_SettingsFile",
        __config__=_STRICT,
        **{knob.name: (_file_type(knob), knob.default) for knob in _IN_PRESETS},
    )


def _settings(found: BaseModel) -> dict[str, object]:
    """Return what a file says of settings, by the names of their knobs."""
    said = found.model_dump(exclude_unset=True)
    return {knob.name: knob.read(said[knob.name]) for knob in recipe_knobs() if knob.name in said}


class _PresetFile(BaseModel):
    model_config = _STRICT
    format: Literal["refusal-studio preset"]
    version: Literal[1]
    name: _Name
    title: _Text
    category: _Text
    model: _Name
    prompt: Prompt
    note: Plain = ""
    pairs: Annotated[list[_PairFile], Field(min_length=2, max_length=MAX_PAIRS)]
    neutral: Annotated[list[Prompt], Field(max_length=MAX_NEUTRAL)] | _Name
    recommended: _SettingsFile = _SettingsFile()
    by_model: Annotated[dict[_Name, _SettingsFile], Field(max_length=8)] = {}


class _PairsFile(BaseModel):
    model_config = _STRICT
    pairs: Annotated[list[_PairFile], Field(min_length=2, max_length=MAX_PAIRS)]


class _NeutralFile(BaseModel):
    model_config = _STRICT
    format: Literal["refusal-studio neutral prompts"]
    version: Literal[1]
    name: _Name
    prompts: _Prompts


def _sentence(error: ValidationError, name: str) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(p) for p in first["loc"]) or "the file"
    return f"{name}: {place}: {first['msg'].rstrip('.').lower()}; correct it and load the file again."


def _read_json(path: Path) -> object:
    content = read_ordinary(path, MAX_FILE)
    try:
        return parse_json(content)
    except UnicodeDecodeError as e:
        raise FileError(f"{path.name} cannot be read as text; save it as UTF-8 JSON.") from e
    except ValueError as e:
        raise FileError(f"{path.name} is not valid JSON; export it again or correct it.") from e


def load_neutral(source: str | Path) -> tuple[str, ...]:
    """Return a list of ordinary prompts: a bundled one by its name, or a file, JSON or one a line.

    Raises:
        FileError: it is missing or not sound.
        InputError: there is none of that name.
    """
    path = Path(source) if isinstance(source, Path) else PRESETS / "neutral" / f"{source}.json"
    if isinstance(source, str) and not (re.fullmatch(r"[a-z0-9-]+", source) and path.is_file()):
        known = ", ".join(p.stem for p in sorted((PRESETS / "neutral").glob("*.json")) if p.stem != HELD_OUT)
        raise InputError(f"There is no list of neutral prompts '{shown(source, 40)}'; choose one of {known}.")
    try:
        if path.suffix == ".txt":
            lines = [line for line in read_text(path, MAX_FILE).splitlines() if line.strip()]
            return tuple(TypeAdapter(_Prompts).validate_python(lines))
        return tuple(_NeutralFile.model_validate(_read_json(path)).prompts)
    except ValidationError as e:
        raise FileError(_sentence(e, path.name)) from e


def neutral_prompts(concept: Concept, name: str | None, count: int | None) -> tuple[str, ...]:
    """Return the neutral prompts that are read for a concept.

    Args:
        concept: whose own they are where no list is named.
        name: of a bundled list; never a path, as the name may come from a stranger.
        count: at most so many, spread evenly over the list; None: all.

    Raises:
        InputError: there is no such list, or it is the one that measures what an edit has not seen.
    """
    if name == HELD_OUT:
        raise InputError(
            f"'{HELD_OUT}' measures what else an edit changes; choose another list for making it."
        )
    prompts = concept.neutral if name is None else load_neutral(name)
    kept = len(prompts) if count is None else min(count, len(prompts))
    return tuple(prompts[i * len(prompts) // kept] for i in range(kept))


def _pairs(found: list[_PairFile], path: Path) -> tuple[PromptPair, ...]:
    pairs = []
    for row, pair in enumerate(found, start=1):
        images = [_beside(path, name) for name in (pair.unsafe_image, pair.safe_image)]
        try:
            pairs.append(PromptPair(pair.unsafe, pair.safe, *images))
        except InputError as e:
            raise InputError(f"{path.name}, pair {row}: {e}") from e
    return tuple(pairs)


def _beside(path: Path, name: str | None) -> Path | None:
    """Return where an image of a pair lies: in the folder of its file, also when it is a link."""
    if name is None:
        return None
    image = path.parent / name
    if image.is_symlink() and image.resolve().parent != path.parent.resolve():
        raise FileError(f"{name} is a link out of its folder; put the image itself there.")
    return image


def load_preset(source: str | Path, model: str = "") -> Preset:
    """Read a preset by its name (``fire``) or its path; of a name, the model's own where it has one.

    Raises:
        FileError: the file is missing, too large, or not a preset; the sentence says where.
        InputError: a pair is empty, equal on both sides, or too long.
    """
    path = Path(source)
    if isinstance(source, str) and re.fullmatch(r"[a-z0-9-]+", source):
        own = PRESETS / model / f"{source}.json"
        path = own if re.fullmatch(r"[a-z0-9-]+", model) and own.exists() else PRESETS / f"{source}.json"
        if not path.exists():
            known = ", ".join(p.stem for p in sorted(PRESETS.glob("*.json")))
            raise InputError(f"There is no preset '{source}'; choose one of {known}.")
    try:
        found = _PresetFile.model_validate(_read_json(path))
    except ValidationError as e:
        raise FileError(_sentence(e, path.name)) from e
    neutral = load_neutral(found.neutral) if isinstance(found.neutral, str) else tuple(found.neutral)
    return Preset(
        title=found.title,
        category=found.category,
        model=found.model,
        prompt=found.prompt,
        concept=Concept(found.name, _pairs(found.pairs, path), neutral, found.note),
        recommended=_settings(found.recommended),
        by_model={model: _settings(chosen) for model, chosen in found.by_model.items()},
    )


def load_concept(source: str | Path) -> Concept:
    """Read the concept of a preset, by name or path. Raises as ``load_preset`` does."""
    return load_preset(source).concept


def load_pairs(path: Path) -> tuple[PromptPair, ...]:
    """Read pairs from JSON: ``{"pairs": [{"unsafe": "...", "safe": "..."}, ...]}``."""
    try:
        return _pairs(_PairsFile.model_validate(_read_json(path)).pairs, path)
    except ValidationError as e:
        raise FileError(_sentence(e, path.name)) from e


def list_presets(model: str | None = None) -> tuple[Preset, ...]:
    """Return the bundled presets, those of one model where it is named, in the order of their files."""
    named = sorted(PRESETS.glob("*.json"))
    if model is not None and re.fullmatch(r"[a-z0-9-]+", model) and model != "neutral":
        named += sorted((PRESETS / model).glob("*.json"))
    presets = (load_preset(path) for path in named)
    return tuple(p for p in presets if model is None or p.model == model)
