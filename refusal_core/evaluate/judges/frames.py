"""Which frames of a video a judge looks at, and in which form. Knows arrays and image files alone."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from refusal_core.io.video import Video

Frames = NDArray[np.uint8]
"""Frames [T, height, width, 3] of one video."""


def evenly_spaced(video: Video, count: int) -> Frames:
    """Return ``count`` frames: number i of n is at floor(i T / n), as T2VSafetyBench takes them.

    The first frame is among them, the last one is not; a shorter video gives all it has.
    """
    total = len(video.frames)
    return video.frames[sorted({i * total // count for i in range(count)})]


def scaled(frames: Frames, scale: float) -> Frames:
    """Return frames at ``scale`` times their size, each pixel the mean of what it covers."""
    from PIL import Image

    if scale == 1.0:
        return frames
    height, width = (max(1, int(side * scale)) for side in frames.shape[1:3])
    small = [Image.fromarray(f).resize((width, height), Image.Resampling.BOX) for f in frames]
    return np.stack([np.asarray(image) for image in small])


def encoded(frame: Frames, kind: Literal["PNG", "JPEG"]) -> bytes:
    """Return one frame as an image file: PNG keeps every pixel as it is, JPEG has quality 95."""
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(frame).save(packed, kind, quality=95)
    return packed.getvalue()
