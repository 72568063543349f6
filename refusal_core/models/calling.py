"""Calling a pipeline: what we ask for, in the words of its own signature. Knows no edits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import nn

from refusal_core.errors import InputError
from refusal_core.hooks import watch_calls
from refusal_core.io.images import load_image, neutral_image
from refusal_core.io.reading import prompt_text, shown
from refusal_core.models.compiling import uncompiled
from refusal_core.models.families.family import Family
from refusal_core.models.model import Model, called_denoisers
from refusal_core.settings import SamplingSettings

_FRAMES = ("num_frames", "video_length", "frames")  # what pipelines call the number of frames


@dataclass(frozen=True, slots=True)
class Request:
    """What a pipeline is to make: one video a prompt, each on the noise of its own seed."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    settings: SamplingSettings
    guided: bool = True  # False: one conditional pass a step, so that every row is the prompt's
    output: str = "np"
    image: Path | None = None  # where a video starts from an image; None: plain grey, or nothing


def call_pipeline(model: Model, request: Request, before: Callable[[nn.Module, dict[str, Any]], None]) -> Any:
    """Run the real pipeline and return its output.

    Noise is drawn on the CPU, so that a seed means the same everywhere.

    Args:
        model: whose pipeline runs.
        request: what to make.
        before: called with the denoiser and its arguments at the start of each of its forwards; every
            pipeline has those, whatever callbacks it knows. It may raise to stop the run.

    Raises:
        InputError: the size does not suit the model.
        FileError: the image cannot be read.
    """
    arguments = pipeline_arguments(model, request)
    try:
        with (
            _guider(model, request),
            nullcontext() if request.guided else uncompiled(),  # who captures adds hooks
            watch_calls(tuple(m for _, m in called_denoisers(model.pipeline, model.family)), before),
        ):
            return model.pipeline(**arguments)
    finally:
        model.pipeline.maybe_free_model_hooks()


def pipeline_arguments(model: Model, request: Request) -> dict[str, Any]:
    """Return the call of a request, only with arguments that the pipeline knows."""
    family, defaults, settings = model.family, model.defaults, request.settings
    known = inspect.signature(type(model.pipeline).__call__).parameters
    height, width = settings.height or defaults.height, settings.width or defaults.width
    multiple = family.size_multiple
    if height % multiple or width % multiple:
        raise InputError(f"Height and width are {height} and {width}; both must be multiples of {multiple}.")
    frames = settings.frames or defaults.frames
    if request.guided and frames < family.fewest_frames:
        raise InputError(
            f"{frames} frames are too few for {family.title}; ask for {family.fewest_frames} or more."
        )
    scale = defaults.guidance_scale if settings.guidance_scale is None else settings.guidance_scale
    count = len(request.prompts)
    wanted: dict[str, Any] = {
        "prompt": list(request.prompts),
        "height": height,
        "width": width,
        "num_inference_steps": settings.steps or defaults.steps,
        "max_sequence_length": defaults.text_length,
        "generator": [torch.Generator("cpu").manual_seed(seed) for seed in request.seeds],
        "output_type": request.output,
        family.guided_by: scale,
        **dict.fromkeys(_FRAMES, frames),
        **family.arguments,
    }
    if settings.negative_prompt is not None or family.needs_negative:
        wanted["negative_prompt"] = [settings.negative_prompt or ""] * count
    if model.takes_image:
        wanted["image"] = _start(request.image, family, (width, height), fitted="height" not in known)
    if not request.guided:
        wanted |= family.unguided
    if not family.batches:  # it takes no list, not even of one
        for name in ("prompt", "generator", "negative_prompt"):
            wanted |= {name: wanted[name][0]} if name in wanted else {}
    return {name: value for name, value in wanted.items() if name in known} | dict(model.extras)


def _start(path: Path | None, family: Family, size: tuple[int, int], *, fitted: bool) -> Image.Image | None:
    """Return the image that a video starts from; fitted: the video will be as large as it."""
    if path is None:
        return None if family.image_optional else neutral_image(*size)
    return ImageOps.fit(load_image(path), size) if fitted else load_image(path)


def check_prompts(model: Model, prompts: Iterable[str], *, cut: bool = False) -> list[str]:
    """Return the prompts without surrounding space.

    Args:
        model: whose tokens are counted.
        prompts: as they are.
        cut: leave longer ones to the pipeline, which cuts them at what its text encoder reads.

    Raises:
        InputError: a prompt is empty, or longer than the model's text encoder reads.
    """
    texts = [prompt_text(prompt, "The prompt") for prompt in prompts]
    if cut:
        return texts
    limit = model.defaults.text_length
    for prompt, tokens in zip(texts, model.tokens(texts), strict=True):
        if len(tokens) > limit:
            raise InputError(
                f"'{shown(prompt, 40)}' has {len(tokens)} tokens; this model reads {limit}:"
                " shorten the prompt."
            )
    return texts


@contextmanager
def _guider(model: Model, request: Request) -> Iterator[None]:
    """Give a pipeline that keeps its guidance in a component the scale of this request."""
    if model.family.guided_by != "guider":
        yield
        return
    original = model.pipeline.guider
    scale = request.settings.guidance_scale if request.guided else 1.0
    try:
        if scale is not None:
            model.pipeline.guider = original.new(guidance_scale=scale)
        yield
    finally:
        model.pipeline.guider = original
