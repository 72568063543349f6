"""Judging videos that are already there: a folder a side, made by whatever model and sampler.

For models that this project does not run itself, such as Open-Sora: ``<folder>/<category>/<number>.mp4``,
the number counting a category's prompts from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from refusal_core.edit import versions
from refusal_core.errors import FileError
from refusal_core.evaluate.measures.journal import Measured
from refusal_core.evaluate.methods.treatments import ORIGINAL
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.run import cells_of, unjudged
from refusal_core.evaluate.scoring import Scoring, frame_quality
from refusal_core.evaluate.suites.items import Group, Suite, batches
from refusal_core.io.video import Video, load_video
from refusal_core.progress import Progress, silent


def judge_folders(
    folders: Mapping[str, Path], suite: Suite, scoring: Scoring, progress: Progress = silent
) -> Report:
    """Score the videos of each side and count.

    Args:
        folders: by method; ``original`` among them gives what the others are compared with.
        suite: which videos there should be, and what is looked for in them.
        scoring: the judge; of ordinary groups, likeness to the original is measured as well.
        progress: told per group and method.

    Raises:
        FileError: a video is missing or damaged; the sentence names it.
    """
    work = [(name, group) for name in folders for group in suite]
    table = {}
    for number, (name, group) in enumerate(work):
        progress(number / len(work), f"{name}, {group.name}")
        table[name, group.name] = _measured(folders, name, group, scoring)
    seeds = [item.seed for group in suite for item in group.items]
    notes = [f"{name}, {group}: {note}" for (name, group), parts in table.items() for note in unjudged(parts)]
    return Report(
        model="videos from folders",
        concept=suite.name,
        cells=tuple(cells_of(table, suite)),
        suite=suite.name,
        judge=scoring.name,
        seeds=(min(seeds), max(seeds)),
        versions=versions(),
        notes=(*suite.notes, *notes),
    )


def videos_in(folder: Path) -> list[Video]:
    """Return all videos of a folder and the folders in it, by name.

    Raises:
        FileError: there is no such folder, none in it, or one is damaged.
    """
    if not folder.is_dir():
        raise FileError(f"{folder.name} is no folder; give one that holds .mp4 files.")
    paths = sorted(folder.rglob("*.mp4"))
    if not paths:
        raise FileError(f"{folder.name} holds no .mp4 file; make the videos first.")
    return [load_video(path)[0] for path in paths]


def _measured(folders: Mapping[str, Path], name: str, group: Group, scoring: Scoring) -> list[Measured]:
    before = folders.get(ORIGINAL) if name != ORIGINAL else None
    measured, first = [], 0
    for items in batches(group.items, scoring.batch):
        numbers = range(first, first + len(items))
        first += len(items)
        videos = [_video(folders[name], group, n) for n in numbers]
        quality = {}
        if scoring.quality:
            originals = [_video(before, group, n) for n in numbers] if before else None
            quality = frame_quality(originals, videos, ordinary=group.ordinary)
        measured.append(scoring.score(videos, items, group, quality))
    return measured


def _video(folder: Path, group: Group, number: int) -> Video:
    path = folder / group.name / f"{number}.mp4"
    if not path.is_file():
        raise FileError(f"{folder.name}/{group.name}/{number}.mp4 is missing; make all videos first.")
    return load_video(path)[0]
