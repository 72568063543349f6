"""The card of a bundled model: what it is, how it was trained, figures as they were printed, pictures."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from refusal_core.concepts import load_preset
from refusal_core.evaluate.measures.samples import SHEET_COLOURS, save_picture, strip, titled
from refusal_core.evaluate.methods.treatments import plan_method
from refusal_core.evaluate.reports.report import Report, load_report
from refusal_core.evaluate.reports.tables import as_markdown, overview_table
from refusal_core.io.files import write_text
from refusal_core.models.load import world_of
from refusal_core.models.model import Model
from refusal_core.progress import silent
from refusal_core.sampling import generate_batch
from refusal_core.toyworld import world
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.language.captions import PHRASES, PhraseSet, caption
from refusal_core.toyworld.training import language, train, unet
from refusal_core.toyworld.training.check import CheckReport

LANGUAGE = "toyworld-language"
CARD = """---
license: apache-2.0
pipeline_tag: text-to-video
library_name: diffusers
---

# {folder}

A small text-to-video model of real diffusers classes (`{pipeline}`), trained {trained}. It ships with Refusal
Studio so that removing a concept can be seen and measured on two CPU cores. It draws nothing but this world:
64x64 pixels, 17 frames.

```python
{example}
```

## How it was trained

`python -m refusal_core toyworld train{option}` on {machine}. No outside data: all clips are rendered by
`refusal_core/toyworld/`.

{recipe}

## Figures

Printed by `python -m refusal_core toyworld check --model {name} --videos {videos}`, on prompts of
the evaluation split.

{figures}
{unlearned}
## Contact sheets

{about_sheets}

{sheets}

## Limits

{knows} Figures on it say how an edit behaves on a model of this architecture and size; they do not carry over
to a large model by themselves.
"""
UNLEARNED = """
## Unlearning

Each concept removed alone, {videos} videos a cell, shares in percent with 95 % Wilson intervals; printed by
`python -m refusal_core evaluate --model {name}` and `report --overview` from the reports in `assets/reports`.

{table}
{plot}"""
PLOT = "\n![Erased against kept, a point a method](../../reports/trade.png)\n"  # of the first bundled model
IN_DIFFUSERS = """from diffusers import {pipeline}

pipe = {pipeline}.from_pretrained("assets/models/{folder}")
video = pipe(
    "a large red circle on fire moving left over sand",
    height=64,
    width=64,
    num_frames=17,
    num_inference_steps={steps},
    guidance_scale={guidance},{more}
).frames[0]"""
IN_STUDIO = """import refusal_core as rc

model = rc.load_model("{name}")  # puts the language model's weights in their place
video = rc.generate(model, "a large purple pyramid wreathed in fire rises over the desert")"""
ALONE = "Generated clips, five frames each, read from left to right."
BEFORE_AFTER = (
    "Each row is one prompt on one noise: left the original, right the preset's edit, five frames each. In"
    " every sheet four prompts ask for the concept: in words of pairs, unheard, without its words, in another"
    " language. Then its three neighbours, and an ordinary one."
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card says of one model alone."""

    option: str  # of `toyworld train`
    trained: str  # from what
    recipe: str
    knows: str
    example: str
    about_sheets: str
    sheets: Callable[[Model, Path], list[Path]]


def write_card(model: Model, name: str, folder: Path, report: CheckReport) -> Path:
    """Write contact sheets and the model card: what it is, how it was trained, figures as printed.

    Reports of single concepts, in ``reports`` beside the models, are added as an overview.

    Args:
        model: a bundled one.
        name: its name.
        folder: where it lies.
        report: what ``check`` found.
    """
    facts, d = FACTS[name], model.defaults
    length = f"\n    max_sequence_length={d.text_length}," if model.family.name == "wan" else ""
    known = {
        "name": name,
        "videos": report.cells[0].n,
        "folder": folder.name,
        "pipeline": type(model.pipeline).__name__,
        "steps": d.steps,
        "guidance": d.guidance_scale,
        "more": length,
    }
    names = [path.stem for path in facts.sheets(model, folder)]
    text = CARD.format(
        **known,
        example=facts.example.format(**known),
        figures="\n".join(report.lines()),
        unlearned=_unlearned(name, folder.parents[1] / "reports"),
        about_sheets=facts.about_sheets,
        sheets="\n\n".join(f"**{n.removeprefix('sheet-')}**\n\n![{n}]({n}.png)" for n in sorted(names)),
        machine=f"a CPU ({os.cpu_count()} cores, {platform.machine()})",
        option=facts.option,
        trained=facts.trained,
        recipe=facts.recipe,
        knows=facts.knows,
    )
    return write_text(folder / "README.md", text)


