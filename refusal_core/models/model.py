"""A loaded pipeline as a ``Model``: its family, its editable sites, and what it is known by."""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from refusal_core.errors import ModelError
from refusal_core.models.families import FAMILIES, LEFT_OUT
from refusal_core.models.families.family import Defaults, Family, Layout
from refusal_core.models.load_settings import LoadSettings
from refusal_core.models.quantised import dequantised, is_plain, kind_of
from refusal_core.models.sites import Site, list_sites

DENOISERS = ("transformer", "unet", "transformer_2")  # what pipelines call them
# By the denoiser itself: several Models may wrap one pipeline.
_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What an edit or a file of activations was made for. Equal weights give equal fingerprints."""

    family: str
    pipeline: str
    config: str  # hash of the denoisers' configurations
    weights: str  # hash of shapes and first values of the editable weights

    def fits(self, other: Fingerprint) -> bool:
        """Return whether an edit made for the other can be applied: the same architecture."""
        return (self.family, self.pipeline, self.config) == (other.family, other.pipeline, other.config)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A loaded pipeline with its editable sites."""

    name: str
    title: str
    pipeline: Any  # a diffusers pipeline: the classes share no useful base type
    family: Family
    defaults: Defaults
    sites: tuple[Site, ...]
    layers: Mapping[str, nn.Linear] = field(repr=False)
    layouts: Mapping[str, Layout] = field(repr=False)  # of what enters each layer
    fingerprint: Fingerprint
    extras: Mapping[str, Any] = field(default_factory=dict)  # arguments of this pipeline alone
    # How it was loaded; of a pipeline that someone else made nothing is kept unless they say so.
    loading: LoadSettings = field(default_factory=lambda: LoadSettings(cache=False))

    @property
    def precision(self) -> str:
        """The dtype of the editable weights, such as ``bfloat16``, or how they are quantised."""
        first, *_ = layers = list(self.layers.values())
        dtype = str(first.weight.dtype).removeprefix("torch.")
        return next(filter(None, map(kind_of, layers)), dtype)

    @property
    def denoisers(self) -> tuple[nn.Module, ...]:
        """The networks that predict noise or velocity, in execution order."""
        return tuple(m for _, m in _denoisers(self.pipeline, self.family))

    @property
    def lock(self) -> threading.RLock:
        """Held while weights are edited and while the model runs, so that threads never mix."""
        with _LOCKS_GUARD:
            return _LOCKS.setdefault(self.denoisers[0], threading.RLock())

    @property
    def denoiser_names(self) -> tuple[str, ...]:
        """Their attributes in the pipeline."""
        return tuple(name for name, _ in _denoisers(self.pipeline, self.family))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of prompts; some pipelines keep it inside a processor of text and images."""
        return getattr(self.pipeline.tokenizer, "tokenizer", self.pipeline.tokenizer)

    def tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of prompts as the pipeline encodes them."""
        # Without their cleaning of captions these pipelines still write them in small letters.
        lowered = "clean_caption" in self.family.arguments
        texts = [prompt.lower() if lowered else prompt for prompt in prompts]
        return [list(tokens) for tokens in self.tokenizer(texts).input_ids]

    def free(self) -> None:
        """Move the networks off the GPU where offloading moves them one by one; nothing elsewhere."""
        self.pipeline.maybe_free_model_hooks()

    def pieces(self, frames: int) -> int:
        """Return how many pieces a video of so many frames is made in, one after the other."""
        return -(-frames // self.piece_frames) if self.piece_frames else 1

    @property
    def piece_frames(self) -> int:
        """Frames of a piece, where a video is made piece by piece; else 0."""
        if self.family.piece is None:
            return 0
        name, usual = self.family.piece
        ratio = int(self.pipeline.vae_scale_factor_temporal)
        return (int(self.extras.get(name, usual)) - 1) * ratio + 1

    @property
    def takes_image(self) -> bool:
        """Whether a video starts, or may start, from an image."""
        return "image" in inspect.signature(type(self.pipeline).__call__).parameters

    @property
    def takes_batches(self) -> bool:
        """Whether several prompts may go into one call; pipelines repeat one image over the batch."""
        return self.family.batches and not self.takes_image

    @property
    def block_count(self) -> int:
        """Number of blocks that see the text."""
        return 1 + max(site.block for site in self.sites if site.kind != "temporal")

    @property
    def is_small(self) -> bool:
        """Whether many prompts may go through in one batch."""
        return sum(p.numel() for d in self.denoisers for p in d.parameters()) < 100_000_000


def wrap_pipeline(pipeline: Any, name: str, family: Family | None = None) -> Model:
    """Return the Model of a pipeline that is already loaded.

    Args:
        pipeline: a diffusers pipeline.
        name: shown to the user.
        family: what to take it for; None looks its class up in the table.

    Raises:
        ModelError: no family knows this pipeline class, or its layers are not as the family says.
    """
    family = family or family_of(type(pipeline).__name__)
    pipeline.set_progress_bar_config(disable=True)
    denoisers = _denoisers(pipeline, family)
    for attribute, module in denoisers:
        if any(getattr(m, "fused_projections", False) for m in module.modules()):
            raise ModelError(
                f"{attribute} has fused projections, which are copies; call"
                f" pipeline.{attribute}.unfuse_qkv_projections() first, and fuse again after."
            )
    listed = list(list_sites(denoisers, family))
    layers = {site.name: layer for site, layer, _ in listed}
    layouts = {site.name: layout for site, _, layout in listed}
    fingerprint = Fingerprint(
        family.name, type(pipeline).__name__, _config_hash(pipeline, family), _weights_hash(layers)
    )
    sites = tuple(site for site, _, _ in listed)
    defaults = family.defaults_of(
        name, lambda part, value: config_of(getattr(pipeline, part, None)).get(value)
    )
    return Model(name, name, pipeline, family, defaults, sites, layers, layouts, fingerprint)


def family_of(kind: str) -> Family:
    """Return the family of a pipeline class; raises ModelError with what is known."""
    for family in FAMILIES:
        if kind in family.pipelines:
            return family
    if kind in LEFT_OUT:
        raise ModelError(f"{kind} is left out: {LEFT_OUT[kind]}")
    known = ", ".join(p for f in FAMILIES for p in f.pipelines)
    raise ModelError(f"{kind} is not supported yet; supported are {known}.")


def denoiser_places(kind: str) -> tuple[str, ...]:
    """Return where a pipeline class has its denoisers, or may have them where it is of no known family."""
    return next((family.denoisers for family in FAMILIES if kind in family.pipelines), DENOISERS)


def called_denoisers(pipeline: Any, family: Family) -> list[tuple[str, nn.Module]]:
    """Return the denoisers with their attributes, as the pipeline calls them."""
    parts = [(name, getattr(pipeline, name, None)) for name in family.denoisers]
    return [(name, module) for name, module in parts if module is not None]


def _denoisers(pipeline: Any, family: Family) -> list[tuple[str, nn.Module]]:
    # torch.compile wraps a module and puts a prefix before its names; the weights are those below.
    return [(name, getattr(m, "_orig_mod", m)) for name, m in called_denoisers(pipeline, family)]


def _config_hash(pipeline: Any, family: Family) -> str:
    configs = [
        # Quantised or not, it is one model: an edit made on either fits the other.
        {k: v for k, v in sorted(config_of(module).items()) if k[0] != "_" and k != "quantization_config"}
        for _, module in _denoisers(pipeline, family)
    ]
    return hashlib.sha256(json.dumps(configs, sort_keys=True, default=str).encode()).hexdigest()[:16]


def config_of(module: nn.Module | None) -> dict[str, Any]:
    """Return a network's configuration; of none, nothing."""
    config = getattr(module, "config", {})
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def _weights_hash(layers: Mapping[str, nn.Linear]) -> str:
    digest = hashlib.sha256()
    for name, layer in layers.items():
        shape = (layer.out_features, layer.in_features)
        digest.update(f"{name} {shape}".encode())
        if layer.weight.device.type != "meta":
            weight = layer.weight if is_plain(layer) else dequantised(layer)
            digest.update(weight.detach().flatten()[:16].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
