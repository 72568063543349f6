"""Sites: the editable linear layers of a model, in execution order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from refusal_core.errors import ModelError, SiteError
from refusal_core.models.families import Family
from refusal_core.settings import SiteKind

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, slots=True)
class Site:
    """One linear layer y = W x + b, W [outputs, inputs]; ``block`` counts from 0 in execution order."""

    name: str
    block: int
    kind: SiteKind
    inputs: int
    outputs: int
    has_bias: bool


def list_sites(
    denoisers: Sequence[tuple[str, nn.Module]], family: Family
) -> Iterator[tuple[Site, nn.Linear]]:
    """Yield every editable site of the denoisers with its layer.

    Raises:
        ModelError: a layer the family names is missing or is no plain linear layer.
    """
    for prefix, denoiser in denoisers:
        for path in family.entry:
            yield _site(denoiser, prefix, path, 0, "text-entry")
        for index in range(len(denoiser.get_submodule(family.blocks))):
            for kind, paths in family.sites.items():
                for path in paths:
                    yield _site(denoiser, prefix, f"{family.blocks}.{index}.{path}", index, kind)


def _site(denoiser: nn.Module, prefix: str, path: str, block: int, kind: SiteKind) -> tuple[Site, nn.Linear]:
    name = f"{prefix}.{path}"
    try:
        layer = denoiser.get_submodule(path)
    except AttributeError as e:
        raise ModelError(f"The model has no layer {name}; it is not of the family it claims.") from e
    # Quantised layers keep the class name Linear; the type of the weight tells them apart.
    if (
        type(layer) is not nn.Linear
        or type(layer.weight) is not nn.Parameter
        or layer.weight.dtype not in _FLOATS
    ):
        raise ModelError(
            f"{name} is a {type(layer).__name__} with a {type(layer.weight).__name__} weight;"
            " load the model unquantised and without adapters."
        )
    return Site(name, block, kind, layer.in_features, layer.out_features, layer.bias is not None), layer


def select(
    sites: Sequence[Site], kinds: Sequence[SiteKind] | None, layers: Sequence[int] | None
) -> tuple[Site, ...]:
    """Return the sites of the given kinds and blocks; None means all.

    Raises:
        SiteError: nothing is left; the sentence names what the model has.
    """
    chosen = tuple(
        s
        for s in sites
        if (kinds is None or s.kind in kinds)
        and (layers is None or s.block in layers or s.kind == "text-entry")
    )
    if not chosen:
        known = ", ".join(dict.fromkeys(s.kind for s in sites))
        asked = f"{', '.join(kinds or ('any',))} at layers {', '.join(map(str, layers or ('any',)))}"
        raise SiteError(f"No site is left for {asked}; this model has {known}.")
    return chosen
