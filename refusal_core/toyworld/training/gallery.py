"""The picture of the README: each toy concept, original above unlearned, as an animated GIF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from refusal_core.concepts import list_presets
from refusal_core.io.files import write_atomic
from refusal_core.io.video import Video, VideoPair
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent
from refusal_core.recipe import build, preset_recipe
from refusal_core.sampling import compare
from refusal_core.settings import SamplingSettings

SCALE, GAP, HEAD, SIDE = 2, 6, 22, 82
INK, PAPER = (30, 41, 59), (255, 255, 255)


def save_gallery(model: Model, path: Path, seed: int = 7, *, progress: Progress = silent) -> Path:
    """Compare every toy preset at its own prompt and settings, and write one GIF."""
    presets = list_presets(model.name)
    pairs: list[tuple[str, VideoPair]] = []
    for i, preset in enumerate(presets):
        step = part(progress, i / len(presets), (i + 1) / len(presets))
        edit, _ = build(model, preset_recipe(preset, model))
        made = compare(model, edit, preset.prompt, SamplingSettings(seed=seed), progress=step)
        pairs.append((preset.title.split(" (")[0], made))
    frames = [_page(pairs, t) for t in range(len(pairs[0][1].original.frames))]
    fps = pairs[0][1].original.fps

    def write(target: Path) -> None:
        frames[0].save(
            target, format="GIF", save_all=True, append_images=frames[1:], duration=int(1000 / fps), loop=0
        )

    return write_atomic(path, write)


def _page(pairs: list[tuple[str, VideoPair]], t: int) -> Image.Image:
    cell = pairs[0][1].original.frames.shape[1] * SCALE
    size = (SIDE + len(pairs) * (cell + GAP), HEAD + 2 * (cell + GAP))
    page = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for row, label in enumerate(("original", "unlearned")):
        draw.text((4, HEAD + row * (cell + GAP) + cell // 2 - 8), label, fill=INK, font=font)
    for column, (title, pair) in enumerate(pairs):
        left = SIDE + column * (cell + GAP)
        draw.text((left + 2, 3), title, fill=INK, font=font)
        for row, video in enumerate((pair.original, pair.unlearned)):
            page.paste(Image.fromarray(_frame(video, t)), (left, HEAD + row * (cell + GAP)))
    return page.quantize(128, dither=Image.Dither.NONE)


def _frame(video: Video, t: int) -> NDArray[np.uint8]:
    return video.frames[t].repeat(SCALE, axis=0).repeat(SCALE, axis=1)
