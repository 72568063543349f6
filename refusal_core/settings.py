"""The settings of each step: the only home of names, defaults, ranges, choices, symbols and help texts.

A setting is written down once, as a field with a ``Knob`` in its metadata. The app's form, the command
line's options, the API's arguments, the schema of presets and what child processes are handed are all made
from ``knobs``: a new field appears in each without another line. Knows neither tensors nor models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from refusal_core.errors import InputError

# The sound's stream is of models that make it beside the picture: what it reads of the text, and the rest.
SiteKind = Literal[
    "text-entry", "text", "cross-attention", "feed-forward", "feed-forward-out", "self-attention", "temporal",
    "sound-text", "sound",
]  # fmt: skip
SITE_KINDS: tuple[SiteKind, ...] = get_args(SiteKind)
Method = Literal["whitened", "cpca", "pca", "rv", "retained", "null-space", "switch", "placebo"]
METHODS: tuple[Method, ...] = get_args(Method)
WHITENED: tuple[Method, ...] = ("whitened", "null-space", "switch", "placebo")  # made from whitening
Pool = Literal["frame", "timestep", "pair", "token"]
Trajectory = Literal["shared", "own"]
PhraseKind = Literal["state", "object", "person", "action", "style"]
Anchor = Literal["zero", "mean"]
Input = Literal["yes-no", "whole", "number", "choice", "choices", "layers", "text", "path"]
LAST_LAYER = 9999  # where the model, and so its number of layers, is not known yet
MOST_ROWS = 1_000_000  # more than any capture gives that fits
LAST_SEED = 2**31 - 1
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting as all that is outside sees it.

    A field's metadata gives the first part; ``knobs`` reads the second from the field itself.
    """

    help: str  # one sentence
    low: float | None = None  # both ends are allowed
    high: float | None = None
    step: float = 1
    usual: tuple[float, float] | None = None  # what of the range a slider shows; None: all of it
    label: str = ""  # of a form, short; default: the name in words
    symbol: str = ""  # the paper's
    expert: bool = False  # out of sight until asked for
    name: str = ""  # unique over all steps, so that a flat mapping holds a whole recipe; default: the field's

    field: str = ""
    input: Input = "text"  # what it takes: decides the widget and the option's type
    choices: tuple[str, ...] = ()
    optional: bool = False  # may be None, which stands for the model's own default, or for all
    default: object = None

    def at(self, default: Any) -> Any:
        """Return a dataclass field with this default that is the setting."""
        return field(default=default, metadata={"knob": self})

    def read(self, value: object) -> object:
        """Return the setting's value from text, from JSON or from a form.

        Lists of choices and of layers may be text with commas between (``text,cross-attention``, ``0-3,6``),
        and numbers and yes or no may be words.

        Raises:
            InputError: it cannot be read, is out of range, or is not known; one sentence.
        """
        found = self._from_text(value.strip()) if isinstance(value, str) else value
        if self.input == "whole" and isinstance(found, float) and found.is_integer():
            found = int(found)  # a form's numbers have a point
        if self.input == "number" and isinstance(found, int) and not isinstance(found, bool):
            found = float(found)
        if isinstance(found, list):
            found = tuple(found)
        self.check(found)
        return found

    def _from_text(self, text: str) -> object:
        if self.input == "layers":
            return parse_layers(text)
        if text == "" and self.optional:
            return None
        if self.input == "choices":
            return tuple(piece.strip() for piece in text.replace("+", ",").split(",") if piece.strip())
        if self.input == "yes-no":
            return {"yes": True, "true": True, "no": False, "false": False}.get(text.lower(), text)
        if self.input == "path":
            return Path(text)
        if self.input in ("whole", "number"):
            try:
                return float(text)
            except ValueError:
                return text  # ``check`` says what is wrong with it
        return text

    def check(self, value: object) -> None:
        """Raise InputError with one sentence where the setting cannot have this value."""
        if value is None and self.optional:
            return
        if self.input in ("whole", "number"):
            self._check_number(value)
        elif self.input == "yes-no" and not isinstance(value, bool):
            raise InputError(f"{self.name} must be yes or no, not {value!r:.40}.")
        elif self.input == "choice":
            self._check_choice(self.name, value)
        elif self.input == "choices":
            if not isinstance(value, tuple) or not value:
                raise InputError(f"{self.name} is empty; choose at least one of {', '.join(self.choices)}.")
            for piece in value:
                self._check_choice(self.name.removesuffix("s"), piece)
        elif self.input == "layers" and not _are_layers(value):
            raise InputError(f"{self.name} must be numbers from 0, each once, not {value!r:.40}.")
        elif self.input == "text" and not isinstance(value, str):
            raise InputError(f"{self.name} must be text, not {value!r:.40}.")
        elif self.input == "path" and not isinstance(value, Path):
            raise InputError(f"{self.name} must be a file, not {value!r:.40}.")

    def _check_number(self, value: object) -> None:
        low, high = self.low, self.high
        ends = "" if low is None or high is None else f" from {low:g} to {high:g}"
        kind = "whole number" if self.input == "whole" else "number"
        wanted = int if self.input == "whole" else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted) or not math.isfinite(value):
            raise InputError(f"{self.name} must be a {kind}{ends}, not {value!r:.40}.")
        if low is not None and high is not None and not low <= value <= high:
            raise InputError(f"{self.name} is {value:g}; it must lie{ends}.")

    def _check_choice(self, what: str, value: object) -> None:
        if value not in self.choices:
            known = ", ".join(self.choices)
            raise InputError(f"{what} '{str(value)[:40]}' is not known; choose one of {known}.")


