"""Generating videos, and comparing the original with the unlearned one on the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from refusal_core.apply import applied
from refusal_core.edit import Edit
from refusal_core.errors import InputError, MemoryLimitError, ModelError
from refusal_core.models.load import Model
from refusal_core.models.prompts import check_prompts
from refusal_core.progress import Progress, part, silent
from refusal_core.settings import SamplingSettings
from refusal_core.video import Video, VideoPair


def generate(
    model: Model, prompt: str, settings: SamplingSettings | None = None, *, progress: Progress = silent
) -> Video:
    """Generate one video; equal arguments give equal bytes on one machine. See ``generate_batch``."""
    settings = settings or SamplingSettings()
    return generate_batch(model, [prompt], [settings.seed], settings, progress=progress)[0]


def compare(
    model: Model,
    edit: Edit,
    prompt: str,
    settings: SamplingSettings | None = None,
    *,
    progress: Progress = silent,
) -> VideoPair:
    """Generate a prompt without and with the edit, on the same noise. The model is left unedited."""
    original = generate(model, prompt, settings, progress=part(progress, 0.0, 0.5))
    with applied(model, edit):
        unlearned = generate(model, prompt, settings, progress=part(progress, 0.5, 1.0))
    return VideoPair(original, unlearned)


def generate_batch(
    model: Model,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings | None = None,
    *,
    progress: Progress = silent,
) -> list[Video]:
    """Generate a video for each prompt, each on the noise of its own seed.

    Args:
        model: a loaded model.
        prompts: one a video.
        seeds: one a video; noise is drawn on the CPU, so that a seed means the same everywhere.
        settings: steps, guidance, size; its seed is not used here.
        progress: told after each denoising step; may raise ``Cancelled``.

    Raises:
        InputError: a prompt is empty or too long, or the size does not suit the model.
        MemoryLimitError: the device has too little memory.
        ModelError: the model gave NaN.
    """
    settings = settings or SamplingSettings()
    cleaned = check_prompts(model, prompts)
    if len(seeds) != len(cleaned):
        raise InputError(f"{len(cleaned)} prompts need {len(cleaned)} seeds, not {len(seeds)}.")
    arguments = _arguments(model, settings, len(cleaned))
    steps = arguments["num_inference_steps"]

    def after_step(_pipeline: Any, step: int, _time: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
        progress((step + 1) / (steps + 1), f"Denoising, step {step + 1} of {steps}")
        return {}

    try:
        with torch.inference_mode():
            result = model.pipeline(
                prompt=cleaned,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                callback_on_step_end=after_step,
                output_type="np",
                **arguments,
            )
    except torch.OutOfMemoryError as e:
        raise MemoryLimitError("Out of memory; ask for fewer frames or a smaller size.") from e
    finally:
        model.pipeline.maybe_free_model_hooks()
    if not np.isfinite(result.frames).all():
        raise ModelError("The model gave NaN; load it in float32, or lower the strength.")
    frames = np.rint(np.clip(result.frames, 0, 1) * 255).astype(np.uint8)
    progress(1.0, "Video is ready")
    return [Video(clip, model.defaults.fps) for clip in frames]


def _arguments(model: Model, settings: SamplingSettings, count: int) -> dict[str, Any]:
    d = model.defaults

    def choose(value: float | None, default: float) -> Any:
        return default if value is None else value

    height, width = choose(settings.height, d.height), choose(settings.width, d.width)
    if height % 16 or width % 16:
        raise InputError(f"Height and width are {height} and {width}; both must be multiples of 16.")
    negative = settings.negative_prompt
    return {
        "num_inference_steps": choose(settings.steps, d.steps),
        "guidance_scale": choose(settings.guidance_scale, d.guidance_scale),
        "num_frames": choose(settings.frames, d.frames),
        "height": height,
        "width": width,
        "max_sequence_length": d.text_length,
        "negative_prompt": None if negative is None else check_prompts(model, [negative]) * count,
    }
