"""Releasing a trained toy model: the diffusers folder, the judge, the model card with its figures."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from refusal_core.evaluate.reports.overview import overview_table
from refusal_core.evaluate.reports.report import Report, as_markdown
from refusal_core.io.files import write_atomic, write_json
from refusal_core.models.family import DEFAULTS_FILE, Defaults
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import ATTRIBUTES, JudgeNetwork
from refusal_core.toyworld.pipeline import TEXT_LENGTH, assemble
from refusal_core.toyworld.training.check import CheckReport

# 6 steps draw what 16 draw, to the eye and to the judge, in under half the time.
DEFAULTS = Defaults(world.FRAMES, world.SIZE, world.SIZE, 8.0, 6, 3.0, TEXT_LENGTH)

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan, DiffusionPipeline, WanTransformer3DModel
    from transformers import UMT5EncoderModel


def save_model(
    autoencoder: AutoencoderKLWan,
    text_encoder: UMT5EncoderModel,
    transformer: WanTransformer3DModel,
    folder: Path,
) -> Path:
    """Write the pipeline as safetensors, whole or not at all.

    Autoencoder and denoiser go to disk in float16. The text encoder stays in float32: transformers
    loads in the dtype on disk, and half precision is slow on a CPU.
    """
    pipeline = assemble(autoencoder, text_encoder, transformer)
    return save_pipeline(pipeline, ("vae", "transformer"), folder)


def save_pipeline(
    pipeline: DiffusionPipeline, halved: Sequence[str], folder: Path, defaults: Defaults = DEFAULTS
) -> Path:
    """Write a pipeline with what it generates by default, the parts named in ``halved`` in float16."""
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    for name in halved:
        getattr(pipeline, name).half()
    pipeline.save_pretrained(temporary, safe_serialization=True)
    for name in halved:
        getattr(pipeline, name).float()
    write_json(temporary / DEFAULTS_FILE, {"defaults": asdict(defaults)})
    for file in temporary.rglob("*.safetensors"):
        file.chmod(0o644)  # the writer leaves them private
    _replace_folder(temporary, folder)
    return folder


def _replace_folder(new: Path, folder: Path) -> None:
    """Swap in the new folder, keeping files that the new one does not bring (card, sheets)."""
    if folder.exists():
        for kept in folder.iterdir():
            if kept.is_file() and not (new / kept.name).exists():
                shutil.copy2(kept, new / kept.name)
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new.rename(folder)


def save_judge(network: JudgeNetwork, path: Path) -> Path:
    """Write the judge in float16 with the attributes it reads."""
    from safetensors.torch import save_file

    names = {name: list(values) for name, values in ATTRIBUTES.items()}
    tensors = {k: v.detach().to(torch.float16).contiguous() for k, v in network.state_dict().items()}
    metadata = {"format": "pt", "attributes": json.dumps(names)}
    return write_atomic(path, lambda target: save_file(tensors, target, metadata=metadata))


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
    folder: Path,
    report: CheckReport,
    facts: Mapping[str, str],
    defaults: Defaults,
    evaluated: Sequence[Report] = (),
) -> Path:
    """Write the model card: what it is, how it was trained, figures as printed by the check.

    ``evaluated`` are reports of single concepts, whose overview is added.
    """
    names = [path.stem for path in sorted(folder.glob("sheet-*.png"))]
    sheets = "\n\n".join(f"**{n.removeprefix('sheet-')}**\n\n![{n}]({n}.png)" for n in names)
    figures, words = "\n".join(report.lines()), len(world.words())
    machine = f"a CPU ({os.cpu_count()} cores, {platform.machine()})"
    sampling = {"steps": defaults.steps, "guidance": defaults.guidance_scale}
    text = CARD.format(
        figures=figures,
        unlearned=_unlearned(evaluated, facts["name"]),
        sheets=sheets,
        words=words,
        machine=machine,
        **sampling,
        **facts,
    )
    return write_atomic(folder / "README.md", lambda t: t.write_text(text, encoding="utf-8") and None)


def _unlearned(evaluated: Sequence[Report], name: str) -> str:
    if not evaluated:
        return ""
    table = as_markdown(*overview_table(evaluated))
    plot = PLOT if name == "toyworld" else ""
    return UNLEARNED.format(videos=evaluated[0].cells[0].n, name=name, table=table, plot=plot)
