"""Sites: the editable linear layers of a model, in execution order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from refusal_core.errors import ModelError, SiteError
from refusal_core.models.families.family import TEXT_KINDS, Blocks, Family, Layout
from refusal_core.models.quantised import is_plain, kind_of
from refusal_core.settings import SiteKind


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
) -> Iterator[tuple[Site, nn.Linear, Layout]]:
    """Yield every editable site of the denoisers with its layer and the layout of what enters it.

    Raises:
        ModelError: a layer the family names is missing, or is no plain linear layer.
    """
    for prefix, denoiser in denoisers:
        for path in family.entry:
            if _find(denoiser, path) is not None:
                yield (*_site(denoiser, prefix, path, 0, "text-entry"), "text")
        first = 0
        for blocks in family.blocks:
            paths = block_paths(denoiser, blocks)
            start = 0 if blocks.own_count else first
            for index, block in enumerate(paths, start):
                for kind, relative in blocks.sites.items():
                    layout = _text_layout(denoiser, blocks) if kind in TEXT_KINDS else blocks.layout
                    for path in (f"{block}.{inner}" for inner in relative):
                        if path[-1] == "?" and _find(denoiser, path[:-1]) is None:
                            continue
                        yield (*_site(denoiser, prefix, path.removesuffix("?"), index, kind), layout)
            first = start + len(paths)


def _text_layout(denoiser: nn.Module, blocks: Blocks) -> Layout:
    return "text-stream" if _configured(denoiser, blocks.text_modulated_by) else blocks.text


def _configured(denoiser: nn.Module, name: str) -> Any:
    """Return a value of a denoiser's configuration; None where there is none, or no name."""
    return getattr(denoiser.config, name, None) if name else None


def block_paths(denoiser: nn.Module, blocks: Blocks) -> list[str]:
    """Return the paths of the blocks of a denoiser in execution order."""
    paths = [path for pattern in blocks.paths for path in _expand(denoiser, pattern)]
    return paths[: len(paths) - int(_configured(denoiser, blocks.without_last) or 0)]


def _expand(module: nn.Module, pattern: str) -> list[str]:
    head, star, tail = pattern.partition(".*")
    parent = _find(module, head)
    if parent is None:  # a UNet's outermost blocks have no attention
        return []
    if not star:
        return [head]
    inner = tail.removeprefix(".")
    paths = []
    for index, child in enumerate(parent.children()):
        rest = [f".{path}" for path in _expand(child, inner)] if inner else [""]
        paths += [f"{head}.{index}{path}" for path in rest]
    return paths


def _find(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _site(denoiser: nn.Module, prefix: str, path: str, block: int, kind: SiteKind) -> tuple[Site, nn.Linear]:
    name = f"{prefix}.{path}"
    layer = _find(denoiser, path)
    if layer is None:
        raise ModelError(f"The model has no layer {name}; it is not of the family it claims.")
    while isinstance(base := getattr(layer, "base_layer", None), nn.Module):
        layer = base  # wrapped by peft: the edit belongs into the weight below the adapter
    if not isinstance(layer, nn.Linear) or not (is_plain(layer) or kind_of(layer)):
        weight = getattr(layer, "weight", None)
        raise ModelError(
            f"{name} is a {type(layer).__name__} with a {type(weight).__name__} of"
            f" {getattr(weight, 'dtype', None)}; edit the unquantised model, then quantise the result."
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
        request = f"{', '.join(kinds or ('any',))} at layers {', '.join(map(str, layers or ('any',)))}"
        raise SiteError(f"No site is left for {request}; this model has {known}.")
    return chosen