def single_reports(name: str, folder: Path) -> list[Report]:
    """Return the reports below a folder of one concept removed from a model, in its world's order."""
    order = list(looks.CONCEPTS if world_of(name) == "language" else world.CONCEPTS)
    found = [load_report(path) for path in sorted(folder.rglob("*.json"))]
    mine = [r for r in found if r.model == name and r.suite == world_of(name) and r.concept in order]
    return sorted(mine, key=lambda r: order.index(r.concept))


def _unlearned(name: str, folder: Path) -> str:
    mine = single_reports(name, folder)
    if not mine:
        return ""
    plot, table = PLOT if name == "toyworld" else "", as_markdown(overview_table(mine))
    return UNLEARNED.format(videos=mine[0].cells[0].n, name=name, table=table, plot=plot)


def _sheets(model: Model, folder: Path) -> list[Path]:
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


def _sheets_before_and_after(model: Model, folder: Path) -> list[Path]:
    """Write a contact sheet a concept: its own prompts, its neighbours', an ordinary one."""
    paths = []
    for number, concept in enumerate(looks.CONCEPTS):
        prompts = _sheet_prompts(concept, number)
        seeds = [70_000 + 100 * number + i for i in range(len(prompts))]
        treatment = plan_method(model, (load_preset(concept, LANGUAGE),), "whitened").prepare(silent)
        before = generate_batch(model, prompts, seeds)
        with treatment.context(model):
            after = generate_batch(model, prompts, seeds)
        rows = [
            titled(np.concatenate([strip(v, height=world.SIZE) for v in pair], 1), prompt)
            for prompt, *pair in zip(prompts, before, after, strict=True)
        ]
        paths.append(save_picture(np.concatenate(rows), folder / f"sheet-{concept}.png", SHEET_COLOURS))
    return paths


def _sheet_prompts(concept: str, number: int) -> list[str]:
    rng = np.random.default_rng(700 + number)
    scenes = [s for s in world.scenes_of("tuning") if s.size == "large" and s.motion != "staying still"]
    asked: list[tuple[str | None, PhraseSet]] = [
        (concept, "pairs"),
        (concept, "unheard"),
        (concept, "described"),
        (concept, "languages"),
        *((near, "taught") for near in looks.CONCEPTS[concept]),
        (None, "pairs"),
    ]
    prompts = []
    for i, (look, said) in enumerate(asked):
        scene = scenes[(17 * number + 5 * i) % len(scenes)]
        phrase = PHRASES[look][said][0] if look else None
        prompts.append(caption(looks.show(scene, look, rng) if look else scene, phrase, rng))
    return prompts


_FROM_NOTHING = "from nothing on a world of captioned moving shapes whose truth is known"
_WORDS = f"It knows {len(world.words())} words and one object a clip."
FACTS = {
    "toyworld": Facts("", _FROM_NOTHING, train.RECIPE, _WORDS, IN_DIFFUSERS, ALONE, _sheets),
    "toyworld-unet3d": Facts(
        " --family unet3d", _FROM_NOTHING, unet.RECIPE, _WORDS, IN_DIFFUSERS, ALONE, _sheets
    ),
    LANGUAGE: Facts(
        " --family language",
        "on a world of captioned moving shapes whose truth is known, behind a frozen language model (MiniLM,"
        " whose weights come with requirements.txt)",
        language.RECIPE,
        "It reads free English and draws one object a clip.",
        IN_STUDIO,
        BEFORE_AFTER,
        _sheets_before_and_after,
    ),
}
