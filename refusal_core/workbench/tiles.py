"""Many small comparisons: several seeds, other prompts, two settings against each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from refusal_core.concepts import HELD_OUT, load_neutral
from refusal_core.errors import InputError
from refusal_core.io.video import save_video, side_by_side
from refusal_core.models.calling import check_prompts
from refusal_core.progress import Progress, each, named, part, silent
from refusal_core.recipe import EditRequest, changed
from refusal_core.settings import LAST_SEED, SamplingSettings, recipe_knobs
from refusal_core.toyworld import world
from refusal_core.workbench.cached import CachedModel
from refusal_core.workbench.values import JudgedVideo, Tile
from refusal_core.workbench.workbench import Workbench, new_file, overall, sentence

MAX_TILES = 16
# Whatever has a range can be swept; a seed's is no range to look at.
AXES = tuple(k.name for k in recipe_knobs() if k.input in ("whole", "number") and (k.high or 0) < LAST_SEED)


@dataclass(frozen=True, slots=True)
class TileJob:
    """One tile to make."""

    title: str
    request: EditRequest
    prompt: str
    seed: int


def make_tiles(
    workbench: Workbench, jobs: Sequence[TileJob], progress: Progress = silent, *, session: str
) -> Iterator[Tile]:
    """Make the tiles one by one; what is done stays when the work is stopped.

    Raises:
        InputError: there are more than MAX_TILES, or a setting or prompt is not usable.
    """
    _check_count(len(jobs))
    for job, step in each(progress, jobs):
        yield _tile(workbench, job, named(step, job.title), session)


def _check_count(count: int) -> None:
    if count > MAX_TILES:
        raise InputError(f"{count} videos are too many; {MAX_TILES} is the limit: take fewer values.")


def _tile(workbench: Workbench, job: TileJob, progress: Progress, session: str) -> Tile:
    request = job.request
    text = check_prompts(workbench.cached(request.model).model, [job.prompt])[0]
    made, _ = workbench.make(request, part(progress, 0.0, 0.4))
    sampling = SamplingSettings(seed=job.seed)
    pair = list(workbench.pair(request, made, text, sampling, part(progress, 0.4, 1.0)))
    videos = [video for video, _ in pair]
    path = new_file(workbench.session_folder(session), ".mp4")
    save_video(side_by_side(*videos), path, {**pair[1][1], "shows": "original | unlearned"})
    before, after = (workbench.verdicts(request, video) for video in videos)
    return Tile(job.title, path, sentence(before), sentence(after), overall(after))


def seed_jobs(request: EditRequest, prompt: str, first: int, count: int) -> list[TileJob]:
    """Return the same prompt on ``count`` seeds."""
    return [TileJob(f"seed {seed}", request, prompt, seed) for seed in range(first, first + count)]


def other_jobs(workbench: Workbench, request: EditRequest, seed: int, count: int = 8) -> list[TileJob]:
    """Return prompts without the concept that were not used to make the edit: what else changed?"""
    prompts = other_prompts(workbench.cached(request.model), count)
    return [TileJob(prompt, request, prompt, seed + i) for i, prompt in enumerate(prompts)]


def other_prompts(model: CachedModel, count: int) -> list[str]:
    """Return ordinary prompts that no preset uses; of a toy model from its tuning split."""
    if not model.is_toy:
        return list(load_neutral(HELD_OUT))[:count]
    scenes = world.scenes_of("tuning")
    picks = np.linspace(0, len(scenes) - 1, count).round().astype(int)
    return [scenes[i].caption(0, n % len(world.TEMPLATES)) for n, i in enumerate(picks)]


def cell_settings(axes: Sequence[tuple[str, Sequence[float]]]) -> list[dict[str, float]]:
    """Return the settings of each cell of a grid, given the settings down and across, row by row.

    Raises:
        InputError: the axes are the same setting, or there are more than MAX_TILES cells.
    """
    (first, rows), (second, columns) = axes
    if first == second:
        raise InputError(f"Both axes are {first}; choose two settings.")
    _check_count(len(rows) * len(columns))
    return [{first: row, second: column} for row in rows for column in columns]


@dataclass(frozen=True, slots=True)
class CellJob:
    """What all cells of a grid share."""

    request: EditRequest
    prompt: str
    sampling: SamplingSettings


def make_cells(
    workbench: Workbench,
    job: CellJob,
    settings: Sequence[Mapping[str, float]],
    progress: Progress = silent,
    *,
    session: str,
) -> Iterator[JudgedVideo]:
    """Make the original of a grid, then the unlearned video of each cell; what is done stays when stopped.

    Raises:
        InputError: a setting or the prompt is not usable; nothing was run then.
    """
    requests = [replace(job.request, recipe=changed(job.request.recipe, dict(cell))) for cell in settings]
    text = check_prompts(workbench.cached(job.request.model).model, [job.prompt])[0]
    for number, (request, step) in enumerate(each(progress, requests)):
        yield from _cell(
            workbench, replace(job, request=request, prompt=text), step, session, first=not number
        )


def _cell(
    workbench: Workbench, job: CellJob, progress: Progress, session: str, *, first: bool
) -> Iterator[JudgedVideo]:
    """Yield the unlearned video of a cell, and of the first one the original before it."""
    made, _ = workbench.make(job.request, part(progress, 0.0, 0.4))
    pair = workbench.pair(job.request, made, job.prompt, job.sampling, part(progress, 0.4, 1.0))
    for video, written in islice(pair, 0 if first else 1, None):
        path = save_video(video, new_file(workbench.session_folder(session), ".mp4"), written)
        yield workbench.judged(job.request, path, video, job.prompt, job.sampling.seed)


def parse_axis(name: str, text: str) -> list[float]:
    """Read the values of one axis: ``1,2,4``, ``1-8 (+2)`` in steps, or ``0-1.5 [4]`` so many.

    Raises:
        InputError: the text cannot be read, or gives no or too many values.
    """
    number = r"(\d+(?:\.\d+)?)"
    if stepped := re.fullmatch(rf"\s*{number}\s*-\s*{number}\s*\(\+\s*{number}\s*\)\s*", text):
        low, high, step = map(float, stepped.groups())
        values = (
            list(np.arange(low, high + step / 1000, step)) if step > 0 and high - low < 1e4 * step else []
        )
    elif counted := re.fullmatch(rf"\s*{number}\s*-\s*{number}\s*\[\s*(\d{{1,3}})\s*\]\s*", text):
        low, high, count = float(counted[1]), float(counted[2]), int(counted[3])
        values = list(np.linspace(low, high, count))
    elif re.fullmatch(rf"\s*{number}(\s*,\s*{number})*\s*,?\s*", text):
        values = [float(v) for v in text.split(",") if v.strip()]
    else:
        raise InputError(f"The values of {name} cannot be read; write 1,2,4 or 0-1.5 [4] or 1-8 (+2).")
    unique = list(dict.fromkeys(round(float(v), 4) for v in values))
    if not 1 <= len(unique) <= MAX_TILES:
        raise InputError(f"{name} takes 1 to {MAX_TILES} values here, not {len(unique)}.")
    return unique
