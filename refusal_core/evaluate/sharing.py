"""Evaluations that several processes share through one folder; the first of them merges and prints."""

from __future__ import annotations

import os
import time
from pathlib import Path

from refusal_core.concepts import Preset, load_preset
from refusal_core.errors import InputError
from refusal_core.evaluate.journal import Journal
from refusal_core.evaluate.methods import DEFAULT_METHODS, METHOD_NAMES
from refusal_core.evaluate.report import Report
from refusal_core.evaluate.run import evaluate, run_share
from refusal_core.evaluate.suites import toyworld_suite
from refusal_core.models.load import load_model
from refusal_core.progress import Progress, part
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import load_judge

STALE = 120.0  # seconds without a sign of life after which another process counts as gone
SETS = {"standard": DEFAULT_METHODS, "all": METHOD_NAMES}


def evaluate_shared(
    model: str, presets: str, videos: int, methods: str, work: Path | None, progress: Progress
) -> list[Report] | None:
    """Evaluate presets, in one process or as one of several.

    Args:
        model: name of the model.
        presets: names with commas between, a path, or ``all``.
        videos: a cell.
        methods: names with commas between, ``standard`` or ``all``.
        work: folder of the readings; needed where processes share.
        progress: told per batch.

    Returns:
        A report a preset; None in a process that is not the first.
    """
    rank, workers = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if workers > 1 and work is None:
        raise InputError("Several processes share their work through a folder; give --work.")
    names = tuple(world.CONCEPTS) if presets == "all" else [p.strip() for p in presets.split(",")]
    chosen = [load_preset(name) for name in names]
    wanted = SETS.get(methods) or tuple(m.strip() for m in methods.split(","))
    if unknown := [m for m in wanted if m not in METHOD_NAMES]:
        raise InputError(f"Method '{unknown[0]}' is not known; choose from {', '.join(METHOD_NAMES)}.")
    suites = {p.concept.name: toyworld_suite(p.concept.name, videos) for p in chosen}
    loaded, judge = load_model(model, progress=part(progress, 0.0, 0.02)), load_judge()
    journal = Journal(work, rank) if work else None
    if workers > 1 and journal and work:
        mark = work / f"{rank}.done"
        mark.unlink(missing_ok=True)
        run_share(loaded, chosen, suites, judge, wanted, journal, (rank, workers), progress)
        mark.touch()
        if rank:
            return None
        _wait(work, workers)
        journal = Journal(work, rank)
    return [
        evaluate(
            loaded,
            preset,
            suites[preset.concept.name],
            judge,
            wanted,
            journal=journal,
            progress=_titled(part(progress, i / len(chosen), (i + 1) / len(chosen)), preset),
        )
        for i, preset in enumerate(chosen)
    ]


def _titled(progress: Progress, preset: Preset) -> Progress:
    return lambda fraction, sentence: progress(fraction, f"{preset.title}: {sentence}")


def _wait(work: Path, workers: int) -> None:
    """Wait for the other processes; what one that is gone has left undone is made by this one."""
    started = time.time()
    for rank in range(1, workers):
        while not (work / f"{rank}.done").exists():
            readings = list(work.glob(f"{rank}.readings.jsonl"))
            alive = max([started, *(p.stat().st_mtime for p in readings)])
            if time.time() - alive > STALE:
                break
            time.sleep(0.5)
