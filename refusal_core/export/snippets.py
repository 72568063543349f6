"""The lines of Python that come with an export: they run as they are, in the folder where its files lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refusal_core.models.calling import Request, pipeline_arguments
from refusal_core.models.families.family import Family
from refusal_core.models.load import BUNDLED
from refusal_core.models.model import Model
from refusal_core.settings import SamplingSettings

PROMPT = "your prompt"


def lora_snippet(model: Model, files: Sequence[str]) -> str:
    """Return the lines that load exported LoRAs into the pipeline that they were made from, and use it."""
    return _joined(_base(model), lora_lines(model.family, files), _video(model))


def comfyui_snippet(files: Sequence[str]) -> str:
    """Return what to do with files for ComfyUI."""
    return f"# Put {' and '.join(files)} into ComfyUI/models/loras; load with strength 1.0."


def weights_snippet(model: Model, folder: str) -> str:
    """Return the lines that load an exported folder, and use it."""
    load = f'pipe = diffusers.{model.fingerprint.pipeline}.from_pretrained("{folder}"{_dtype(model)})'
    return _joined(["import diffusers", "import torch", "", load], _video(model))


def edit_snippet(model: Model, file: str) -> str:
    """Return the lines that apply an edit file, and make a video with it."""
    lines = [
        f'edit = rc.load_edit("{file}")',
        "with rc.applied(model, edit):",
        f'    video = rc.generate(model, "{PROMPT}")',
        'rc.save_video(video, "unlearned.mp4")',
    ]
    return _joined(_own(model), lines)


def lora_lines(family: Family, files: Sequence[str]) -> list[str]:
    """Return the Python lines that put exported LoRAs into a pipeline ``pipe``, one file a denoiser."""
    if family.lora == "model":
        return [
            "from safetensors.torch import load_file",
            "",
            f'lora = load_file("{files[0]}")',
            f'pipe.{family.denoisers[0]}.load_lora_adapter(lora, adapter_name="unlearned")',
        ]
    second = ("", ", load_into_transformer_2=True")
    return [
        f'pipe.load_lora_weights("{file}", adapter_name="unlearned{number or ""}"{second[number]})'
        for number, file in enumerate(files)
    ]


def _joined(*parts: Sequence[str]) -> str:
    return "\n".join("\n".join(part) for part in parts)


def _base(model: Model) -> list[str]:
    """Return the lines that load a model: by diffusers alone where that gives the same weights."""
    if model.name in BUNDLED or model.loading.denoiser or model.loading.denoiser_2:
        return [*_own(model), "pipe = model.pipeline", *_imports()]
    revision = f', revision="{model.loading.revision}"' if model.loading.revision else ""
    kind, source = model.fingerprint.pipeline, _source(model)
    return [*_imports(), "", f'pipe = diffusers.{kind}.from_pretrained("{source}"{revision}{_dtype(model)})']


def _imports() -> list[str]:
    return ["import diffusers", "import torch"]


def _own(model: Model) -> list[str]:
    """Return the lines that load a model here, with all that was asked of its loading."""
    loading = model.loading
    options = [f'revision="{loading.revision}"'] if loading.revision else []
    options += [
        f'{name}=Path("{file.resolve()}")'
        for name, file in (("denoiser", loading.denoiser), ("denoiser_2", loading.denoiser_2))
        if file
    ]
    options += [f'dtype="{model.precision}"'] if model.precision != "float32" else []
    more = f", rc.LoadSettings({', '.join(options)})" if options else ""
    path = ["from pathlib import Path", ""] if "Path(" in more else []
    return [*path, "import refusal_core as rc", "", f'model = rc.load_model("{_source(model)}"{more})']


def _source(model: Model) -> str:
    """Return what loads a model from any folder."""
    return str(Path(model.name).resolve()) if Path(model.name).exists() else model.name


def _dtype(model: Model) -> str:
    return "" if model.precision == "float32" else f", dtype=torch.{model.precision}"


def _video(model: Model) -> list[str]:
    """Return the lines that make a video with ``pipe``, at the model's own settings."""
    arguments = pipeline_arguments(model, Request([PROMPT], [0], SamplingSettings()))
    written = {name: _written(value) for name, value in arguments.items()}
    written["generator"] = "torch.Generator().manual_seed(0)"
    before = []
    if "image" in written:
        before = ["from PIL import Image", ""]
        size = f"({arguments.get('width')}, {arguments.get('height')})"
        written["image"] = f'Image.new("RGB", {size}, "grey")'
    lines = [f"    {name}={value}," for name, value in written.items() if value]
    fps = round(model.defaults.fps)
    save = f'diffusers.utils.export_to_video(video, "unlearned.mp4", fps={fps})'
    return [*before, "video = pipe(", *lines, ").frames[0]", save]


def _written(value: Any) -> str:
    """Return a plain value as Python writes it; nothing for others. A list of one stands for itself."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value) if value is None or isinstance(value, (int, float, dict)) else ""
