"""Reading the image that a video starts from, trusting nothing in the file."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from refusal_core.errors import FileError
from refusal_core.io.reading import open_ordinary

MAX_BYTES = 32 << 20
MAX_PIXELS = 16 << 20  # 4096 x 4096: four bytes each while it is decoded, three after
FORMATS = ("PNG", "JPEG", "WEBP")


def load_image(path: Path) -> Image.Image:
    """Return an image as RGB.

    Raises:
        FileError: missing, too large, or no PNG, JPEG or WebP.
    """
    path = Path(path)
    with open_ordinary(path, MAX_BYTES) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken files Pillow warns in many ways, before it gives up
        try:
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    size = f"{image.width} x {image.height}"
                    raise FileError(f"{path.name} has {size} pixels; give a smaller image.")
                return image.convert("RGB")
        except FileError:
            raise
        except Exception as e:  # the decoders of damaged files raise whatever they stumble over
            raise FileError(f"{path.name} cannot be read as a PNG, JPEG or WebP image.") from e


def neutral_image(width: int, height: int) -> Image.Image:
    """Return a plain grey image: a start that says nothing."""
    return Image.new("RGB", (width, height), (127, 127, 127))
