"""The model card of a bundled model, with its figures as the checks print them."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.reports.tables import as_markdown, overview_table
from refusal_core.io.files import write_text
from refusal_core.models.load import BUNDLED
from refusal_core.models.model import Model
from refusal_core.toyworld import world
from refusal_core.toyworld.training.check import CheckReport

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


def write_card(
    model: Model, folder: Path, recipe: str, report: CheckReport, evaluated: Sequence[Report] = ()
) -> Path:
    """Write the model card: what it is, how it was trained, figures as printed by the check.

    ``evaluated`` are reports of single concepts, whose overview is added.
    """
    name = next(name for name, bundled in BUNDLED.items() if bundled.folder == folder.name)
    family, length = model.family.name, f"\n    max_sequence_length={model.defaults.text_length},"
    names = [path.stem for path in sorted(folder.glob("sheet-*.png"))]
    sheets = "\n\n".join(f"**{n.removeprefix('sheet-')}**\n\n![{n}]({n}.png)" for n in names)
    text = CARD.format(
        figures="\n".join(report.lines()),
        unlearned=_unlearned(evaluated, name),
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


def _unlearned(evaluated: Sequence[Report], name: str) -> str:
    if not evaluated:
        return ""
    table = as_markdown(overview_table(evaluated))
    plot = PLOT if name == "toyworld" else ""
    return UNLEARNED.format(videos=evaluated[0].cells[0].n, name=name, table=table, plot=plot)
