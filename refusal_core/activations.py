"""Activations: rows of samples for each site, as values and as a file. Knows no pipeline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor

from refusal_core.errors import FileError, InputError
from refusal_core.io.files import load_tensors, save_tensors
from refusal_core.io.reading import Plain, Prompt
from refusal_core.models.model import Fingerprint
from refusal_core.models.sites import Site
from refusal_core.settings import CaptureSettings
from refusal_core.subspace import precision

MAX_BYTES = 8 << 30
NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)  # of sites, classes and hashes


@dataclass(frozen=True, slots=True, eq=False)
class Twins:
    """The rows of the pairs at one site, without those of neutral prompts."""

    unsafe: Tensor  # [n, H]
    safe: Tensor  # [n, H], row by row the twins of unsafe
    pair_of_row: Tensor  # [n] int64


_TENSORS = ("unsafe", "safe", "neutral", "pair_of_row")  # of samples, in a file
_FURTHER = ("kept", "target")  # where there are any


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """The rows read at one site. Sites with the same input (all text sites of a model) share one."""

    unsafe: Tensor  # [n, H]
    safe: Tensor  # [n, H], row by row the twins of unsafe
    neutral: Tensor  # [m, H], m may be 0
    pair_of_row: Tensor  # [n] int64
    by_token: bool  # rows are text tokens: only their mean over a prompt compares between prompts
    kept: Tensor | None = None  # [j, H], mean differences of the concepts that stay
    target: Tensor | None = None  # [H], mean difference of what takes the concept's place

    @property
    def precision(self) -> torch.dtype:
        """The one dtype in which the site is estimated."""
        return precision(self.unsafe, self.safe, self.neutral)

    @property
    def differences(self) -> Tensor:
        """R [n, H], rowwise unsafe - safe."""
        return self.unsafe - self.safe

    @property
    def ordinary(self) -> Tensor:
        """Safe and neutral rows [n + m, H]: what must not be touched."""
        return torch.cat([self.safe, self.neutral])


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """All rows of all captured sites: the model is not needed from here on."""

    model: Fingerprint
    concept: str
    pairs: tuple[tuple[str, str], ...]
    settings: CaptureSettings
    sites: Mapping[Site, Samples]
    notes: tuple[str, ...] = ()  # on what is kept of neutral prompts

    def describe(self) -> str:
        """Return one line: sites, rows, memory."""
        unique = {id(s): s for s in self.sites.values()}.values()
        size = sum(4 * (2 * s.unsafe.numel() + s.neutral.numel()) for s in unique)
        rows = max(len(s.unsafe) for s in unique)
        return f"{len(self.sites)} sites, {rows} rows, {size / 2**20:.1f} MB"


def save_activations(seen: Activations, path: Path) -> Path:
    """Write activations to a safetensors file; shared samples are written once."""
    unique = list({id(s): s for s in seen.sites.values()}.values())
    place = {id(s): i for i, s in enumerate(unique)}
    tensors: dict[str, Tensor] = {}
    for i, samples in enumerate(unique):
        parts = {f"{i}.{name}": getattr(samples, name) for name in (*_TENSORS, *_FURTHER)}
        tensors |= {name: tensor for name, tensor in parts.items() if tensor is not None}
    header = {
        "kind": "activations",
        "schema": 1,
        "model": asdict(seen.model),
        "concept": seen.concept,
        "pairs": seen.pairs,
        "settings": asdict(seen.settings),
        "sites": [asdict(site) | {"samples": place[id(s)]} for site, s in seen.sites.items()],
        "by_token": [s.by_token for s in unique],
    }
    return save_tensors(path, tensors, header)


def load_activations(path: Path) -> Activations:
    """Read activations; raises FileError with one sentence where the file is not sound."""
    tensors, header = load_tensors(path, kind="activations", limit=MAX_BYTES)
    try:
        if header["schema"] != 1:
            raise FileError(f"{path.name} has schema {header['schema']!s:.20}; this version reads 1.")
        samples = [_read_samples(tensors, i, bool(flag)) for i, flag in enumerate(header["by_token"])]
        sites = {}
        for entry in header["sites"]:
            fields = dict(entry)
            number = fields.pop("samples")
            site = read_site(fields)
            if type(number) is not int or not 0 <= number < len(samples) or site in sites:
                raise ValueError("samples")
            if samples[number].unsafe.shape[1] != site.inputs:
                raise FileError(f"{path.name}: the rows of {site.name} do not fit the site.")
            sites[site] = samples[number]
        if not sites:
            raise FileError(f"{path.name} holds no site; capture again.")
        return Activations(
            model=read_fingerprint(header["model"]),
            concept=TypeAdapter(Plain).validate_python(header["concept"]),
            pairs=TypeAdapter(tuple[tuple[Prompt, Prompt], ...]).validate_python(header["pairs"]),
            settings=TypeAdapter(CaptureSettings).validate_python(header["settings"]),
            sites=sites,
        )
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, InputError) as e:
        raise FileError(f"{path.name} is not a sound activations file; capture again.") from e


def _read_samples(tensors: Mapping[str, Tensor], i: int, by_token: bool) -> Samples:
    unsafe, safe, neutral, pair_of_row = (tensors[f"{i}.{name}"] for name in _TENSORS)
    rows, width = unsafe.shape
    if safe.shape != unsafe.shape or neutral.ndim != 2 or neutral.shape[1] != width or not rows:
        raise ValueError("shapes")
    if pair_of_row.shape != (rows,) or pair_of_row.dtype != torch.int64 or pair_of_row.min() < 0:
        raise ValueError("pairs of rows")
    if not all(t.is_floating_point() for name, t in tensors.items() if not name.endswith(".pair_of_row")):
        raise ValueError("types")
    kept, target = (tensors.get(f"{i}.{name}") for name in _FURTHER)
    if (kept is not None and kept.shape[1:] != (width,)) or (target is not None and target.shape != (width,)):
        raise ValueError("shapes of what is kept")
    return Samples(unsafe, safe, neutral, pair_of_row, by_token, kept, target)


def read_site(entry: object) -> Site:
    """Return a site as a file describes it; raises ValueError where it cannot be one."""
    site = TypeAdapter(Site).validate_python(entry)
    if not NAME.fullmatch(site.name):
        raise ValueError("name")
    if site.block < 0 or site.inputs < 1 or site.outputs < 1:
        raise ValueError("numbers")
    return site


def read_fingerprint(entry: object) -> Fingerprint:
    """Return a fingerprint as a file holds it; raises ValueError where it cannot be one."""
    fingerprint = TypeAdapter(Fingerprint).validate_python(entry)
    if not all(NAME.fullmatch(text) for text in asdict(fingerprint).values()):
        raise ValueError("fingerprint")
    return fingerprint
