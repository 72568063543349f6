"""Videos as arrays and as files. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refusal_core.errors import FileError, InputError
from refusal_core.files import write_atomic

DISPLAY_HEIGHT = 384  # smaller videos are enlarged to about this, by whole factors, never blurred
MAX_READ_FRAMES = 1000


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
    """
    import imageio_ffmpeg

    frames = enlarged(video).frames
    height, width = (n + n % 2 for n in frames.shape[1:3])  # yuv420p wants even sizes
    frames = np.pad(
        frames, ((0, 0), (0, height - frames.shape[1]), (0, width - frames.shape[2]), (0, 0)), mode="edge"
    )
    comment = json.dumps(dict(recipe or {}), ensure_ascii=True)

    def write(target: Path) -> None:
        writer = imageio_ffmpeg.write_frames(
            str(target),
            (width, height),
            fps=video.fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            quality=None,
            macro_block_size=2,
            output_params=["-crf", "16", "-movflags", "+faststart", "-metadata", f"comment={comment}"],
        )
        try:
            writer.send(None)
            for frame in frames:
                writer.send(np.ascontiguousarray(frame))
        finally:
            writer.close()
        if target.stat().st_size == 0:
            raise OSError("the encoder wrote nothing; is the disk full?")

    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"'{path.name}' must end in .mp4.")
    return write_atomic(path, write)


def load_video(path: Path) -> tuple[Video, dict[str, Any]]:
    """Read an mp4 and the recipe in its comment tag ({} where there is none).

    Raises:
        FileError: no readable video, or one of over MAX_READ_FRAMES frames.
    """
    import imageio_ffmpeg

    try:
        reader = imageio_ffmpeg.read_frames(str(path))
        meta = next(reader)
        width, height = meta["size"]
        frames = []
        for raw in reader:
            frames.append(np.frombuffer(raw, np.uint8).reshape(height, width, 3))
            if len(frames) > MAX_READ_FRAMES:
                raise FileError(f"{Path(path).name} has over {MAX_READ_FRAMES} frames; cut it shorter.")
    except (OSError, RuntimeError, StopIteration, KeyError, ValueError) as e:
        raise FileError(f"{Path(path).name} cannot be read as a video.") from e
    return Video(np.stack(frames), float(meta["fps"])), _read_recipe(Path(path))


def _read_recipe(path: Path) -> dict[str, Any]:
    import subprocess

    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    text = subprocess.run(command, capture_output=True, check=False, timeout=30).stdout.decode(
        "utf-8", "replace"
    )
    for line in text.splitlines():
        if line.startswith("comment="):
            value = line.removeprefix("comment=")
            for sign in "=;#\\":  # ffmetadata escapes these
                value = value.replace("\\" + sign, sign)
            try:
                found = json.loads(value)
            except ValueError:
                return {}
            return found if isinstance(found, dict) else {}
    return {}