def _are_layers(value: object) -> bool:
    if not isinstance(value, tuple) or not value or len(set(value)) < len(value):
        return False
    return all(type(layer) is int and 0 <= layer <= LAST_LAYER for layer in value)


def knobs(settings: type[Any]) -> tuple[Knob, ...]:
    """Return the settings of a class, in the order of its fields; fields that are no knob are left out."""
    if settings not in _KNOBS:
        marked = [item for item in fields(settings) if "knob" in item.metadata]
        hints = get_type_hints(settings)
        _KNOBS[settings] = tuple(_knob_of(item, hints[item.name]) for item in marked)
    return _KNOBS[settings]


_KNOBS: dict[type[Any], tuple[Knob, ...]] = {}  # reading type hints takes time, and every check needs them


def _knob_of(item: Field[Any], hint: Any) -> Knob:
    about: Knob = item.metadata["knob"]
    optional = NoneType in get_args(hint)
    kind, choices = _input_of(get_args(hint)[0] if optional else hint)
    name = about.name or item.name
    return replace(
        about,
        name=name,
        label=about.label or name.replace("_", " ").capitalize(),
        field=item.name,
        input=kind,
        choices=choices,
        optional=optional,
        default=item.default,
    )


def _input_of(hint: Any) -> tuple[Input, tuple[str, ...]]:
    """Return what a field of this type takes, and its choices."""
    if get_origin(hint) is Literal:
        return "choice", get_args(hint)
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return ("layers", ()) if inner is int else ("choices", get_args(inner))
    plain: dict[type, Input] = {bool: "yes-no", int: "whole", float: "number", str: "text", Path: "path"}
    return plain[hint], ()


def values_of(*settings: Any) -> dict[str, object]:
    """Return settings of one or more steps as a flat mapping from knob name to value."""
    return {k.name: getattr(step, k.field) for step in settings for k in knobs(type(step))}


def with_values(settings: S, values: Mapping[str, object]) -> S:
    """Return settings with those of the named values that are theirs; each is read by ``Knob.read``.

    Raises:
        InputError: a value cannot be read, or is not one the setting can have; one sentence.
    """
    found = {k.field: k.read(values[k.name]) for k in knobs(type(settings)) if k.name in values}
    return replace(settings, **found) if found else settings  # type: ignore[type-var]  # a dataclass


