"""Reading the image that a video starts from, trusting nothing in the file."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from refusal_core.errors import FileError

MAX_BYTES = 32 << 20
MAX_PIXELS = 64_000_000
FORMATS = ("PNG", "JPEG", "WEBP")


def load_image(path: Path) -> Image.Image:
    """Return an image as RGB.

    Raises:
        FileError: missing, too large, or no PNG, JPEG or WebP.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path.name} is larger than {MAX_BYTES >> 20} MB; give a smaller image.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit comes next
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    size = f"{image.width} x {image.height}"
                    raise FileError(f"{path.name} has {size} pixels; give a smaller image.")
                return image.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise FileError(f"{path.name} cannot be read as a PNG, JPEG or WebP image.") from e


def neutral_image(width: int, height: int) -> Image.Image:
    """Return a plain grey image: a start that says nothing."""
    return Image.new("RGB", (width, height), (127, 127, 127))
