"""Evaluations that several processes share through one folder; the first of them merges and prints.

On a CPU, one process with a thread for each core does less than as many processes with one thread each,
and a fixed number of threads gives the same figures however many processes there are.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from refusal_core.concepts import Preset, load_preset
from refusal_core.errors import InputError
from refusal_core.evaluate.journal import Journal
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.methods import DEFAULT_METHODS, METHOD_NAMES
from refusal_core.evaluate.report import Report
from refusal_core.evaluate.run import Reading, Share, evaluate
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.toyworld import together_suite, toyworld_suite
from refusal_core.models.load import BUNDLED, load_model
from refusal_core.progress import Progress, part
from refusal_core.toyworld import world

STALE = 120.0  # seconds without a sign of life after which another process counts as gone
SETS = {"standard": DEFAULT_METHODS, "all": METHOD_NAMES}
MIN_SHARED = 100  # videos a group under which starting more processes costs more than it gives


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be evaluated."""

    model: str = "toyworld"
    presets: str = "fire"  # names with commas between, a path, or all
    videos: int = 200  # a group
    methods: str = "standard"  # names with commas between, standard, or all
    together: bool = False  # erase all presets' concepts at once
    work: Path | None = None  # the readings; needed where processes share
    workers: int | None = None  # processes on this machine; None: as many as help

    def chosen_presets(self) -> list[Preset]:
        """Return the presets; raises as ``load_preset`` does."""
        names = world.CONCEPTS if self.presets == "all" else [p.strip() for p in self.presets.split(",")]
        return [load_preset(name) for name in names]

    def chosen_methods(self) -> tuple[str, ...]:
        """Return the methods.

        Raises:
            InputError: one is not known.
        """
        wanted = SETS.get(self.methods) or tuple(m.strip() for m in self.methods.split(","))
        if unknown := [m for m in wanted if m not in METHOD_NAMES]:
            raise InputError(f"Method '{unknown[0]}' is not known; choose from {', '.join(METHOD_NAMES)}.")
        return wanted

    def runs(self) -> list[tuple[tuple[Preset, ...], Suite]]:
        """Return what is erased at once, and the suite it is tried on."""
        presets = self.chosen_presets()
        if self.together:
            names = [p.concept.name for p in presets]
            return [(tuple(presets), together_suite(names, self.videos))]
        return [((p,), toyworld_suite(p.concept.name, self.videos)) for p in presets]


def evaluate_shared(plan: Plan, progress: Progress) -> list[Report] | None:
    """Evaluate a plan, in one process or as one of several.

    Args:
        plan: what is evaluated.
        progress: told per batch and method.

    Returns:
        A report a preset, or one for all together; None in a process that is not the first.

    Raises:
        InputError: something in the plan is not known, or processes share without a folder.
    """
    plan.chosen_methods(), plan.runs()  # checked before a process is started
    rank, workers = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if workers > 1 and plan.work is None:
        raise InputError("Several processes share their work through a folder; give --work.")
    with _one_thread(plan):
        if workers > 1:
            return _as_one_of(plan, Share(rank, workers), progress)
        count = _helpful_workers(plan) if plan.workers is None else plan.workers
        if count == 1:
            return _evaluate(plan, progress)
        with _folder(plan) as folder, _started(replace(plan, work=folder), count):
            return _as_one_of(replace(plan, work=folder), Share(0, count), progress)


def _helpful_workers(plan: Plan) -> int:
    import torch

    small = plan.model in BUNDLED and not torch.cuda.is_available()
    return (os.cpu_count() or 1) if small and plan.videos >= MIN_SHARED else 1


@contextmanager
def _one_thread(plan: Plan) -> Iterator[None]:
    """Compute a bundled model in one thread: sums are then added in one order, whatever shares the work."""
    import torch

    before = torch.get_num_threads()
    try:
        if plan.model in BUNDLED:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _folder(plan: Plan) -> Iterator[Path]:
    if plan.work is not None:
        yield plan.work
        return
    with tempfile.TemporaryDirectory(prefix="refusal-studio-") as name:
        yield Path(name)


@contextmanager
def _started(plan: Plan, count: int) -> Iterator[None]:
    """Run the other processes of this machine while the block runs; end them with it."""
    command = [sys.executable, "-m", "refusal_core", "evaluate", "--model", plan.model]
    command += ["--preset", plan.presets, "--videos", str(plan.videos), "--methods", plan.methods]
    command += ["--work", str(plan.work), *(["--together"] if plan.together else [])]
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


def _as_one_of(plan: Plan, share: Share, progress: Progress) -> list[Report] | None:
    """Make one's share; the first process then waits, makes what is still missing, and merges."""
    assert plan.work is not None
    mark = plan.work / f"{share.rank}.done"
    mark.unlink(missing_ok=True)
    first = share.rank == 0
    _evaluate(plan, part(progress, 0.0, 0.9 if first else 1.0), share)
    mark.touch()
    if not first:
        return None
    _wait(plan.work, share.workers, part(progress, 0.9, 0.95))
    return _evaluate(plan, part(progress, 0.95, 1.0))


def _evaluate(plan: Plan, progress: Progress, share: Share | None = None) -> list[Report]:
    model = load_model(plan.model, progress=part(progress, 0.0, 0.01))
    reading = Reading(toyworld_judge(), "toyworld", samples=plan.work / "samples" if plan.work else None)
    journal = Journal(plan.work, share.rank if share else 0)
    runs, methods = plan.runs(), plan.chosen_methods()
    reports = []
    for i, (presets, suite) in enumerate(runs):
        step = _titled(part(progress, i / len(runs), (i + 1) / len(runs)), presets)
        reports.append(
            evaluate(model, presets, suite, reading, methods, journal=journal, share=share, progress=step)
        )
    return reports


def _titled(progress: Progress, presets: Sequence[Preset]) -> Progress:
    title = presets[0].title if len(presets) == 1 else f"{len(presets)} concepts"
    return lambda fraction, sentence: progress(fraction, f"{title}: {sentence}")


def _wait(work: Path, workers: int, progress: Progress) -> None:
    """Wait for the other processes; what one that is gone has left undone is made by this one."""
    started = time.time()
    for rank in range(1, workers):
        progress(rank / workers, "Waiting for the other processes")
        while not (work / f"{rank}.done").exists():
            readings = list(work.glob(f"{rank}.readings.jsonl"))
            alive = max([started, *(p.stat().st_mtime for p in readings)])
            if time.time() - alive > STALE:
                break
            time.sleep(0.2)
