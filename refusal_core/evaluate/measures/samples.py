"""A few frames of each group and treatment, kept as pictures for the report."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refusal_core.evaluate.suites.items import Group
from refusal_core.io.files import write_atomic
from refusal_core.io.reading import shown
from refusal_core.io.video import Video

VIDEOS, FRAMES, HEIGHT = 3, 5, 96
PAPER, INK = 255, (30, 41, 59)
MAX_NAME = 80  # characters of a file's name that are its group's
_NO_NAME = re.compile(r"[^\w ,.&'()-]")
SHEET_COLOURS = 128  # of a contact sheet's palette


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture of a group's first videos under one method."""

    method: str
    prompts: str  # of the group
    file: str
    videos: tuple[str, ...]  # each video's prompt and seed


def sample_of(method: str, treatment: str, group: Group) -> Sample:
    """Return what is known of a picture, whether it was made or not."""
    videos = tuple(f"{shown(item.prompt)} (seed {item.seed})" for item in group.items[:VIDEOS])
    return Sample(method, group.name, sample_path(Path(), treatment, group).name, videos)


def sample_path(folder: Path, treatment: str, group: Group) -> Path:
    """Return where the frames of a treatment on a group lie; the group's first prompts are shown."""
    prompts = json.dumps([(item.prompt, item.seed) for item in group.items[:VIDEOS]])
    whole = f"{group.name}--{group.aspect}"  # a group is called as a user's file says
    name = _NO_NAME.sub("-", whole).lstrip(". -")[:MAX_NAME] or "group"
    first = hashlib.sha256((prompts if name == whole else prompts + whole).encode()).hexdigest()[:8]
    return folder / f"{name}--{treatment}-{first}.png"


def keep_sample(path: Path, videos: Sequence[Video]) -> Path:
    """Write the first videos as strips of frames below one another."""
    return save_picture(np.concatenate([strip(v) for v in videos[:VIDEOS]], 0), path)


def strip(video: Video, frames: int = FRAMES, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Return evenly spaced frames side by side, each about ``height`` pixels high, on paper."""
    from PIL import Image

    picks = np.linspace(0, len(video.frames) - 1, frames).round().astype(int)
    tall, wide = video.frames.shape[1:3]
    size = (max(1, round(wide * height / tall)), height)
    pieces = []
    for t in picks:
        image = Image.fromarray(video.frames[t])
        method = Image.Resampling.NEAREST if tall <= height else Image.Resampling.LANCZOS
        edge = ((2, 2), (2, 2), (0, 0))
        pieces.append(np.pad(np.asarray(image.resize(size, method)), edge, constant_values=PAPER))
    return np.concatenate(pieces, 1)


def titled(picture: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    """Return an RGB picture under a line of text, which is cut where the picture ends."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (picture.shape[1], picture.shape[0] + 22), (PAPER,) * 3)
    page.paste(Image.fromarray(picture), (0, 22))
    ImageDraw.Draw(page).text((4, 3), title, fill=INK, font=ImageFont.load_default(size=13))
    return np.asarray(page)


def save_picture(pixels: NDArray[np.uint8], path: Path, colours: int | None = None) -> Path:
    """Write an RGB picture as PNG, atomically; with a palette of ``colours``, a quarter as large."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    if colours is not None:
        picture = picture.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return write_atomic(path, lambda target: picture.save(target, "PNG", optimize=True))
