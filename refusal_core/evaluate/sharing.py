"""Work that several processes share through one folder; the first of them merges.

On a CPU, one process with a thread for each core does less than as many processes with one thread each,
and a fixed number of threads gives the same figures however many processes there are. On GPUs and on several
machines processes are started, watched and ended by ``accelerate launch``.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from refusal_core.errors import InputError, RefusalError
from refusal_core.evaluate.measures.metrics import flow_in_one_thread
from refusal_core.evaluate.setup import Result, Setup, Share, SharedJob, open_setup
from refusal_core.models.load import BUNDLED
from refusal_core.models.threads import one_thread
from refusal_core.progress import Progress, part, silent

MIN_SHARED = 100  # videos a group under which starting more processes costs more than it gives
WORKER_BYTES = 3 << 29  # of memory that a process takes with a bundled model, torch and diffusers
PATIENCE = timedelta(days=30)  # with processes that live; those that do not are noticed at once
CGROUP = Path("/sys/fs/cgroup")
log = logging.getLogger(__name__)


def run_shared(job: SharedJob[Result], progress: Progress) -> Result | None:
    """Do a job in one process, or as one of several.

    Under a launcher (it sets RANK and WORLD_SIZE) this process does its part; otherwise it starts as many
    more on this machine as help.

    Returns:
        The whole result; None in a process that is not the first.

    Raises:
        InputError: processes share without a folder, or cannot find one another.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if launched and job.work is None:
        raise InputError("Several processes share their work through a folder; give --work.")
    with one_thread_if_small(job):
        job.judging.check()
        if launched and job.work is not None:
            return _as_launched(job, job.work, progress)
        count = _helpful_workers(job) if job.workers is None else job.workers
        if count == 1:
            setup = open_setup(job, job.work, Share(), part(progress, 0.0, 0.02))
            return job.run(setup, part(progress, 0.02, 1.0))
        with _folder(job) as folder, Workers(job, folder, count) as workers:
            setup = make_share(job, folder, Share(0, count), workers.watched(part(progress, 0.0, 0.9)))
            workers.wait(part(progress, 0.9, 0.95))
            return job.run(setup.merging(), part(progress, 0.95, 1.0))


def make_share(job: SharedJob[Any], folder: Path, share: Share, progress: Progress) -> Setup:
    """Do one's part of a job; return the setup it was done with, as a model is loaded but once."""
    setup = open_setup(job, folder, share, part(progress, 0.0, 0.02))
    job.run(setup, part(progress, 0.02, 1.0))
    return setup


def _as_launched(job: SharedJob[Result], folder: Path, progress: Progress) -> Result | None:
    """Do one's part among a launcher's processes; the first one then makes what is missing, and merges."""
    import torch
    from accelerate import PartialState

    try:
        state = PartialState(cpu=True)  # over sockets: what is shared is a sign that each is done
    except (ValueError, RuntimeError) as e:
        raise InputError(f"The processes cannot find one another ({e}); use accelerate launch.") from e
    try:
        share = Share(state.process_index, state.num_processes)
        setup = make_share(job, folder, share, part(progress, 0.0, 0.9))
        with suppress(RuntimeError):  # one is gone, and no launcher has ended us: the first makes its part
            torch.distributed.monitored_barrier(timeout=PATIENCE)
        return job.run(setup.merging(), part(progress, 0.9, 1.0)) if state.is_main_process else None
    finally:
        state.destroy_process_group()


def _helpful_workers(job: SharedJob[Any]) -> int:
    import torch

    small = job.model in BUNDLED and not torch.cuda.is_available()
    if not small or (job.videos is not None and job.videos < MIN_SHARED):
        return 1
    return max(1, min(usable_cores(), usable_memory() // WORKER_BYTES))


def usable_cores() -> int:
    """Return how many cores this process may use: in a container often fewer than the machine has."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such limit: "max"
        quota, period = map(int, (CGROUP / "cpu.max").read_text().split())
        cores = min(cores, quota // period)
    return max(1, cores)


def usable_memory() -> int:
    """Return how many bytes are free: in a container often fewer than on the machine."""
    import psutil

    free: int = psutil.virtual_memory().available
    with suppress(OSError, ValueError):
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, max(0, limit - used))
    return free


@contextmanager
def one_thread_if_small(job: SharedJob[Any]) -> Iterator[None]:
    """Compute a bundled model in one thread: sums are then added in one order, whatever shares the work."""
    import torch

    if job.model not in BUNDLED:
        yield
        return
    with one_thread(torch.get_num_threads, torch.set_num_threads), flow_in_one_thread():
        yield


@contextmanager
def _folder(job: SharedJob[Any]) -> Iterator[Path]:
    if job.work is not None:
        job.work.mkdir(parents=True, exist_ok=True)
        yield job.work
        return
    with tempfile.TemporaryDirectory(prefix="refusal-studio-") as name:
        yield Path(name)


_CHILD = "import sys; from refusal_core.evaluate.sharing import child; child(sys.argv[1])"


def child(order: str) -> None:
    """Do what the first process ordered, as JSON; a known failure is one sentence on stderr, exit code 2."""
    from refusal_core.evaluate.attacking import Attacking
    from refusal_core.evaluate.evaluation import Evaluation
    from refusal_core.evaluate.reproduction import Reproduction
    from refusal_core.evaluate.sweep import Sweep

    kinds: dict[str, Any] = {kind.__name__: kind for kind in (Attacking, Evaluation, Reproduction, Sweep)}
    plain = json.loads(order)
    try:
        job: SharedJob[Any] = TypeAdapter(kinds[plain["job"]]).validate_python(plain["settings"])
        with one_thread_if_small(job):
            make_share(job, Path(plain["folder"]), Share(plain["rank"], plain["workers"]), silent)
    except RefusalError as e:
        print(e, file=sys.stderr)
        raise SystemExit(2) from None


class Workers:
    """The other processes of this machine, watched; what one leaves undone that ends, the first makes."""

    def __init__(self, job: SharedJob[Any], folder: Path, count: int) -> None:
        self._count = count
        self._running: dict[int, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        settings = TypeAdapter(type(job)).dump_python(job, mode="json")
        order = {"job": type(job).__name__, "settings": settings, "folder": str(folder), "workers": count}
        for rank in range(1, count):
            errors = tempfile.TemporaryFile()
            words = [sys.executable, "-c", _CHILD, json.dumps({**order, "rank": rank})]
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors)
            self._running[rank] = process, errors

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process, errors in self._running.values():
            process.terminate()
            process.wait()
            errors.close()

    def watched(self, progress: Progress) -> Progress:
        """Return a progress that also looks after the processes."""

        def tell(fraction: float, sentence: str) -> None:
            self.look()
            progress(fraction, sentence)

        return tell

    def look(self) -> None:
        """Say which processes ended early since the last look, and with which last words."""
        for rank, (process, errors) in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[rank]
            with errors:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
            if process.returncode:
                last = said[-1] if said else f"exit code {process.returncode}"
                log.warning("Process %d of %d ended early: %s", rank + 1, self._count, last)

    def wait(self, progress: Progress) -> None:
        """Return once all have ended."""
        while self._running:
            progress(1 - len(self._running) / self._count, "Waiting for the other processes")
            self.look()
            time.sleep(0.1)
