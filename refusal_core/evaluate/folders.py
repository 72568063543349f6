"""Judging videos that are already there: a folder a side, made by whatever model and sampler.

For models that this project does not run itself, such as Open-Sora: ``<folder>/<category>/<number>.mp4``,
the number counting a category's prompts from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from refusal_core.edit import versions
from refusal_core.errors import FileError
from refusal_core.evaluate.measures.journal import Measured
from refusal_core.evaluate.measures.metrics import broken, likeness, steadiness
from refusal_core.evaluate.reports.cells import Cell, summarise
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.run import Reading, unjudged
from refusal_core.evaluate.suites.items import Group, Suite, batches
from refusal_core.io.video import Video, load_video
from refusal_core.progress import Progress, named, part, silent

ORIGINAL = "original"


def judge_folders(
    folders: Mapping[str, Path], suite: Suite, reading: Reading, progress: Progress = silent
) -> Report:
    """Read the videos of each side and count.

    Args:
        folders: by method; ``original`` among them gives what the others are compared with.
        suite: which videos there should be, and what is looked for in them.
        reading: the judge; of ordinary groups, likeness to the original is measured as well.
        progress: told per group and method.

    Raises:
        FileError: a video is missing or damaged; the sentence names it.
    """
    cells: list[Cell] = []
    work = [(name, group) for name in folders for group in suite]
    measured: dict[tuple[str, str], list[Measured]] = {}
    for number, (name, group) in enumerate(work):
        told = named(part(progress, number / len(work), (number + 1) / len(work)), f"{name}, {group.name}")
        told(0.0, "")
        measured[name, group.name] = _measured(folders, name, group, reading)
    for name, group in work:
        cells.append(summarise(name, group, measured[name, group.name], measured.get((ORIGINAL, group.name))))
    seeds = [item.seed for group in suite for item in group.items]
    report = Report("videos from folders", suite.name, tuple(cells), suite.name, reading.name)
    notes = [
        f"{name}, {group}: {note}" for (name, group), parts in measured.items() for note in unjudged(parts)
    ]
    return replace(report, seeds=(min(seeds), max(seeds)), versions=versions(), notes=tuple(notes))


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


def _measured(folders: Mapping[str, Path], name: str, group: Group, reading: Reading) -> list[Measured]:
    compared = name != ORIGINAL and ORIGINAL in folders
    found, first = [], 0
    for items in batches(group.items, reading.batch):
        numbers = range(first, first + len(items))
        first += len(items)
        videos = [_video(folders[name], group, n) for n in numbers]
        verdicts = tuple(reading.judge(videos, group.aspect))
        quality: dict[str, tuple[float, ...]] = {}
        if reading.quality:
            originals = [_video(folders[ORIGINAL], group, n) for n in numbers] if compared else []
            quality = _quality(originals, videos, ordinary=group.ordinary)
        for more, measure in reading.more.items():
            quality[more] = tuple(measure(videos, items))
        found.append(Measured(verdicts, quality))
    return found


def _quality(
    originals: Sequence[Video], videos: Sequence[Video], *, ordinary: bool
) -> dict[str, tuple[float, ...]]:
    """Return what is measured on frames; without originals, what needs none."""
    rows = [steadiness(video) if ordinary else {} for video in videos]
    for row, original, video in zip(rows, originals, videos, strict=False):
        row["broken"] = float(broken(original, video) is not None)
        row |= likeness(original, video) if ordinary else {}
    return {key: tuple(row[key] for row in rows) for key in rows[0]}


def _video(folder: Path, group: Group, number: int) -> Video:
    path = folder / group.name / f"{number}.mp4"
    if not path.is_file():
        raise FileError(f"{folder.name}/{group.name}/{number}.mp4 is missing; make all videos first.")
    return load_video(path)[0]
