"""The check of the bundled model: does the judge see, and does the model draw, what was asked?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.measures.samples import SHEET_COLOURS, save_picture, strip
from refusal_core.evaluate.methods.treatments import ORIGINAL, plan_method
from refusal_core.evaluate.reports.cells import KEPT, Cell
from refusal_core.evaluate.run import run_planned
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.setup import Setup
from refusal_core.evaluate.suites.items import Item
from refusal_core.evaluate.suites.toyworld import asked_suite
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent
from refusal_core.sampling import generate_batch
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import ATTRIBUTES, NO_CONCEPT, ToyJudge
from refusal_core.toyworld.pipeline import decode_clips, encode_clips
from refusal_core.toyworld.training.data import draw, random_scenes

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
        mark = {True: "reached", False: "MISSED"}
        lines = [f"Judge, {self.clips} held-out rendered clips", ""]
        lines += ["| attribute | as drawn | through the autoencoder | goal | |", "|---" * 5 + "|"]
        for name, goal in JUDGE_GOALS.items():
            a, b = self.rendered[name], self.decoded[name]
            lines.append(f"| {name} | {a:.1%} | {b:.1%} | {goal:.0%} | {mark[min(a, b) >= goal]} |")
        lines += ["", f"Generated clips, {self.cells[0].n} a row", ""]
        lines += [
            "| asked | concept as asked | goal | " + " | ".join(KEPT) + " | |",
            "|---" * (4 + len(KEPT)) + "|",
        ]
        for c in self.cells:
            goal = ABSENT_GOAL if c.prompts == "none" else SHOWN_GOAL
            good = (c.shown.rate or 0) >= goal and all(v >= KEPT_GOAL for v in c.kept.values())
            kept = " | ".join(f"{c.kept[name]:.1%}" for name in KEPT)
            lines.append(f"| {c.prompts} | {c.shown.rate:.1%} | {goal:.0%} | {kept} | {mark[good]} |")
        lines += ["", f"Goal for colour, shape, motion and background: {KEPT_GOAL:.0%}."]
        return lines


def check(model: Model, judge: ToyJudge, videos: int = 200, *, progress: Progress = silent) -> CheckReport:
    """Measure the judge on held-out clips and the model on evaluation prompts."""
    scenes = random_scenes(600, HELD_OUT_SEED)
    clips = draw(scenes, 900_000_000)
    progress(0.02, "Judging rendered clips")
    rendered = _accuracy(judge, scenes, clips)
    decoded = _accuracy(judge, scenes, _through_autoencoder(model, clips))
    setup = Setup(model, Scoring(toyworld_judge(judge), "toyworld", quality=False))
    original = {ORIGINAL: plan_method(model, (), ORIGINAL)}
    report = run_planned(setup, "none", original, asked_suite(videos), part(progress, 0.1, 1.0))
    return CheckReport(len(scenes), rendered, decoded, report.cells)


def _through_autoencoder(model: Model, clips: Tensor) -> Tensor:
    vae, by_frame = model.pipeline.vae, model.family.name == "unet3d"  # its autoencoder knows images only
    batch = clips.transpose(1, 2).flatten(0, 1) if by_frame else clips
    decoded = decode_clips(vae, encode_clips(vae, batch))
    return decoded.unflatten(0, (len(clips), -1)).transpose(1, 2) if by_frame else decoded


def _accuracy(judge: ToyJudge, scenes: Sequence[world.Scene], clips: Tensor) -> dict[str, float]:
    readings = [r for part in clips.permute(0, 2, 3, 4, 1).split(100) for r in judge.read(list(part.numpy()))]

    def right(name: str) -> list[bool]:
        asked = [getattr(scene, name) or NO_CONCEPT for scene in scenes]
        return [r.values[name] == value for value, r in zip(asked, readings, strict=True)]

    return {name: float(np.mean(right(name))) for name in ATTRIBUTES}


def sheet_items(concept: str | None, count: int) -> list[Item]:
    """Return a few varied captions of one concept for a contact sheet."""
    scenes = [s for s in world.scenes_of("tuning") if s.size == "large"]
    chosen = scenes[:: max(1, len(scenes) // count)][:count]
    phrases = len(world.CONCEPTS[concept]) if concept else 1
    return [
        Item(replace(s, concept=concept).caption(i % phrases), 70_000 + i, replace(s, concept=concept))
        for i, s in enumerate(chosen)
    ]


def save_sheets(model: Model, folder: Path) -> list[Path]:
    """Write a contact sheet of generated clips for each concept and one without any."""
    paths = []
    for concept in (None, *world.CONCEPTS):
        items = sheet_items(concept, 8)
        videos = generate_batch(model, [i.prompt for i in items], [i.seed for i in items])
        strips = [strip(video, height=2 * world.SIZE) for video in videos]  # two in a row
        rows = [np.concatenate(strips[i : i + 2], 1) for i in range(0, len(strips), 2)]
        picture = np.concatenate(rows)
        paths.append(save_picture(picture, folder / f"sheet-{concept or 'none'}.png", SHEET_COLOURS))
    return paths
