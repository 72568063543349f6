"""Videos as arrays and as files. Knows no model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import wave
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from refusal_core.errors import FileError, InputError
from refusal_core.io.decoding import decoding, ffmpeg
from refusal_core.io.files import write_atomic
from refusal_core.io.reading import open_ordinary, parse_json

DISPLAY_HEIGHT = 384  # smaller videos are enlarged to about this, by whole factors, never blurred
MAX_FILE = 256 << 20
MAX_READ_FRAMES = 1000
MAX_READ_PIXELS = 2048 * 1088  # of a frame: a decoder may have to keep seventeen
MAX_READ_BYTES = 96 << 20  # of all frames together: 81 of 832 x 480
MAX_RECIPE = 1 << 20  # characters

# ffmpeg's options. Untagged, one browser takes a file for BT.601 and another for BT.709, by its size.
_COLOURS = "-f mp4 -crf 16 -vf scale=flags=accurate_rnd:out_color_matrix=bt709:out_range=tv,format=yuv420p"
_COLOURS += ",setparams=color_primaries=bt709:color_trc=bt709"
# The recipe comes as a file of ffmpeg's: on the command line it may not be longer than 128 kB.
_RECIPE_INPUT = "-f ffmetadata -i pipe:0"
_RECIPE = "-map 0:v -map_metadata 1 -c:v copy -c:a aac -f mp4 -movflags +faststart"
_FRAMES = "-map 0:v:0 -fps_mode passthrough -f yuv4mpegpipe"
_FRAMES += " -vf format=gbrp,mergeplanes=map0p=2:map1p=0:map2p=1:format=yuv444p"  # red, green, blue


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """Samples float32 [channels, N] from -1 to 1, ``rate`` a second."""

    samples: NDArray[np.float32]
    rate: int

    def save(self, path: Path) -> None:
        """Write a WAV file of 16 bits."""
        with wave.open(str(path), "wb") as file:
            file.setnchannels(len(self.samples))
            file.setsampwidth(2)
            file.setframerate(self.rate)
            file.writeframes(np.rint(self.samples.clip(-1, 1).T * 32767).astype("<i2").tobytes())


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """Frames uint8 [T, height, width, 3] at ``fps`` frames a second, and their sound where there is one.

    Side by side, and read from a file, it has none.
    """

    frames: NDArray[np.uint8]
    fps: float
    sound: Sound | None = None

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


def enlarged(video: Video, height: int = DISPLAY_HEIGHT) -> Video:
    """Return the video enlarged by a whole factor to about a height, nearest neighbour."""
    factor = max(1, height // video.frames.shape[1])
    return replace(video, frames=video.frames.repeat(factor, axis=1).repeat(factor, axis=2))


def save_video(
    video: Video, path: Path, recipe: Mapping[str, Any] | None = None, *, height: int = DISPLAY_HEIGHT
) -> Path:
    """Write an mp4 that every browser plays (h264, yuv420p, faststart; the sound as aac), the recipe in its
    comment tag.

    Args:
        video: what to write.
        path: of an mp4.
        recipe: what makes the video again.
        height: a smaller video is enlarged to about this; smaller files, duller colours at edges.

    Raises:
        FileError: the file cannot be written.
        InputError: the name does not end in .mp4.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(f"'{path.name}' must end in .mp4.")
    return write_atomic(path, lambda target: _encode(enlarged(video, height), target, dict(recipe or {})))


def _encode(video: Video, target: Path, recipe: dict[str, Any]) -> None:
    import imageio.v3 as iio

    # Else ffmpeg is started by fork: slow where a large model is held, and unsafe beside other threads.
    os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")
    frames = video.frames
    margin = ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0))  # yuv420p wants even sizes
    plain, heard = target.with_suffix(".frames.tmp"), target.with_suffix(".sound.tmp")
    text = "".join(f"\\{c}" if c in "\\=;#\n" else c for c in json.dumps(recipe, ensure_ascii=True))
    try:
        iio.imwrite(
            plain,
            np.pad(frames, margin, mode="edge"),
            plugin="FFMPEG",
            extension=".mp4",
            fps=Fraction(video.fps).limit_denominator(1001),
            codec="libx264",
            quality=None,
            macro_block_size=2,
            output_params=_COLOURS.split(),
        )
        command = [ffmpeg(), "-v", "quiet", "-y", "-i", str(plain), *_RECIPE_INPUT.split()]
        if video.sound is not None:
            video.sound.save(heard)
            command += ["-f", "wav", "-i", str(heard), "-map", "2:a"]
        command += [*_RECIPE.split(), str(target)]
        subprocess.run(command, input=f";FFMETADATA1\ncomment={text}\n".encode(), check=True)
    except (OSError, subprocess.CalledProcessError) as e:
        raise OSError("ffmpeg failed, as on a full disk") from e
    finally:
        plain.unlink(missing_ok=True)
        heard.unlink(missing_ok=True)


