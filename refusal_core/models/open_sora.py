"""Open-Sora's own models, by the names of their layers: its code is never imported.

Open-Sora has its own sampler, so ``refusal_core.listening`` reads while that runs; the edit then goes into
the module (``applied``) or into the checkpoint on disk (``bake``).
"""

from __future__ import annotations

from dataclasses import asdict, is_dataclass, replace
from types import SimpleNamespace
from typing import Any

from torch import nn

from refusal_core.errors import ModelError
from refusal_core.models.families.family import Blocks, Defaults, Family, Sites
from refusal_core.models.model import Model, wrap_pipeline

_STDIT_SITES: Sites = {
    "cross-attention": ("cross_attn.proj",),
    "feed-forward": ("mlp.fc1",),
    "feed-forward-out": ("mlp.fc2",),
    "self-attention": ("attn.proj",),
}
STDIT3 = Family(
    name="open-sora-stdit3",
    title="Open-Sora 1.2 and 1.3 (STDiT3)",
    pipelines=(),
    denoisers=("model",),
    # Spatial and temporal blocks alternate and share their count: both have cross-attention.
    blocks=(
        Blocks(("spatial_blocks.*",), _STDIT_SITES),
        Blocks(("temporal_blocks.*",), _STDIT_SITES, own_count=True),
    ),
    text_arguments=("y",),
    defaults=Defaults(51, 240, 426, 24.0, 30, 7.0, 300),
    lora=None,
)
MMDIT = Family(
    name="open-sora-mmdit",
    title="Open-Sora 2 (MMDiT)",
    pipelines=(),
    denoisers=("model",),
    blocks=(
        Blocks(
            ("double_blocks.*",),
            {
                "cross-attention": ("img_attn.proj",),
                "feed-forward": ("img_mlp.0",),
                "feed-forward-out": ("img_mlp.2",),
            },
        ),
        Blocks(("single_blocks.*",), {"feed-forward-out": ("linear2",)}, "text-first"),
    ),
    text_arguments=("txt",),
    defaults=Defaults(129, 256, 256, 24.0, 50, 7.5, 512),
    lora=None,
)
# Under guidance Open-Sora puts the prompt's rows first; diffusers puts them last.
BRANCHES = {"open-sora-stdit3": 2, "open-sora-mmdit": 3}
# Of MMDiT's configuration: where its files lay and how it was trained, not what it is.
_NOT_ARCHITECTURE = ("from_pretrained", "cache_dir", "grad_ckpt_settings")


def adopt(module: nn.Module, name: str = "open-sora") -> Model:
    """Return the Model of an Open-Sora denoiser, for ``applied`` and for listening.

    Raises:
        ModelError: it has neither STDiT3's nor MMDiT's blocks.
    """
    family = next(
        (f for f in (STDIT3, MMDIT) if isinstance(getattr(module, _first_list(f), None), nn.ModuleList)), None
    )
    if family is None:
        raise ModelError(f"{type(module).__name__} has neither spatial_blocks nor double_blocks.")
    model = wrap_pipeline(_holder(_described(module)), name, family)
    return replace(model, pipeline=_holder(module))


def _holder(module: nn.Module) -> SimpleNamespace:
    return SimpleNamespace(model=module, set_progress_bar_config=lambda **_: None)


class _Described(nn.Module):
    """The same layers beside a configuration that can be read as a dictionary."""

    def __init__(self, module: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        for name, child in module.named_children():
            self.add_module(name, child)
        self.__dict__["config"] = config


def _described(module: nn.Module) -> nn.Module:
    """Return what tells a model's architecture: MMDiT's configuration is a dataclass, STDiT3's is none."""
    plain = getattr(module, "_orig_mod", module)  # torch.compile
    config = getattr(plain, "config", None)
    if not is_dataclass(config) or isinstance(config, type):
        return module
    return _Described(plain, {k: v for k, v in asdict(config).items() if k not in _NOT_ARCHITECTURE})


def _first_list(family: Family) -> str:
    return family.blocks[0].paths[0].removesuffix(".*")
