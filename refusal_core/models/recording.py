"""The calls that a pipeline makes of its denoiser: recorded, listened to on the way, and repeated.

There is no denoising loop here: the real pipeline runs. Knows nothing of pairs, and keeps no rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refusal_core.errors import InputError
from refusal_core.hooks import StopForward, tap
from refusal_core.models.calling import Request, call_pipeline
from refusal_core.models.compiling import uncompiled
from refusal_core.models.model import Model
from refusal_core.models.sites import Site
from refusal_core.settings import SamplingSettings

logger = logging.getLogger(__name__)
SMALL_BATCH, LARGE_BATCH = 32, 1
# Two steps, not one: Mochi's schedule divides by half of them.
FULL_SIZE = SamplingSettings(steps=2)


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One forward of a denoiser, as the pipeline made it."""

    denoiser: nn.Module
    arguments: dict[str, Any]


def record(
    model: Model,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    limit: int,
    image: Path | None,
) -> list[Call]:
    """Run the real pipeline without guidance and return the denoiser calls it makes, ``limit`` at most."""
    calls: list[Call] = []

    def before(denoiser: nn.Module, arguments: dict[str, Any]) -> None:
        calls.append(Call(denoiser, arguments))
        if len(calls) == limit:
            raise StopForward

    with suppress(StopForward):
        call_pipeline(model, Request(prompts, seeds, settings, False, "latent", image), before)
    return calls


def begin(
    model: Model, prompts: Sequence[str], image: Path | None, settings: SamplingSettings = FULL_SIZE
) -> Call:
    """Return the first denoiser call of a run on these prompts; the run goes no further."""
    return record(model, prompts, [0] * len(prompts), settings, 1, image)[0]


def text_of(
    model: Model, prompts: Sequence[str], image: Path | None, settings: SamplingSettings
) -> dict[str, Any]:
    """Return the text that the pipeline hands to its denoiser, to be put into another run's calls."""
    arguments = begin(model, prompts, image, settings).arguments
    return {name: arguments[name] for name in model.family.text_arguments if name in arguments}


def first_call(model: Model, prompts: Sequence[str]) -> dict[str, Any]:
    """Return what the pipeline hands to its denoiser at the first step of these prompts."""
    with torch.inference_mode():
        return _copied(begin(model, prompts, None).arguments)


def record_calls(model: Model, prompts: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return what the pipeline hands to its denoiser at every step of a run without guidance."""
    with torch.inference_mode():
        calls = record(model, prompts, seeds, SamplingSettings(), 0, None)
    return [_copied(call.arguments) for call in calls]


def _copied(arguments: dict[str, Any]) -> dict[str, Any]:
    # Tensors made in inference mode cannot take part in a backward pass; their copies can.
    return {name: value.clone() if torch.is_tensor(value) else value for name, value in arguments.items()}


def sites_of(model: Model, sites: Sequence[Site]) -> dict[int, dict[str, Site]]:
    """Return the sites of each denoiser by their names; denoisers by ``id``."""
    return {
        id(denoiser): {s.name: s for s in sites if s.name.startswith(f"{name}.")}
        for denoiser, name in zip(model.denoisers, model.denoiser_names, strict=True)
    }


def listen(call: Call, model: Model, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """Repeat a call and return what enters the sites of its denoiser; stop after the deepest one."""
    inside = sites_of(model, sites)[id(call.denoiser)]
    seen: dict[Site, Tensor] = {}

    def read(name: str, x: Tensor) -> None:
        seen[inside[name]] = x  # the tensor itself: identity tells which sites share their input
        if len(seen) == len(inside):
            raise StopForward

    if inside:
        with uncompiled(), tap({name: model.layers[name] for name in inside}, read), suppress(StopForward):
            call.denoiser(**call.arguments)
    return seen


def read_run(
    model: Model,
    request: Request,
    chosen: Collection[int],
    sites: Sequence[Site],
    read: Callable[[Call, Site, Tensor], None],
) -> list[Call]:
    """Run the pipeline and read the sites on the way; nothing runs behind the last one that is read.

    Args:
        model: whose pipeline runs.
        request: of a run without guidance.
        chosen: numbers of the denoiser's calls at which its sites are read.
        sites: of one or more denoisers.
        read: called with what enters a site, and the call in which it does.

    Returns:
        The chosen calls, in their order.

    Raises:
        InputError: the pipeline makes fewer calls.
    """
    inside = sites_of(model, sites)
    waiting: dict[str, Site] = {}  # sites that are still to be read in this call
    calls: list[Call] = []
    count = 0

    def before(denoiser: nn.Module, arguments: dict[str, Any]) -> None:
        nonlocal count
        waiting.clear()
        if count in chosen:
            calls.append(Call(denoiser, arguments))
            waiting.update(inside[id(denoiser)])
        count += 1

    def enter(name: str, x: Tensor) -> None:
        if (site := waiting.pop(name, None)) is None:
            return
        read(calls[-1], site, x)
        if not waiting and len(calls) == len(chosen):
            raise StopForward

    with tap({site.name: model.layers[site.name] for site in sites}, enter), suppress(StopForward):
        call_pipeline(model, request, before)
    if len(calls) < len(chosen):
        raise InputError(
            f"The model took {count} of {max(chosen) + 1} denoising steps; ask for fewer timesteps."
        )
    return calls


def smallest_video(model: Model, sites: Sequence[Site]) -> SamplingSettings:
    """Return the size of the smallest video whose forward reaches all these sites.

    What enters text-side sites does not depend on the video, so that any will do: on Wan 2.1 1.3B a
    forward on one frame of 16 x 16 costs 1/1800 of one at full size. What a network takes is not written
    anywhere, so it is tried, smallest first.
    """
    for frames in (1, None):
        for side in (16, 32, 64, 128):
            settings = SamplingSettings(steps=2, frames=frames, width=side, height=side)
            try:
                call = begin(model, ["a"], None, settings)
                reached = [listen(Call(d, call.arguments), model, sites) for d in model.denoisers]
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # each network fails in its own way where a side is too small for it
                logger.debug("no forward at %s x %s, %s frames", side, side, frames, exc_info=True)
                continue
            if sum(map(len, reached)) == len(sites):
                return settings
    return FULL_SIZE


def batches(model: Model, prompts: range) -> list[range]:
    """Return which of some prompts go through the model together."""
    size = SMALL_BATCH if model.is_small and model.takes_batches else LARGE_BATCH
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def valid_rows(model: Model, call: Call, shape: tuple[int, int], tokens: Sequence[list[int]]) -> Tensor:
    """Return [B, T] bool: the text rows that are the prompt's, neither padding nor learned tokens."""
    mask = call.arguments.get("encoder_attention_mask")
    if torch.is_tensor(mask) and not (model.family.registers and bool(mask.all())):
        own = mask.reshape(shape[0], -1).bool().cpu()
        if (fewer := model.family.image_in_text) is not None:
            own[:, : fewer - model.defaults.text_length] = False
        before = shape[1] - own.shape[1]  # rows of a first image
        if before == 0 or (before > 0 and not model.family.templated):
            return F.pad(own, (before, 0))
    if model.family.templated:
        return torch.ones(shape, dtype=torch.bool)
    lengths = torch.tensor([len(t) for t in tokens])
    return torch.arange(shape[1])[None] < lengths[:, None]