def load_video(path: Path, *, limit: int = MAX_READ_BYTES) -> tuple[Video, dict[str, Any]]:
    """Read an mp4 and the recipe in its comment tag ({} where there is none).

    It is decoded in a child process, as decoders of damaged files do anything.

    Args:
        path: of an mp4.
        limit: most bytes of decoded frames; raise it for long videos that you trust.

    Raises:
        FileError: no readable video, or one of too many frames or pixels, or that takes too long.
    """
    path = Path(path)
    with open_ordinary(path, MAX_FILE) as file:
        try:
            comment = _read_comment(file)
            with decoding(file, _FRAMES) as stream:
                video = _read_frames(stream, path.name, limit)
        except TimeoutError as e:
            raise FileError(f"{path.name} takes too long to be read; choose a shorter video.") from e
        except (OSError, ValueError, MemoryError) as e:
            raise FileError(f"{path.name} cannot be read as a video; choose an mp4.") from e
    return video, _recipe(comment)


def load_recipe(path: Path) -> dict[str, Any]:
    """Read what makes a video again, from its comment tag or from JSON ({} where there is none).

    No frame is decoded, so that videos of any length are read.

    Raises:
        FileError: no readable mp4 and no JSON.
    """
    path = Path(path)
    with open_ordinary(path, MAX_FILE) as file:
        try:
            text = file.read(MAX_RECIPE + 1) if path.suffix.lower() == ".json" else None
            if text is None:
                return _recipe(_read_comment(file))
            found = parse_json(text)
        except (OSError, ValueError, MemoryError) as e:
            raise FileError(f"{path.name} cannot be read; give an mp4, or the recipe.json of one.") from e
    return found if isinstance(found, dict) else {}


def _read_comment(file: BinaryIO) -> str:
    with decoding(file, "-f ffmetadata") as stream:
        return _comment(stream.read(2 * MAX_RECIPE))


def _read_frames(stream: IO[bytes], name: str, limit: int) -> Video:
    """Return the video of a YUV4MPEG stream whose planes are red, green and blue.

    Its frames lie in one array, whose pages are taken as they are filled.
    """
    sizes = re.fullmatch(rb"YUV4MPEG2 W([1-9]\d*) H([1-9]\d*) F(\d+):(\d+) .*C444.*\n", stream.readline(500))
    if sizes is None:
        raise ValueError("no frames")
    width, height, rate, per = map(int, sizes.groups())
    if height * width > MAX_READ_PIXELS:
        raise FileError(f"{name} has frames of {width} x {height}; make it smaller.")
    frames = np.empty((min(MAX_READ_FRAMES, limit // (height * width * 3)), height, width, 3), np.uint8)
    count = 0
    while stream.readline(500):
        if count == len(frames):
            raise FileError(f"{name} has over {count} frames of {width} x {height}; cut it shorter.")
        planes = np.frombuffer(stream.read(3 * height * width), np.uint8)
        frames[count] = planes.reshape(3, height, width).transpose(1, 2, 0)  # ValueError: half a frame
        count += 1
    return Video(frames[:count], rate / per if per else 0.0)


def _comment(metadata: bytes) -> str:
    """Return the comment in what ffmpeg writes of a file's tags; a line ends where no backslash stands."""
    for line in re.findall(rb"(?:[^\\\n]|\\.)+", metadata, re.DOTALL):
        if line.startswith(b"comment="):
            return re.sub(rb"\\(.)", rb"\1", line[8:], flags=re.DOTALL).decode("utf-8", "replace")
    return "{}"


def _recipe(comment: str) -> dict[str, Any]:
    try:
        found = parse_json(comment) if len(comment) <= MAX_RECIPE else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
