"""The settings of each step: the only home of defaults, ranges and help texts.

The command line, the app and the presets read ranges and help from the field metadata here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from refusal_core.errors import InputError

SiteKind = Literal[
    "text-entry", "text", "cross-attention", "feed-forward", "feed-forward-out", "self-attention", "temporal"
]
SITE_KINDS: tuple[SiteKind, ...] = (
    "text-entry",
    "text",
    "cross-attention",
    "feed-forward",
    "feed-forward-out",
    "self-attention",
    "temporal",
)
Method = Literal["rv", "pca", "cpca", "whitened"]
METHODS: tuple[Method, ...] = ("rv", "pca", "cpca", "whitened")
Pool = Literal["pair", "timestep", "frame", "token"]
Trajectory = Literal["shared", "own"]
Anchor = Literal["zero", "mean"]


def knob(
    default: Any, help_text: str, low: float | None = None, high: float | None = None, step: float = 1
) -> Any:
    """Return a dataclass field with its range and its help in the metadata."""
    return field(default=default, metadata={"help": help_text, "low": low, "high": high, "step": step})


def _check_ranges(settings: Any) -> None:
    for item in fields(settings):
        value, low, high = getattr(settings, item.name), item.metadata.get("low"), item.metadata.get("high")
        if value is None or low is None or high is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"{item.name} must be a number from {low:g} to {high:g}, not {value!r}.")
        if not low <= value <= high:
            raise InputError(f"{item.name} is {value:g}; it must lie from {low:g} to {high:g}.")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} '{str(value)[:40]}' is not known; choose one of {', '.join(choices)}.")


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """How activations are recorded."""

    kinds: tuple[SiteKind, ...] = ("text",)
    layers: tuple[int, ...] | None = None  # blocks in execution order; None: all
    pool: Pool = "frame"  # video-side sites; text-side sites always give one row a token
    trajectory: Trajectory = "shared"
    timesteps: int = knob(6, "Denoising steps at which video-side activations are read.", 1, 50)
    seed: int = knob(0, "Seed of the noise that the activations are read on.", 0, 2**31 - 1)

    def __post_init__(self) -> None:
        _check_ranges(self)
        if not self.kinds:
            raise InputError("Choose at least one kind of site.")
        for kind in self.kinds:
            _check_choice("site kind", kind, SITE_KINDS)
        _check_choice("pool", self.pool, ("pair", "timestep", "frame", "token"))
        _check_choice("trajectory", self.trajectory, ("shared", "own"))


@dataclass(frozen=True, slots=True)
class SubspaceSettings:
    """How directions are estimated from activations. The model is not needed."""

    method: Method = "whitened"
    rank: int = knob(
        1, "Directions kept (k). More reach further, and take more of other content along.", 1, 128
    )
    alpha: float = knob(1.0, "Weight of the neutral covariance in cPCA.", 0.0, 100.0, 0.05)
    relative: bool = True  # alpha on covariances of unit trace; False: on raw ones, as in the paper
    center: bool = True  # PCA and cPCA on centred differences (paper); False: second moment
    shrinkage: float = knob(
        0.02, "Share of the identity mixed into the whitening covariance.", 1e-6, 10.0, 0.01
    )

    def __post_init__(self) -> None:
        _check_choice("method", self.method, METHODS)
        _check_ranges(self)


@dataclass(frozen=True, slots=True)
class EditSettings:
    """How directions become an edit."""

    strength: float = knob(
        1.0, "How much of the direction is removed: 0 nothing, 1 all of it.", 0.0, 2.0, 0.05
    )
    anchor: Anchor = "zero"  # where the component is moved to: zero (paper), or the ordinary mean
    kinds: tuple[SiteKind, ...] | None = None  # None: every captured one
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_choice("anchor", self.anchor, ("zero", "mean"))


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How a video is generated. None: the model's own default."""

    seed: int = knob(0, "Seed of the noise; the original and the unlearned video share it.", 0, 2**31 - 1)
    steps: int | None = knob(None, "Denoising steps.", 1, 200)
    guidance_scale: float | None = knob(None, "Weight of the prompt against no prompt.", 0.0, 30.0, 0.5)
    frames: int | None = knob(None, "Frames of the video.", 1, 400)
    height: int | None = knob(None, "Height in pixels.", 16, 4096)
    width: int | None = knob(None, "Width in pixels.", 16, 4096)
    negative_prompt: str | None = None
    image: Path | None = None  # where a video starts from one; None: plain grey

    def __post_init__(self) -> None:
        _check_ranges(self)


def parse_layers(text: str | None, count: int) -> tuple[int, ...] | None:
    """Read a list of layers such as ``3-5,8``; None or ``all`` means every layer.

    Args:
        text: numbers and ranges, separated by commas.
        count: number of layers of the model; layers count from 0.

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
        if high >= count:
            raise InputError(f"Layer {high} does not exist; this model has layers 0-{count - 1}.")
        chosen |= set(range(low, high + 1))
    return tuple(sorted(chosen))
