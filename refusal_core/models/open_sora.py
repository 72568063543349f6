"""Open-Sora's own models, by the names of their layers: its code is never imported.

Open-Sora has its own sampler, so capture listens while that runs; the edit then goes into the module
(``applied``) or into the checkpoint on disk (``bake``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from refusal_core.activations import Activations, Samples
from refusal_core.concepts import Concept
from refusal_core.errors import InputError, ModelError
from refusal_core.hooks import tap
from refusal_core.models.family import Blocks, Defaults, Family, Sites
from refusal_core.models.model import Model, wrap_pipeline
from refusal_core.models.sites import Site, select
from refusal_core.settings import CaptureSettings, SiteKind

Side = Literal["unsafe", "safe", "neutral"]

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
_BRANCHES = {"open-sora-stdit3": 2, "open-sora-mmdit": 3}
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


class Listener:
    """Collects activations while Open-Sora's own inference runs, one prompt at a time.

    Example::

        listener = Listener(adopt(model), frames=15)
        for unsafe, safe in pairs:
            with listener.listen("unsafe"):
                run_inference(unsafe, seed=0)
            with listener.listen("safe"):
                run_inference(safe, seed=0)
        seen = listener.activations(concept)
    """

    def __init__(
        self,
        model: Model,
        kinds: Sequence[SiteKind] = ("cross-attention",),
        layers: Sequence[int] | None = None,
        *,
        frames: int = 1,
        every: int = 5,
        guided: bool = True,
    ) -> None:
        """Choose what is read.

        Args:
            model: from ``adopt``.
            kinds: of sites.
            layers: blocks; None means all.
            frames: latent frames; one row a frame is kept.
            every: of the denoising steps, read each so many.
            guided: whether rows of other guidance branches follow the prompt's.
        """
        self._model = model
        self._sites = {s.name: s for s in select(model.sites, tuple(kinds), layers)}
        self._frames, self._every, self._guided = frames, every, guided
        self._rows: dict[Side, list[dict[str, Tensor]]] = {"unsafe": [], "safe": [], "neutral": []}

    @contextmanager
    def listen(self, side: Side) -> Iterator[None]:
        """Read what one prompt's inference sends through the sites."""
        steps: dict[str, list[Tensor]] = {name: [] for name in self._sites}
        calls = dict.fromkeys(self._sites, 0)
        video = {"tokens": 0}
        layers = {name: self._model.layers[name] for name in self._sites}
        first = next(name for name in self._model.layers if self._model.layouts[name] == "batch")

        def read(name: str, x: Tensor) -> None:
            if self._model.layouts[name] == "batch":
                video["tokens"] = x.shape[1]
            if name not in calls:
                return
            if calls[name] % self._every == 0:
                steps[name].append(self._pool(x[:, -video["tokens"] :]))
            calls[name] += 1

        with torch.no_grad(), tap({first: self._model.layers[first], **layers}, read):
            yield
        if not all(steps.values()):
            raise InputError("The inference inside listen() did not run the model; run it there.")
        self._rows[side].append({name: torch.cat(rows) for name, rows in steps.items()})

    def _pool(self, x: Tensor) -> Tensor:
        """Return [frames, H]: the means over a frame's tokens, of the prompt's rows only."""
        branches = _BRANCHES[self._model.family.name] if self._guided else 1
        if len(x) % branches:
            raise InputError(
                f"{len(x)} rows are not {branches} guidance branches; without guidance say guided=False."
            )
        if x.shape[1] % self._frames:
            raise InputError(f"{list(x.shape)} rows do not divide into {self._frames} frames; correct it.")
        prompt = x[: len(x) // branches].float().mean(0)
        return prompt.unflatten(0, (self._frames, -1)).mean(1).cpu()

    def activations(self, concept: Concept) -> Activations:
        """Return what was read.

        Raises:
            InputError: the prompts listened to are not those of the concept, in number or in steps.
        """
        asked = (len(concept.pairs), len(concept.pairs))
        heard = (len(self._rows["unsafe"]), len(self._rows["safe"]))
        if heard != asked:
            raise InputError(f"{heard[0]} unsafe and {heard[1]} safe prompts were heard of {asked[0]} pairs.")
        pairs = tuple((p.unsafe, p.safe) for p in concept.pairs)
        settings = CaptureSettings(kinds=tuple(dict.fromkeys(s.kind for s in self._sites.values())))
        sites = {site: self._samples(name, site) for name, site in self._sites.items()}
        return Activations(
            self._model.fingerprint, concept.name, pairs, replace(settings, trajectory="own"), sites
        )

    def _samples(self, name: str, site: Site) -> Samples:
        unsafe, safe = ([rows[name] for rows in self._rows[side]] for side in ("unsafe", "safe"))
        if any(len(u) != len(s) for u, s in zip(unsafe, safe, strict=True)):
            raise InputError("An unsafe and its safe prompt took different numbers of steps; use the same.")
        neutral = [rows[name] for rows in self._rows["neutral"]]
        numbers = [torch.full((len(u),), i) for i, u in enumerate(unsafe)]
        return Samples(
            torch.cat(unsafe),
            torch.cat(safe),
            torch.cat(neutral) if neutral else torch.empty(0, site.inputs),
            torch.cat(numbers),
            by_token=False,
        )
