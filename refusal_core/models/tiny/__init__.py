"""Tiny random pipelines of the real diffusers classes, built without any download.

They show that every step works on each family's own code; their videos are noise.
"""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch

from refusal_core.models.families.family import Defaults
from refusal_core.models.model import Model, wrap_pipeline
from refusal_core.models.tiny.recipe import Part
from refusal_core.models.tiny.recipes import RECIPES

NAMES = tuple(RECIPES)
SEED = 0


def tiny_model(name: str, pipeline: Any = None) -> Model:
    """Return the Model of a tiny pipeline: of a new one, or of one that was saved and loaded."""
    recipe = RECIPES[name]
    frames, size, text = recipe.size
    model = wrap_pipeline(build(name) if pipeline is None else _prepare(pipeline), name)
    return replace(model, defaults=Defaults(frames, size, size, 8.0, 2, 3.0, text), extras=recipe.extras)


def build(name: str) -> Any:
    """Return a tiny pipeline with the same random weights each time; the global generator is left alone."""
    import diffusers

    from refusal_core.models.tiny.text import image_parts, text_parts

    recipe = RECIPES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        parts = text_parts(recipe.text) | image_parts(recipe.eye)
        attribute = "unet" if recipe.denoiser.kind.startswith("UNet") else "transformer"
        parts |= {"vae": recipe.vae, attribute: recipe.denoiser, "scheduler": recipe.scheduler, **recipe.more}
        for role, made in parts.items():
            if isinstance(made, Part):
                parts[role] = attrgetter(made.kind)(diffusers)(**made.config)
        if name == "mochi":  # left uninitialised by its class
            torch.nn.init.normal_(parts["transformer"].pos_frequencies, std=0.1)
        pipeline = getattr(diffusers, recipe.pipeline)(**parts)
        for module in pipeline.components.values():
            if isinstance(module, torch.nn.Module):
                _shake(module.eval())
    return _prepare(pipeline)


def _shake(module: torch.nn.Module) -> None:
    """Give weights that start at zero a value: an untrained gate would hide what lies behind it."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)


def _prepare(pipeline: Any) -> Any:
    """Set what diffusers does not save with a pipeline, and return it."""
    kind = type(pipeline).__name__
    if kind == "AllegroPipeline":
        pipeline.vae.enable_tiling()  # it decodes no other way
    if kind.startswith("LTX"):
        pipeline.vae.use_framewise_encoding = pipeline.vae.use_framewise_decoding = False
    if kind.startswith(("HunyuanVideo15", "Kandinsky5")):
        pipeline.prompt_template_encode_start_idx = 0  # the published template's length, not ours
    if kind.startswith("Kandinsky5"):
        pipeline.prompt_template = "{}"
    if kind.startswith("HunyuanVideo15"):
        pipeline.tokenizer_max_length = pipeline.tokenizer_2_max_length = 16
        pipeline.vision_num_semantic_tokens = 4
    return pipeline
