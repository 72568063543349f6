"""Generating videos, and comparing the original with the unlearned one on the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from refusal_core.apply import applied
from refusal_core.edit import Edit
from refusal_core.errors import InputError, MemoryLimitError, ModelError
from refusal_core.io.video import Sound, Video, VideoPair
from refusal_core.models.calling import Request, call_pipeline, check_prompts
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent, timed
from refusal_core.settings import SamplingSettings


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
    cut: bool = False,
    progress: Progress = silent,
) -> list[Video]:
    """Generate a video for each prompt, each on the noise of its own seed.

    Args:
        model: a loaded model.
        prompts: one a video.
        seeds: one a video; noise is drawn on the CPU, so that a seed means the same everywhere.
        settings: steps, guidance, size, image; its seed is not used here.
        cut: let the pipeline cut prompts of more tokens than the model reads, in place of refusing them.
        progress: told after each denoising step; may raise ``Cancelled``.

    Raises:
        InputError: a prompt is empty or too long, or the size does not suit the model.
        FileError: the image cannot be read.
        MemoryLimitError: the device has too little memory.
        ModelError: the model gave NaN.
    """
    settings = settings or SamplingSettings()
    cleaned = check_prompts(model, prompts, cut=cut)
    if settings.negative_prompt is not None:
        check_prompts(model, [settings.negative_prompt])
    n = len(cleaned)
    if len(seeds) != n:
        raise InputError(f"{n} prompts need {n} seeds, not {len(seeds)}.")
    if not model.takes_batches and n > 1:
        return [
            generate_batch(model, [prompt], [seed], settings, cut=cut, progress=part(progress, i / n, 1))[0]
            for i, (prompt, seed) in enumerate(zip(cleaned, seeds, strict=True))
        ]
    request = Request(cleaned, seeds, settings, image=settings.image)
    try:
        with model.lock, torch.inference_mode():
            result = call_pipeline(model, request, _Steps(model, settings, timed(progress)))
    except (torch.OutOfMemoryError, MemoryError) as e:
        raise MemoryLimitError("Out of memory; ask for fewer frames or a smaller size.") from e
    frames = np.asarray(result.frames)
    if not np.isfinite(frames).all():
        raise ModelError("The model gave NaN; load it in float32, or lower the strength.")
    sounds: list[Sound | None] = [*_sounds(model, result)] or [None] * n
    progress(1.0, "Video is ready")
    clips = np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
    return [Video(clip, model.defaults.fps, sound) for clip, sound in zip(clips, sounds, strict=True)]


def _sounds(model: Model, result: Any) -> list[Sound]:
    """Return the sound of each video, no longer than its picture; nothing where the model makes none."""
    if not model.family.makes_sound:
        return []
    samples = torch.as_tensor(result.audio).float().cpu().numpy()  # [B, N] or [B, channels, N]
    if not np.isfinite(samples).all():
        raise ModelError("The model's sound is NaN; load it in float32, or lower the strength.")
    rate = int(attrgetter(model.family.sound_rate)(model.pipeline))
    most = round(np.asarray(result.frames).shape[1] / model.defaults.fps * rate)
    return [Sound(own.reshape(-1, own.shape[-1])[:, :most], rate) for own in samples]


def asked_size(model: Model, settings: SamplingSettings) -> str:
    """Return what is asked for, such as ``81 frames of 832x480 in 50 steps``."""
    d = model.defaults
    size = f"{settings.width or d.width}x{settings.height or d.height}"
    return f"{settings.frames or d.frames} frames of {size} in {settings.steps or d.steps} steps"


def size_note(model: Model, settings: SamplingSettings, made: Video) -> tuple[str, ...]:
    """Return a note where a pipeline rounded the frames or the size that were asked for; else nothing."""
    d = model.defaults
    asked = settings.frames or d.frames, settings.height or d.height, settings.width or d.width
    frames, height, width = made.frames.shape[:3]
    said = [f"{asked[0]} frames asked, {frames} made"] if asked[0] != frames else []
    if asked[1:] != (height, width):
        said.append(f"{asked[2]}x{asked[1]} asked, {width}x{height} made")
    return (f"{'; '.join(said)}: the model's pipeline rounds it.",) if said else ()


class _Steps:
    """Tells progress at each denoiser call: every pipeline has those, whatever callbacks it knows."""

    def __init__(self, model: Model, settings: SamplingSettings, progress: Progress) -> None:
        pieces = model.pieces(settings.frames or model.defaults.frames)
        self._total = pieces * (settings.steps or model.defaults.steps)
        self._progress, self._step = progress, 0
        self._time: float | None = None

    def __call__(self, _denoiser: torch.nn.Module, arguments: dict[str, Any]) -> None:
        time = float(arguments["timestep"].max()) if torch.is_tensor(arguments["timestep"]) else None
        if time != self._time or time is None:
            self._time, self._step = time, min(self._step + 1, self._total)
        fraction = (self._step - 1) / (self._total + 1)
        self._progress(fraction, f"Denoising, step {self._step} of {self._total}")
