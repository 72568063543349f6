"""Videos as arrays and as files. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refusal_core.errors import FileError, InputError
from refusal_core.files import write_atomic

DISPLAY_HEIGHT = 384  # smaller videos are enlarged to about this, by whole factors, never blurred
MAX_READ_FRAMES = 1000
MAX_READ_PIXELS = 4096 * 4096  # of a frame


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """Frames uint8 [T, height, width, 3] at ``fps`` frames a second."""

    frames: NDArray[np.uint8]
    fps: float

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or self.frames.dtype != np.uint8:
            raise InputError(f"A video has frames uint8 [T, H, W, 3], not {self.frames.shape}.")


@dataclass(frozen=True, slots=True, eq=False)
class VideoPair:
    """The original and the unlearned video of one prompt and seed."""

    original: Video
    unlearned: Video

    def save(self, path: Path, recipe: Mapping[str, Any] | None = None) -> Path:
        """Write both side by side as one mp4."""
        return save_video(side_by_side(self.original, self.unlearned), path, recipe)


def side_by_side(left: Video, right: Video) -> Video:
    """Return both videos in one, a light gap between them."""
    if left.frames.shape != right.frames.shape:
        raise InputError("Only videos of one size and length can stand side by side.")
    gap = np.full((*left.frames.shape[:2], 2, 3), 235, np.uint8)
    return Video(np.concatenate([left.frames, gap, right.frames], axis=2), left.fps)


def enlarged(video: Video) -> Video:
    """Return the video enlarged by a whole factor to about DISPLAY_HEIGHT, nearest neighbour."""
    factor = max(1, DISPLAY_HEIGHT // video.frames.shape[1])
    return Video(video.frames.repeat(factor, axis=1).repeat(factor, axis=2), video.fps)


def save_video(video: Video, path: Path, recipe: Mapping[str, Any] | None = None) -> Path:
    """Write an mp4 that every browser plays (h264, yuv420p, faststart), the recipe in its comment tag.

    Raises:
        FileError: the file cannot be written.
        InputError: the name does not end in .mp4.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"'{path.name}' must end in .mp4.")
    return write_atomic(path, lambda target: _encode(video, target, dict(recipe or {})))


def _encode(video: Video, target: Path, recipe: dict[str, Any]) -> None:
    import av

    frames = enlarged(video).frames
    height, width = (n + n % 2 for n in frames.shape[1:3])  # yuv420p wants even sizes
    margin = ((0, 0), (0, height - frames.shape[1]), (0, width - frames.shape[2]), (0, 0))
    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = json.dumps(recipe, ensure_ascii=True)
        stream = container.add_stream("libx264", rate=Fraction(video.fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "16"}
        for pixels in np.pad(frames, margin, mode="edge"):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def load_video(path: Path) -> tuple[Video, dict[str, Any]]:
    """Read an mp4 and the recipe in its comment tag ({} where there is none).

    Raises:
        FileError: no readable video, or one of over MAX_READ_FRAMES frames.
    """
    import av

    name = Path(path).name
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_READ_PIXELS:
                raise FileError(f"{name} has frames of {stream.width} x {stream.height}; make it smaller.")
            frames = []
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) > MAX_READ_FRAMES:
                    raise FileError(f"{name} has over {MAX_READ_FRAMES} frames; cut it shorter.")
            rate, comment = float(stream.average_rate or 0), container.metadata.get("comment", "{}")
    except (av.FFmpegError, OSError, IndexError, AttributeError, ValueError, MemoryError) as e:
        raise FileError(f"{name} cannot be read as a video; choose an mp4.") from e
    if not frames:
        raise FileError(f"{name} holds no frames; choose another video.")
    return Video(np.stack(frames), rate), _recipe(comment)


def _recipe(comment: str) -> dict[str, Any]:
    try:
        found = json.loads(comment)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
