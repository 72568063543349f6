"""ffmpeg as a child with limits, which decodes what strangers send. Knows no arrays."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

from refusal_core.errors import MissingExtraError

SECONDS = 60.0  # of the clock, for one file
MEMORY = 1 << 30  # bytes of addresses

# Only the file that is open already, and as an mp4: by a name ffmpeg follows playlists to other files and
# hosts, and left to itself it takes any of 300 formats. Two threads: each takes memory.
_INPUT = "-nostdin -v quiet -xerror -err_detect explode -threads 2 -protocol_whitelist fd -f mov -fd 0 -i fd:"


def ffmpeg() -> str:
    """Return where ffmpeg is; raises MissingExtraError where it comes with no package for this system."""
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as e:
        raise MissingExtraError(
            "There is no ffmpeg; install it, or set IMAGEIO_FFMPEG_EXE to its path."
        ) from e


@contextmanager
def decoding(file: BinaryIO, arguments: str) -> Iterator[IO[bytes]]:
    """Yield what ffmpeg makes of an open mp4, as a stream that need not be read to its end.

    Args:
        file: the mp4, from its beginning.
        arguments: what to make of it: ffmpeg's options for its output, with spaces between them.

    Raises:
        ValueError: ffmpeg failed, as on a damaged file or for want of memory.
        TimeoutError: it took longer than ``SECONDS``.
    """
    file.seek(0)
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}  # no secrets
    child = subprocess.Popen(
        [ffmpeg(), *f"{_INPUT} -filter_threads 2 {arguments} pipe:1".split()],
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**kept, "MALLOC_ARENA_MAX": "1"},  # one for each thread would take 64 MB of addresses each
    )
    start, alarm = time.monotonic(), threading.Timer(SECONDS, child.kill)
    alarm.start()
    assert child.stdout is not None
    try:
        _limit(child.pid)
        yield child.stdout
        if not child.stdout.read(1) and child.wait():
            raise ValueError("ffmpeg failed")
    except ValueError as e:
        if time.monotonic() - start >= SECONDS:
            raise TimeoutError from e
        raise
    finally:
        alarm.cancel()
        child.kill()
        child.wait()
        child.stdout.close()


def _limit(child: int) -> None:
    """Keep a child from taking much memory and from writing files, where the system can.

    Set from outside, as it starts: code that runs between fork and exec can hang where other threads
    hold locks, and to fork a process that holds a large model takes long.
    """
    try:
        import resource

        for kind, most in (
            (resource.RLIMIT_AS, MEMORY),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.prlimit(child, kind, (most, most))
    except (ImportError, AttributeError, OSError):  # Windows; macOS; or it has ended already
        return
