"""The picture of the README: each concept of the language model, original above unlearned, as a GIF."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from refusal_core.concepts import list_presets
from refusal_core.io.files import write_atomic
from refusal_core.io.video import VideoPair
from refusal_core.models.load import load_model
from refusal_core.models.model import Model
from refusal_core.progress import Progress, each, silent
from refusal_core.recipe import build, preset_recipe
from refusal_core.sampling import compare
from refusal_core.settings import SamplingSettings

SCALE, GAP, HEAD, SIDE = 2, 6, 22, 82
INK, PAPER = (30, 41, 59), (255, 255, 255)


def save_gallery(model: Model, path: Path, seed: int = 7, *, progress: Progress = silent) -> Path:
    """Compare every toy preset at its own prompt and settings, and write one GIF."""
    presets = list_presets(model.name)
    pairs: dict[str, VideoPair] = {}
    for preset, step in each(progress, presets):
        edit, _ = build(model, preset_recipe(preset, model))
        sampling = SamplingSettings(seed=seed)
        pairs[preset.title.split(" (")[0]] = compare(model, edit, preset.prompt, sampling, progress=step)
    first = next(iter(pairs.values())).original
    pages = [_page(pairs, t) for t in range(len(first.frames))]
    animated = {"save_all": True, "append_images": pages[1:], "duration": int(1000 / first.fps), "loop": 0}
    return write_atomic(path, lambda target: pages[0].save(target, format="GIF", **animated))


def _page(pairs: dict[str, VideoPair], t: int) -> Image.Image:
    cell = next(iter(pairs.values())).original.frames.shape[1] * SCALE
    page = Image.new("RGB", (SIDE + len(pairs) * (cell + GAP), HEAD + 2 * (cell + GAP)), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for row, label in enumerate(("original", "unlearned")):
        top = HEAD + row * (cell + GAP)
        draw.text((4, top + cell // 2 - 8), label, fill=INK, font=font)
        for column, (title, pair) in enumerate(pairs.items()):
            left = SIDE + column * (cell + GAP)
            draw.text((left + 2, 3), title, fill=INK, font=font)
            frame = Image.fromarray(getattr(pair, label).frames[t])
            page.paste(frame.resize((cell, cell), Image.Resampling.NEAREST), (left, top))
    return page.quantize(128, dither=Image.Dither.NONE)


if __name__ == "__main__":
    save_gallery(load_model("toyworld-language"), Path(__file__).parents[1] / "assets" / "gallery.gif")
