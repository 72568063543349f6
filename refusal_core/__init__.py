"""Refusal Studio: remove a concept from a text-to-video diffusion model in closed form.

Names are loaded on first use (PEP 562): ``import refusal_core`` loads neither torch nor diffusers,
so that ``--help`` answers at once.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# No room is called like a name below: the import system would put the module in its place.
_HOMES = {
    "load_model": "models.load",
    "LoadSettings": "models.load_settings",
    "load_concept": "concepts",
    "load_preset": "concepts",
    "Concept": "concepts",
    "PromptPair": "concepts",
    "capture": "capturing",
    "save_activations": "activations",
    "load_activations": "activations",
    "estimate": "directions",
    "make_edit": "edit",
    "combine": "edit",
    "with_strength": "edit",
    "save_edit": "edit",
    "load_edit": "edit",
    "applied": "apply",
    "export_lora": "export.lora",
    "export_weights": "export.lora",
    "bake": "export.bake",
    "generate": "sampling",
    "compare": "sampling",
    "save_video": "io.video",
    "CaptureSettings": "settings",
    "SubspaceSettings": "settings",
    "EditSettings": "settings",
    "SamplingSettings": "settings",
    "RefusalError": "errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'refusal_core' has no attribute '{name}'")
    return getattr(importlib.import_module(f"refusal_core.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
