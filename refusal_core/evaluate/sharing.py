"""Work that several processes share through one folder; the first of them merges.

On a CPU, one process with a thread for each core does less than as many processes with one thread each,
and a fixed number of threads gives the same figures however many processes there are.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from refusal_core.errors import InputError
from refusal_core.evaluate.measures.metrics import flow_in_one_thread
from refusal_core.evaluate.run import Share
from refusal_core.models.load import BUNDLED
from refusal_core.models.threads import one_thread
from refusal_core.progress import Progress, part

BEAT = 5.0  # seconds between two signs of life
STALE = 120.0  # seconds without a sign of life after which another process counts as gone
MIN_SHARED = 100  # videos a group under which starting more processes costs more than it gives
T = TypeVar("T", covariant=True)


class Job(Protocol[T]):
    """Work that can be done in parts: what is to be done, and how it is done."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def videos(self) -> int | None:
        """Videos a group; None: the usual number."""

    @property
    def work(self) -> Path | None:
        """The folder of the readings; needed where processes share."""

    @property
    def workers(self) -> int | None:
        """Processes on this machine; None: as many as help."""

    def arguments(self) -> Sequence[str]:
        """Return the command line of another process that does a part, but for ``--work``."""

    def run(self, work: Path | None, share: Share | None, progress: Progress) -> T:
        """Do a part, keeping readings in ``work``; with None, merge what is there and do what is missing."""


def run_shared(job: Job[T], progress: Progress) -> T | None:
    """Do a job in one process, or as one of several.

    Under a launcher that sets RANK and WORLD_SIZE this process does its part; otherwise it starts as many
    more on this machine as help.

    Returns:
        The whole result; None in a process that is not the first.

    Raises:
        InputError: processes share without a folder.
    """
    rank, workers = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    with _one_thread(job):
        if workers > 1:
            if job.work is None:
                raise InputError("Several processes share their work through a folder; give --work.")
            return _as_one_of(job, job.work, Share(rank, workers), progress)
        count = _helpful_workers(job) if job.workers is None else job.workers
        if count == 1:
            return job.run(job.work, Share(), progress)
        with _folder(job) as folder, _started(job, folder, count):
            return _as_one_of(job, folder, Share(0, count), progress)


def _helpful_workers(job: Job[T]) -> int:
    import torch

    small = job.model in BUNDLED and not torch.cuda.is_available()
    return (os.cpu_count() or 1) if small and (job.videos is None or job.videos >= MIN_SHARED) else 1


@contextmanager
def _one_thread(job: Job[T]) -> Iterator[None]:
    """Compute a bundled model in one thread: sums are then added in one order, whatever shares the work."""
    import torch

    if job.model not in BUNDLED:
        yield
        return
    with one_thread(torch.get_num_threads, torch.set_num_threads), flow_in_one_thread():
        yield


@contextmanager
def _folder(job: Job[T]) -> Iterator[Path]:
    if job.work is not None:
        yield job.work
        return
    with tempfile.TemporaryDirectory(prefix="refusal-studio-") as name:
        yield Path(name)


@contextmanager
def _started(job: Job[T], folder: Path, count: int) -> Iterator[None]:
    """Run the other processes of this machine while the block runs; end them with it."""
    command = [sys.executable, "-m", "refusal_core", *job.arguments(), "--work", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    others = [
        subprocess.Popen(command, env={**os.environ, "RANK": str(i), "WORLD_SIZE": str(count)}, **quiet)
        for i in range(1, count)
    ]
    try:
        yield
    finally:
        for process in others:
            process.terminate()
            process.wait()


def _as_one_of(job: Job[T], folder: Path, share: Share, progress: Progress) -> T | None:
    """Do one's part; the first process then waits, makes what is still missing, and merges."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"{share.rank}.done"
    mark.unlink(missing_ok=True)
    first = share.rank == 0
    with _heartbeat(folder / f"{share.rank}.alive"):
        job.run(folder, share, part(progress, 0.0, 0.9 if first else 1.0))
    mark.touch()
    if not first:
        return None
    _wait(folder, share.workers, part(progress, 0.9, 0.95))
    return job.run(folder, None, part(progress, 0.95, 1.0))


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let the processes that share a folder run the block one after the other, where the system has locks."""
    try:
        import fcntl
    except ImportError:  # Windows: they run it at once
        yield
        return
    with (folder / "turn.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, also by a kill
        yield


@contextmanager
def _heartbeat(path: Path) -> Iterator[None]:
    """Touch a file every few seconds while the block runs: a step of a large model may take minutes."""
    ended = threading.Event()

    def beat() -> None:
        while True:
            with suppress(OSError):  # a full disk shows where readings are written
                path.touch()
            if ended.wait(BEAT):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _wait(folder: Path, workers: int, progress: Progress) -> None:
    """Wait for the other processes; what one that is gone has left undone is made by this one."""
    started = time.time()
    for rank in range(1, workers):
        progress(rank / workers, "Waiting for the other processes")
        while not (folder / f"{rank}.done").exists():
            sign = folder / f"{rank}.alive"
            alive = max(started, sign.stat().st_mtime if sign.exists() else started)
            if time.time() - alive > STALE:
                break
            time.sleep(0.2)
