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
from refusal_core.io.files import write_atomic
from refusal_core.io.reading import open_ordinary, parse_json

DISPLAY_HEIGHT = 384  # smaller videos are enlarged to about this, by whole factors, never blurred
MAX_FILE = 256 << 20
MAX_READ_FRAMES = 1000
MAX_READ_PIXELS = 2048 * 1088  # of a frame: a decoder may have to keep seventeen
MAX_READ_BYTES = 96 << 20  # of all frames together: 81 of 832 x 480
MAX_RECIPE = 1 << 20  # characters


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


def load_video(path: Path, *, limit: int = MAX_READ_BYTES) -> tuple[Video, dict[str, Any]]:
    """Read an mp4 and the recipe in its comment tag ({} where there is none).

    Args:
        path: of an mp4.
        limit: most bytes of decoded frames; raise it for long videos that you trust.

    Raises:
        FileError: no readable video, or one of too many frames or pixels.
    """
    import av

    path = Path(path)
    with open_ordinary(path, MAX_FILE) as file:
        try:
            # The open file, and as an mp4: by name FFmpeg would follow playlists to other files and hosts.
            with av.open(file, format="mp4", metadata_errors="replace") as container:
                frames = _decode(container, path.name, limit)
                rate = float(container.streams.video[0].average_rate or 0)
                comment = container.metadata.get("comment", "{}")
        except FileError:
            raise
        except Exception as e:  # the decoders of damaged files raise whatever they stumble over
            raise FileError(f"{path.name} cannot be read as a video; choose an mp4.") from e
    return Video(frames, rate), _recipe(comment)


def _decode(container: Any, name: str, limit: int) -> NDArray[np.uint8]:
    """Return the frames [T, height, width, 3], in one array whose pages are taken as they are filled."""
    stream = container.streams.video[0]
    frames: NDArray[np.uint8] | None = None
    count = 0
    for frame in container.decode(stream):
        height, width = frame.height, frame.width  # of the picture: the container's header may lie
        if height * width > MAX_READ_PIXELS:
            raise FileError(f"{name} has frames of {width} x {height}; make it smaller.")
        if frames is None:
            most = min(MAX_READ_FRAMES, limit // (height * width * 3))
            frames = np.empty((most, height, width, 3), np.uint8)
        if count == len(frames):
            raise FileError(f"{name} has over {count} frames of {width} x {height}; cut it shorter.")
        frames[count] = frame.to_ndarray(format="rgb24")
        count += 1
    if frames is None:
        raise FileError(f"{name} holds no frames; choose another video.")
    return frames[:count]


def _recipe(comment: str) -> dict[str, Any]:
    try:
        found = parse_json(comment) if len(comment) <= MAX_RECIPE else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
