"""Saving a trained toy model: the diffusers folder, and the judge."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from refusal_core.io.files import write_atomic, write_json
from refusal_core.models.families.family import DEFAULTS_FILE, Defaults
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import JudgeNetwork
from refusal_core.toyworld.pipeline import TEXT_LENGTH, Part

# 6 steps draw what 16 draw, to the eye and to the judge, in under half the time.
DEFAULTS = Defaults(world.FRAMES, world.SIZE, world.SIZE, 8.0, 6, 3.0, TEXT_LENGTH)


def save_pipeline(pipeline: Part, halved: Sequence[str], folder: Path, defaults: Defaults = DEFAULTS) -> Path:
    """Write a pipeline with what it generates by default, the parts named in ``halved`` in float16.

    The folder is replaced whole or not at all, but for files that the new one does not bring (card, sheets).
    """
    new, old = (folder.with_name(f".{folder.name}.{name}") for name in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    for name in halved:
        getattr(pipeline, name).half()
    pipeline.save_pretrained(new, safe_serialization=True)
    for name in halved:
        getattr(pipeline, name).float()
    write_json(new / DEFAULTS_FILE, {"defaults": asdict(defaults)})
    for file in new.rglob("*.safetensors"):
        file.chmod(0o644)  # the writer leaves them private
    if folder.exists():
        for file in folder.iterdir():
            if file.is_file() and not (new / file.name).exists():
                shutil.copy2(file, new / file.name)
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def save_judge(network: JudgeNetwork, path: Path) -> Path:
    """Write the judge in float16 with the attributes it reads."""
    tensors = {k: v.detach().to(torch.float16).contiguous() for k, v in network.state_dict().items()}
    metadata = {"format": "pt", "attributes": json.dumps(network.attributes)}
    return write_atomic(path, lambda target: save_file(tensors, target, metadata=metadata))
