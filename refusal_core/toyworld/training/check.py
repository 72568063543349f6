"""The check of a bundled model: does the judge see, and does the model draw, what was asked?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.methods.treatments import ORIGINAL, plan_method
from refusal_core.evaluate.reports.cells import KEPT, Cell
from refusal_core.evaluate.run import run_planned
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.setup import Setup
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.language import asked_looks
from refusal_core.evaluate.suites.toyworld import asked_suite
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import ATTRIBUTES, NO_CONCEPT, ToyJudge, load_judge
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.language.judge import load_look_judge
from refusal_core.toyworld.pipeline import decode_clips, encode_clips
from refusal_core.toyworld.training.data import draw, random_scenes

HELD_OUT_SEED = 900
JUDGE_GOALS = {name: 0.99 if name == "concept" else 0.97 for name in ATTRIBUTES}
SHOWN_GOAL, NEIGHBOUR_GOAL, ABSENT_GOAL, KEPT_GOAL = 0.95, 0.90, 0.99, 0.95


@dataclass(frozen=True, slots=True)
class Exam:
    """What the judge and the models of a world are checked on."""

    judge: Callable[[Path], ToyJudge]  # from its file
    file: str
    scene: Callable[[np.random.Generator], world.Scene]
    clips: int  # that the judge reads
    suite: Callable[[int], Suite]  # a group for each look


EXAMS = {
    "toyworld": Exam(load_judge, "judge.safetensors", world.random_scene, 600, asked_suite),
    "language": Exam(load_look_judge, "language.safetensors", looks.random_scene, 600, asked_looks),
}


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Judge accuracy on rendered clips, and what generated clips show."""

    clips: int
    rendered: Mapping[str, float]  # accuracy on clips as drawn
    decoded: Mapping[str, float]  # accuracy on the same clips put through the autoencoder
    looks: Mapping[str, tuple[float, float]]  # of both, the accuracy on clips of each look
    cells: tuple[Cell, ...]  # one a concept, and one without

    def lines(self) -> list[str]:
        """Return the report as a table in Markdown; a missed goal is marked, never hidden."""
        mark = {True: "reached", False: "MISSED"}
        lines = [f"Judge, {self.clips} held-out rendered clips", ""]
        lines += ["| attribute | as drawn | through the autoencoder | goal | |", "|---" * 5 + "|"]
        for name, goal in JUDGE_GOALS.items():
            a, b = self.rendered[name], self.decoded[name]
            lines.append(f"| {name} | {a:.1%} | {b:.1%} | {goal:.0%} | {mark[min(a, b) >= goal]} |")
        least = sorted((x for x in self.looks.items() if min(x[1]) < JUDGE_GOALS["concept"]), key=_least)
        if least:
            said = ", ".join(f"{name} {a:.0%} and {b:.0%}" for name, (a, b) in least)
            lines += ["", f"Of the looks it reads least well, as drawn and through the autoencoder: {said}."]
        lines += ["", f"Generated clips, {self.cells[0].n} a row", ""]
        lines += [
            "| asked | concept as asked | goal | " + " | ".join(KEPT) + " | |",
            "|---" * (4 + len(KEPT)) + "|",
        ]
        for c in self.cells:
            goal = NEIGHBOUR_GOAL if c.prompts in looks.NEIGHBOURS else SHOWN_GOAL
            goal = ABSENT_GOAL if c.prompts == "none" else goal
            good = (c.shown.rate or 0) >= goal and all(v >= KEPT_GOAL for v in c.kept.values())
            kept = " | ".join(f"{c.kept[name]:.1%}" for name in KEPT)
            lines.append(f"| {c.prompts} | {c.shown.rate:.1%} | {goal:.0%} | {kept} | {mark[good]} |")
        lines += ["", f"Goal for colour, shape, motion and background: {KEPT_GOAL:.0%}."]
        return lines


def _least(look: tuple[str, tuple[float, float]]) -> float:
    return min(look[1])


def check(model: Model, exam: Exam, judges: Path, videos: int, *, progress: Progress = silent) -> CheckReport:
    """Measure the judge on held-out clips and the model on evaluation prompts.

    Args:
        model: a bundled one.
        exam: its world's.
        judges: the folder where the judges lie.
        videos: a look.
        progress: told what is being measured.
    """
    judge = exam.judge(judges / exam.file)
    scenes = random_scenes(exam.clips, HELD_OUT_SEED, exam.scene)
    clips = draw(scenes, 900_000_000)
    progress(0.02, "Judging rendered clips")
    rendered, decoded = (_right(judge, scenes, c) for c in (clips, _through_autoencoder(model, clips)))
    setup = Setup(model, Scoring(toyworld_judge(judge), exam.file, quality=False))
    original = {ORIGINAL: plan_method(model, (), ORIGINAL)}
    report = run_planned(setup, "none", original, exam.suite(videos), part(progress, 0.1, 1.0))
    shown = np.asarray([scene.concept or NO_CONCEPT for scene in scenes])
    by_look = {
        str(name): (_share(rendered["concept"][shown == name]), _share(decoded["concept"][shown == name]))
        for name in np.unique(shown)
    }
    drawn, blurred = ({name: _share(right[name]) for name in ATTRIBUTES} for right in (rendered, decoded))
    return CheckReport(len(scenes), drawn, blurred, by_look, report.cells)


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean())


def _through_autoencoder(model: Model, clips: Tensor) -> Tensor:
    vae, by_frame = model.pipeline.vae, model.family.name == "unet3d"  # its autoencoder knows images only
    batch = clips.transpose(1, 2).flatten(0, 1) if by_frame else clips
    decoded = decode_clips(vae, encode_clips(vae, batch))
    return decoded.unflatten(0, (len(clips), -1)).transpose(1, 2) if by_frame else decoded


def _right(judge: ToyJudge, scenes: Sequence[world.Scene], clips: Tensor) -> dict[str, NDArray[np.bool_]]:
    """Return, of each attribute, which clips are read as they were asked for."""
    readings = [r for part in clips.permute(0, 2, 3, 4, 1).split(100) for r in judge.read(list(part.numpy()))]
    return {
        name: np.asarray(
            [
                r.values[name] == (getattr(scene, name) or NO_CONCEPT)
                for scene, r in zip(scenes, readings, strict=True)
            ]
        )
        for name in ATTRIBUTES
    }
