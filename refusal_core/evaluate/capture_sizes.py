"""How small a capture may be: directions and edits of small captures against those of a full-size one.

On the bundled models, whose judge knows the truth. The defaults of capture are chosen by what this prints.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from refusal_core.apply import applied
from refusal_core.capturing import capture
from refusal_core.concepts import Preset
from refusal_core.directions import Directions, Estimator
from refusal_core.edit import make_edit
from refusal_core.errors import InputError
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.suites.items import Item, batches
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent
from refusal_core.sampling import generate_batch
from refusal_core.settings import MOST_ROWS, CaptureSettings, Pool, SubspaceSettings
from refusal_core.toyworld import world

BATCH, RANK = 16, 4


@dataclass(frozen=True, slots=True)
class SizeFigures:
    """One size of capture against the full one: shares, and mean cosines over the layers."""

    model: str
    concept: str
    pool: Pool
    capture: str
    seconds: float
    whitened_cosine: float  # of the first direction
    vector_cosine: float  # of the plain refusal vector
    shown: float  # of prompts with the concept, after the edit
    kept: float  # neutral prompts and other concepts that show all they name


def captures(model: Model) -> Mapping[str, CaptureSettings]:
    """Return what is compared, the full size first."""
    d = model.defaults
    full = CaptureSettings(
        kinds=("cross-attention",),
        steps=d.steps,
        frames=d.frames,
        height=d.height,
        width=d.width,
        pair_rows=MOST_ROWS,
        neutral_rows=MOST_ROWS,
    )
    sampled = CaptureSettings(kinds=full.kinds)
    return {
        f"{d.frames} frames, {d.width} x {d.height}, {d.steps} steps": full,
        "6 steps": replace(full, steps=6),
        "3 steps, 3 timesteps": replace(full, steps=3, timesteps=3),
        "short clip": replace(full, frames=None),
        "half the height and width": replace(full, height=d.height // 2, width=d.width // 2),
        "default": sampled,
        "default, 512 neutral rows": replace(sampled, neutral_rows=512),
        "default, 128 pair rows": replace(sampled, pair_rows=128),
        "default, 3 timesteps": replace(sampled, timesteps=3),
    }


def compare_captures(
    model: Model, preset: Preset, videos: int = 16, progress: Progress = silent
) -> list[SizeFigures]:
    """Capture in each size, edit, and judge ``videos`` videos of each kind.

    Raises:
        InputError: the preset is not about a concept of the toy world.
    """
    if preset.concept.name not in world.CONCEPTS:
        raise InputError("The truth is known in the toy world alone; choose a preset of its concepts.")
    pools: tuple[Pool, ...] = ("frame", "token")
    rows = []
    for i, pool in enumerate(pools):
        rows += _compare(model, preset, pool, videos, part(progress, i / len(pools), (i + 1) / len(pools)))
    return rows


def _compare(model: Model, preset: Preset, pool: Pool, videos: int, progress: Progress) -> list[SizeFigures]:
    suite = toyworld_suite(preset.concept.name, videos, "tuning")
    sizes = captures(model)
    full: tuple[Directions, Directions] | None = None
    rows = []
    for number, (name, settings) in enumerate(sizes.items()):
        progress(number / len(sizes), f"{preset.concept.name}, {pool} rows: {name}")
        start = time.perf_counter()
        seen = capture(model, preset.concept, replace(settings, pool=pool))
        seconds = time.perf_counter() - start
        estimator = Estimator(seen)
        whitened = estimator.estimate(SubspaceSettings(rank=RANK))
        plain = estimator.estimate(SubspaceSettings(method="rv"))
        full = full or (whitened, plain)
        with applied(model, make_edit(whitened)):
            shown = _share(model, suite["concept"].items, concept=preset.concept.name)
            kept = fmean(_share(model, suite[group].items) for group in ("neutral", "other-concepts"))
        cosines = (_cosine(whitened, full[0]), _cosine(plain, full[1]))
        rows.append(SizeFigures(model.name, preset.concept.name, pool, name, seconds, *cosines, shown, kept))
    return rows


def _share(model: Model, items: Sequence[Item], concept: str | None = None) -> float:
    """Return the share of videos that show a concept; without one, all that their scene holds."""
    judge = toyworld_judge()
    hits = []
    for chunk in batches(items, BATCH):
        videos = generate_batch(model, [item.prompt for item in chunk], [item.seed for item in chunk])
        for verdict, item in zip(judge(videos, concept or "any"), chunk, strict=True):
            hits.append(verdict.outcome == "unsafe" if concept else _as_asked(verdict.values, item))
    return fmean(hits)


def _as_asked(seen: Mapping[str, object], item: Item) -> bool:
    scene = item.scene
    if scene is None:
        return False
    wanted = {
        "concept": scene.concept or "none",
        "colour": scene.colour,
        "shape": scene.shape,
        "motion": scene.motion,
        "background": scene.background,
    }
    return all(seen[name] == value for name, value in wanted.items())


def _cosine(a: Directions, b: Directions) -> float:
    """Return the mean over sites of |cosine| between the first directions."""
    pairs = [(a.sites[s].remove[0].double(), b.sites[s].remove[0].double()) for s in b.sites if s in a.sites]
    return fmean(float((x @ y).abs() / (x.norm() * y.norm())) for x, y in pairs)