def check_settings(settings: Any) -> None:
    """Raise InputError where a setting of a step has a value that it cannot have."""
    for found in knobs(type(settings)):
        found.check(getattr(settings, found.field))


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """How activations are recorded."""

    kinds: tuple[SiteKind, ...] = Knob(
        "Kinds of linear layers that are edited. The text sites act most directly.",
        label="Kinds of sites",
        name="sites",
    ).at(("text",))
    layers: tuple[int, ...] | None = Knob(
        "Blocks whose sites are edited, counted from 0 in execution order, such as 0-3,6; or all."
    ).at(None)
    pool: Pool = Knob(
        "What a row of a video-side site is the mean over; tokens erase more, the paper has a frame.",
        label="Pooling",
        expert=True,
    ).at("token")  # text-side sites always give one row a token
    trajectory: Trajectory = Knob(
        "Both prompts of a pair are read on the same noisy video, or each on its own (paper).", expert=True
    ).at("shared")
    timesteps: int = Knob("Steps at which the video is read.", 1, 50, usual=(1, 20), expert=True).at(6)
    steps: int | None = Knob(
        "Steps of its schedule; by default as few as are read.", 1, 200, expert=True, name="capture_steps"
    ).at(None)
    frames: int | None = Knob("Frames of its video.", 1, 400, expert=True, name="capture_frames").at(None)
    height: int | None = Knob(
        "Its height; a smaller one gives other directions.", 16, 4096, 16, expert=True, name="capture_height"
    ).at(None)
    width: int | None = Knob("Its width in pixels.", 16, 4096, 16, expert=True, name="capture_width").at(None)
    pair_rows: int = Knob(
        "Rows that a video-side site keeps of the pairs, drawn evenly.", 1, MOST_ROWS, expert=True
    ).at(512)
    neutral: str | None = Knob(
        "Neutral prompts: a list of presets/neutral, such as everyday; default the preset's.", expert=True
    ).at(None)
    neutral_count: int | None = Knob("Only so many, spread evenly.", 0, 2000, expert=True).at(None)
    neutral_rows: int = Knob("Rows that it keeps of neutral prompts.", 1, MOST_ROWS, expert=True).at(2048)
    seed: int = Knob("Seed of the noise read on.", 0, LAST_SEED, expert=True, name="capture_seed").at(0)
    keep: str | None = Knob(
        "Presets whose concepts stay as they are, with commas between; not by rv, pca and cpca.", expert=True
    ).at(None)
    target: str | None = Knob(
        "Switch: the phrase that takes the concept's place; default: the pairs' safe side.", expert=True
    ).at(None)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class SubspaceSettings:
    """How directions are estimated from activations. The model is not needed."""

    method: Method = Knob("How directions are found; cpca is the paper's, placebo a control.").at("whitened")
    rank: int = Knob(
        "Directions kept. More reach further, and take more of other content along.",
        1,
        128,
        usual=(1, 32),
        symbol="k",
    ).at(1)
    alpha: float = Knob(
        "cPCA: weight of ordinary variation. More drops directions that ordinary content uses.",
        0.0,
        100.0,
        0.05,
        usual=(0.0, 10.0),
        label="Contrast",
        symbol="α",
        expert=True,
    ).at(1.0)
    relative: bool = Knob(
        "cPCA: the contrast is relative to each covariance's size; the paper's is not.",
        label="Relative contrast",
        expert=True,
    ).at(True)
    center: bool = Knob(
        "PCA and cPCA: centre the differences, as the paper does.",
        label="Centre the differences",
        expert=True,
    ).at(True)  # False: second moment
    shrinkage: float = Knob(
        "Whitened: share of the identity in the covariance. More moves towards the plain projection.",
        1e-6,
        10.0,
        0.01,
        usual=(0.001, 1.0),
        expert=True,
    ).at(0.02)
    retain: float = Knob(
        "Retained, null-space: share of ordinary activations that passes exactly. More leaves less reach.",
        0.0,
        1.0,
        0.01,
        expert=True,
    ).at(0.9)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class EditSettings:
    """How directions become an edit."""

    strength: float = Knob(
        "How much of the direction is removed: 0 nothing, 1 all of it.", 0.0, 2.0, 0.05, symbol="λ"
    ).at(1.0)
    anchor: Anchor = Knob(
        "Where the component is moved to: zero (paper), or the ordinary mean, which no LoRA carries."
    ).at("zero")
    kinds: tuple[SiteKind, ...] | None = Knob(
        "Of the kinds of sites that were read, only these are edited.", expert=True, name="edit_sites"
    ).at(None)
    layers: tuple[int, ...] | None = Knob(
        "Of the layers that were read, only these are edited.", expert=True, name="edit_layers"
    ).at(None)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How a video is generated. None: the model's own default."""

    seed: int = Knob("Seed of the noise; the original and the unlearned video share it.", 0, LAST_SEED).at(0)
    steps: int | None = Knob("Denoising steps.", 1, 200, usual=(1, 100)).at(None)
    guidance_scale: float | None = Knob(
        "Weight of the prompt against no prompt.", 0.0, 30.0, 0.5, symbol="w"
    ).at(None)
    frames: int | None = Knob("Frames of the video.", 1, 400).at(None)
    height: int | None = Knob("Height in pixels.", 16, 4096, 16).at(None)
    width: int | None = Knob("Width in pixels.", 16, 4096, 16).at(None)
    negative_prompt: str | None = Knob("What the video shall not show.").at(None)
    image: Path | None = Knob(
        "Where the video starts, for image-to-video models; default plain grey, or nothing where a model can."
    ).at(None)

    def __post_init__(self) -> None:
        check_settings(self)


