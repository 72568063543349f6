"""A tiny pipeline as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """A class of diffusers and what it is built with."""

    kind: str
    config: Mapping[str, Any]


def part(kind: str, /, **config: Any) -> Part:
    """Return a part."""
    return Part(kind, config)


@dataclass(frozen=True, slots=True)
class TinyRecipe:
    """A pipeline and its parts."""

    pipeline: str
    text: tuple[str, ...]  # encoders, see ``text``
    vae: Part
    denoiser: Part
    size: tuple[int, int, int]  # frames, height and width, text tokens
    scheduler: Part = field(default=part("FlowMatchEulerDiscreteScheduler"))
    more: Mapping[str, Any] = field(default_factory=dict)  # of the pipeline: parts and plain arguments
    eye: str = ""  # what reads an image, see ``text``
    extras: Mapping[str, Any] = field(default_factory=dict)  # arguments of each call
