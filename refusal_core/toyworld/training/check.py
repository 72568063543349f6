"""The check of the bundled model: does the judge see, and does the model draw, what was asked?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.measures.journal import Journal
from refusal_core.evaluate.measures.samples import SHEET_COLOURS, save_picture
from refusal_core.evaluate.methods.treatments import ORIGINAL, plan_method
from refusal_core.evaluate.reports.summary import KEPT, Cell
from refusal_core.evaluate.run import Reading, cells_of, measure
from refusal_core.evaluate.shelf import Shelf
from refusal_core.evaluate.suites.items import Item
from refusal_core.evaluate.suites.toyworld import asked_suite
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent
from refusal_core.sampling import generate_batch
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import ATTRIBUTES, NO_CONCEPT, Judge

HELD_OUT_SEED = 900
JUDGE_GOALS = {name: 0.99 if name == "concept" else 0.97 for name in ATTRIBUTES}
SHOWN_GOAL, ABSENT_GOAL, KEPT_GOAL = 0.95, 0.99, 0.95


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Judge accuracy on rendered clips, and what generated clips show."""

    clips: int
    rendered: Mapping[str, float]  # accuracy on clips as drawn
    decoded: Mapping[str, float]  # accuracy on the same clips put through the autoencoder
    cells: tuple[Cell, ...]  # one a concept, and one without

    def lines(self) -> list[str]:
        """Return the report as a table in Markdown; a missed goal is marked, never hidden."""
        lines = [
            f"Judge, {self.clips} held-out rendered clips",
            "",
            "| attribute | as drawn | through the autoencoder | goal | |",
            "|---|---|---|---|---|",
        ]
        for name, goal in JUDGE_GOALS.items():
            a, b = self.rendered[name], self.decoded[name]
            lines.append(f"| {name} | {a:.1%} | {b:.1%} | {goal:.0%} | {_mark(min(a, b) >= goal)} |")
        lines += ["", f"Generated clips, {self.cells[0].n} a row", ""]
        lines += [
            "| asked | concept as asked | goal | " + " | ".join(KEPT) + " | |",
            "|---" * (4 + len(KEPT)) + "|",
        ]
        for c in self.cells:
            goal = ABSENT_GOAL if c.prompts == "none" else SHOWN_GOAL
            good = (c.shown.rate or 0) >= goal and all(v >= KEPT_GOAL for v in c.kept.values())
            kept = " | ".join(f"{c.kept[name]:.1%}" for name in KEPT)
            lines.append(f"| {c.prompts} | {c.shown.rate:.1%} | {goal:.0%} | {kept} | {_mark(good)} |")
        lines += ["", f"Goal for colour, shape, motion and background: {KEPT_GOAL:.0%}."]
        return lines


def _mark(good: bool) -> str:
    return "reached" if good else "MISSED"


def check(model: Model, judge: Judge, videos: int = 200, *, progress: Progress = silent) -> CheckReport:
    """Measure the judge on held-out clips and the model on evaluation prompts."""
    scenes, clips = _held_out(600)
    progress(0.02, "Judging rendered clips")
    rendered = _accuracy(judge, scenes, clips)
    decoded = _accuracy(judge, scenes, _through_autoencoder(model, clips))
    suite, journal = asked_suite(videos), Journal()
    reading = Reading(toyworld_judge(judge), "toyworld", quality=False)
    shelf = Shelf({ORIGINAL: plan_method(model, (), ORIGINAL)}, journal)
    table = measure(model, shelf, suite, reading, journal, progress=part(progress, 0.1, 1.0))
    return CheckReport(len(scenes), rendered, decoded, tuple(cells_of(table, suite)))


def _held_out(count: int) -> tuple[list[world.Scene], list[NDArray[np.uint8]]]:
    rng = np.random.default_rng(HELD_OUT_SEED)
    scenes = [world.random_scene(rng) for _ in range(count)]
    return scenes, [world.render(scene, 900_000_000 + i) for i, scene in enumerate(scenes)]


def _through_autoencoder(model: Model, clips: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    import torch

    from refusal_core.toyworld.training.train import decode_clips, encode_clips

    batch = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)
    autoencoder = model.pipeline.vae
    by_frame = model.family.name == "unet3d"  # its autoencoder knows images only
    count, frames = len(batch), batch.shape[2]
    if by_frame:
        batch = batch.transpose(1, 2).flatten(0, 1)
    decoded = decode_clips(autoencoder, encode_clips(autoencoder, batch))
    if by_frame:
        decoded = decoded.unflatten(0, (count, frames)).transpose(1, 2)
    return list(decoded.permute(0, 2, 3, 4, 1).numpy())


def _accuracy(
    judge: Judge, scenes: Sequence[world.Scene], clips: Sequence[NDArray[np.uint8]]
) -> dict[str, float]:
    readings = [r for i in range(0, len(clips), 100) for r in judge.read(clips[i : i + 100])]
    return {
        name: float(
            np.mean(
                [
                    r.values[name] == (getattr(s, name) or NO_CONCEPT)
                    for s, r in zip(scenes, readings, strict=True)
                ]
            )
        )
        for name in ATTRIBUTES
    }


def sheet_items(concept: str | None, count: int) -> list[Item]:
    """Return a few varied captions of one concept for a contact sheet."""
    scenes = [s for s in world.scenes_of("tuning") if s.size == "large"]
    chosen = scenes[:: max(1, len(scenes) // count)][:count]
    phrases = len(world.CONCEPTS[concept]) if concept else 1
    return [
        Item(replace(s, concept=concept).caption(i % phrases), 70_000 + i, replace(s, concept=concept))
        for i, s in enumerate(chosen)
    ]


def contact_sheet(clips: Sequence[NDArray[np.uint8]], columns: int = 2, frames: int = 5) -> NDArray[np.uint8]:
    """Return clips [T, H, W, 3] as strips of ``frames`` frames each, enlarged twice, in columns."""
    strips = []
    for clip in clips:
        picks = np.linspace(0, len(clip) - 1, frames).round().astype(int)
        strip = np.concatenate(
            [np.pad(clip[t], ((1, 1), (1, 1), (0, 0)), constant_values=235) for t in picks], 1
        )
        strips.append(np.pad(strip, ((2, 2), (4, 4), (0, 0)), constant_values=255))
    while len(strips) % columns:
        strips.append(np.full_like(strips[0], 255))
    rows = [np.concatenate(strips[i : i + columns], 1) for i in range(0, len(strips), columns)]
    return np.concatenate(rows, 0).repeat(2, axis=0).repeat(2, axis=1)


def save_sheets(model: Model, folder: Path) -> list[Path]:
    """Write a contact sheet of generated clips for each concept and one without any."""
    paths = []
    for concept in (None, *world.CONCEPTS):
        items = sheet_items(concept, 8)
        videos = generate_batch(model, [i.prompt for i in items], [i.seed for i in items])
        picture = contact_sheet([v.frames for v in videos])
        paths.append(save_picture(picture, folder / f"sheet-{concept or 'none'}.png", SHEET_COLOURS))
    return paths