STEPS = (CaptureSettings, SubspaceSettings, EditSettings)
"""The steps whose settings decide an edit, in the order they run."""


def recipe_knobs() -> tuple[Knob, ...]:
    """Return every setting that decides an edit; their names are unique."""
    return tuple(found for step in STEPS for found in knobs(step))


def parse_layers(text: str | None, count: int = LAST_LAYER + 1) -> tuple[int, ...] | None:
    """Read a list of layers such as ``3-5,8``; None or ``all`` means every layer.

    Args:
        text: numbers and ranges, separated by commas.
        count: number of layers of the model, where it is known; layers count from 0.

    Raises:
        InputError: the text cannot be read, or names a layer the model does not have.
    """
    if text is None or text.strip() in ("", "all"):
        return None
    chosen: set[int] = set()
    for piece in text.split(","):
        ends = piece.strip().split("-")
        if len(ends) > 2 or not all(end.strip().isdecimal() for end in ends):
            raise InputError(f"Layers '{text}' cannot be read; write for example 0-3,6.")
        low, high = int(ends[0]), int(ends[-1])
        if low > high:
            raise InputError(f"Layers '{piece.strip()}' run backwards; write the smaller number first.")
        check_layers((high,), count)
        chosen |= set(range(low, high + 1))
    return tuple(sorted(chosen))


def show_layers(layers: tuple[int, ...] | None) -> str:
    """Return layers as ``parse_layers`` reads them, such as ``0-3,6``."""
    if layers is None:
        return "all"
    starts = [layer for layer in sorted(layers) if layer - 1 not in layers]
    ends = [layer for layer in sorted(layers) if layer + 1 not in layers]
    return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in zip(starts, ends, strict=True))


def check_layers(layers: tuple[int, ...] | None, count: int) -> None:
    """Raise InputError where a model with so many layers has not all of these."""
    if layers is not None and max(layers) >= count:
        raise InputError(f"Layer {max(layers)} does not exist; this model has layers 0-{count - 1}.")
