"""The check of a bundled model: does the judge see, and does the model draw, what was asked? And its card."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.measures.samples import SHEET_COLOURS, save_picture, strip
from refusal_core.evaluate.methods.treatments import ORIGINAL, plan_method
from refusal_core.evaluate.reports.cells import KEPT, Cell
from refusal_core.evaluate.reports.report import load_report
from refusal_core.evaluate.reports.tables import as_markdown, overview_table
from refusal_core.evaluate.run import run_planned
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.setup import Setup
from refusal_core.evaluate.suites.toyworld import asked_suite
from refusal_core.io.files import write_text
from refusal_core.models.load import BUNDLED
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


# --- the card ----------------------------------------------------------------------------------------

CARD = """---
license: apache-2.0
pipeline_tag: text-to-video
library_name: diffusers
---

# {folder}

A small text-to-video model of real diffusers classes (`{pipeline}`), trained from nothing on a world
of captioned moving shapes whose truth is known. It ships with Refusal Studio so that removing a concept
can be seen and measured on two CPU cores. It draws nothing but this world: 64x64 pixels, 17 frames.

```python
from diffusers import {pipeline}

pipe = {pipeline}.from_pretrained("assets/models/{folder}")
video = pipe(
    "a large red circle on fire moving left over sand",
    height=64,
    width=64,
    num_frames=17,
    num_inference_steps={steps},
    guidance_scale={guidance},{more}
).frames[0]
```

## How it was trained

`python -m refusal_core toyworld train{option}` on {machine}. No outside data: all clips are rendered by
`refusal_core/toyworld/world.py`.

{recipe}

## Figures

Printed by `python -m refusal_core toyworld check --model {name}`, on prompts of the evaluation split.

{figures}
{unlearned}
## Contact sheets

Generated clips, five frames each, read from left to right.

{sheets}

## Limits

It knows {words} words and one object a clip. Figures on it say how an edit behaves on a model of this
architecture and size; they do not carry over to a large model by themselves.
"""


UNLEARNED = """
## Unlearning

Each concept removed alone, {videos} videos a cell, shares in percent with 95 % Wilson intervals; printed by
`python -m refusal_core evaluate --model {name}` and `report --overview` from the reports in `assets/reports`.

{table}
{plot}"""
PLOT = "\n![Erased against kept, a point a method](../../reports/trade.png)\n"  # of the first bundled model


def write_card(model: Model, folder: Path, recipe: str, report: CheckReport) -> Path:
    """Write contact sheets and the model card: what it is, how it was trained, figures as printed.

    Reports of single concepts, in ``reports`` beside the models, are added as an overview.
    """
    name = next(name for name, bundled in BUNDLED.items() if bundled.folder == folder.name)
    family, length = model.family.name, f"\n    max_sequence_length={model.defaults.text_length},"
    names = [path.stem for path in save_sheets(model, folder)]
    sheets = "\n\n".join(f"**{n.removeprefix('sheet-')}**\n\n![{n}]({n}.png)" for n in sorted(names))
    text = CARD.format(
        figures="\n".join(report.lines()),
        unlearned=_unlearned(name, folder.parents[1] / "reports"),
        sheets=sheets,
        words=len(world.words()),
        machine=f"a CPU ({os.cpu_count()} cores, {platform.machine()})",
        steps=model.defaults.steps,
        guidance=model.defaults.guidance_scale,
        name=name,
        folder=folder.name,
        pipeline=type(model.pipeline).__name__,
        option="" if family == "wan" else f" --family {family}",
        more=length if family == "wan" else "",
        recipe=recipe,
    )
    return write_text(folder / "README.md", text)


def _unlearned(name: str, folder: Path) -> str:
    """Return the overview of the reports in which one concept was removed from a model."""
    found = [load_report(path) for path in sorted(folder.rglob("*.json"))]
    mine = [r for r in found if r.model == name and r.suite == "toyworld" and r.concept in world.CONCEPTS]
    if not mine:
        return ""
    table = as_markdown(overview_table(sorted(mine, key=lambda r: list(world.CONCEPTS).index(r.concept))))
    plot = PLOT if name == "toyworld" else ""
    return UNLEARNED.format(videos=mine[0].cells[0].n, name=name, table=table, plot=plot)


def save_sheets(model: Model, folder: Path) -> list[Path]:
    """Write a contact sheet of generated clips for each concept and one without any."""
    scenes = [s for s in world.scenes_of("tuning") if s.size == "large"]
    paths = []
    for concept in (None, *world.CONCEPTS):
        phrases = len(world.CONCEPTS[concept]) if concept else 1
        shown = [replace(s, concept=concept) for s in scenes[:: len(scenes) // 8][:8]]
        captions = [scene.caption(i % phrases) for i, scene in enumerate(shown)]
        videos = generate_batch(model, captions, [70_000 + i for i in range(len(shown))])
        strips = [strip(video, height=2 * world.SIZE) for video in videos]  # two in a row
        picture = np.concatenate([np.concatenate(strips[i : i + 2], 1) for i in range(0, len(strips), 2)])
        paths.append(save_picture(picture, folder / f"sheet-{concept or 'none'}.png", SHEET_COLOURS))
    return paths
