"""What a model has to edit, read from its configuration alone: no weight is loaded."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refusal_core.errors import FileError, ModelError
from refusal_core.models.families import FAMILIES
from refusal_core.models.families.family import Defaults, Family, Network
from refusal_core.models.hub_files import fetch
from refusal_core.models.model import config_of, family_of
from refusal_core.models.sites import Site, list_sites

MAX_CONFIG = 1 << 20
HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


@dataclass(frozen=True, slots=True)
class Inventory:
    """The editable layers of a model."""

    source: str
    family: Family
    sites: tuple[Site, ...]
    parameters: int  # of the denoisers together
    largest: int  # of one of them
    licence: str
    defaults: Defaults  # what the checkpoint was made for
    networks: tuple[Network, ...] = ()  # what the denoisers are built with

    def counts(self) -> dict[str, int]:
        """Return the number of sites of each kind."""
        return dict(Counter(site.kind for site in self.sites))

    def shapes(self) -> list[tuple[str, int, int, int]]:
        """Return (kind, inputs, outputs, how many) in the order of the sites."""
        counts = Counter((s.kind, s.inputs, s.outputs) for s in self.sites)
        return [(*shape, count) for shape, count in counts.items()]


def inventory(source: str) -> Inventory:
    """Return what a published model, or one in a diffusers folder, has to edit.

    Args:
        source: a hub id, or a folder with model_index.json. Of an id in the table nothing is fetched, of
            others the configurations.

    Raises:
        ModelError: neither, or of no known family; or the hub refuses, or cannot be reached.
        FileError: a configuration cannot be read.
    """
    if Path(source).is_dir():
        return _of_files(Path(source).name, Path(source).joinpath)
    for family in FAMILIES:
        for checkpoint in family.checkpoints:
            if checkpoint.source == source:
                return _measure(source, family, checkpoint.networks, checkpoint.licence)
    if not HUB_ID.fullmatch(source):
        raise ModelError(f"'{source}' is no folder, and no hub id; `models` lists what is supported.")
    return _of_files(source, lambda *parts: fetch(source, "/".join(parts)))


def _of_files(name: str, at: Callable[..., Path]) -> Inventory:
    """Read the configurations of a pipeline; ``at`` returns where one lies, by its path in the pipeline."""
    index = read_config(at("model_index.json"))
    family = family_of(str(index.get("_class_name")))
    networks = []
    for attribute in family.denoisers:
        if _named(index, attribute):
            config = read_config(at(attribute, "config.json"))
            kind = str(config.pop("_class_name", ""))
            networks.append(Network(attribute, kind, config))
    return _measure(name, family, networks, "as its model card says")


def _named(index: Mapping[str, Any], attribute: str) -> bool:
    """Return whether a pipeline has a part: of a Wan with one expert the second is named, and null."""
    entry = index.get(attribute)
    return isinstance(entry, list) and bool(entry) and entry[0] is not None


def read_config(path: Path) -> dict[str, Any]:
    """Read a model's JSON configuration; raises FileError in one sentence."""
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise FileError(f"{path.name} is too large for a configuration; get it again.")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise FileError(f"{path.name} is missing or no JSON; give a whole diffusers folder.") from e
    if not isinstance(config, dict):
        raise FileError(f"{path.name} is no configuration; give a whole diffusers folder.")
    return config


def _measure(source: str, family: Family, networks: Sequence[Network], licence: str) -> Inventory:
    built = [(network.attribute, build_on_meta(network)) for network in networks]
    sites = tuple(site for site, _, _ in list_sites(built, family))
    counts = [sum(p.numel() for p in module.parameters()) for _, module in built]
    parts = {attribute: config_of(module) for attribute, module in built}
    defaults = family.defaults_of(source, lambda part, value: parts.get(part, {}).get(value))
    size = sum(counts), max(counts, default=0)
    return Inventory(source, family, sites, *size, licence, defaults, tuple(networks))


def build_on_meta(network: Network) -> nn.Module:
    """Build a denoiser without memory for its weights; raises ModelError if its class is unknown."""
    import diffusers

    kind = getattr(diffusers, network.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise ModelError(f"diffusers has no model class '{network.kind}'; update diffusers.")
    try:
        with torch.device("meta"):
            return kind.from_config(dict(network.config))
    except (TypeError, ValueError, KeyError) as e:
        raise ModelError(f"{network.kind} cannot be built from this configuration ({e}).") from e
