"""Edits: a few numbers a site that describe a weight change, as values and as a file. Needs no model."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from refusal_core.activations import read_fingerprint, read_site
from refusal_core.directions import Directions
from refusal_core.errors import FileError, InputError
from refusal_core.fold import is_separable, joint_detector
from refusal_core.io.files import load_tensors, save_tensors
from refusal_core.io.reading import Plain, Prompt
from refusal_core.models.families import FAMILIES
from refusal_core.models.families.family import SOUND_KINDS
from refusal_core.models.model import Fingerprint
from refusal_core.models.sites import Site, select
from refusal_core.settings import Anchor, EditSettings, SubspaceSettings

MAX_BYTES = 512 << 20  # two rows of H numbers for each site and direction: Wan 2.2's 80 layers at rank 40
MAX_ROWS = 1024  # of a site: eight concepts of the highest rank


@dataclass(frozen=True, slots=True, eq=False)
class SiteEdit:
    """The change of one site: x~ = x - U D (Q^T x - level), METHOD as in ``fold``.

    Rows of several concepts lie below one another with each concept's own detector; ``resolved``
    makes them independent of one another.
    """

    remove: Tensor  # U [m, H]
    detect: Tensor  # Q [m, H]
    strength: Tensor  # lambda [m]
    level: Tensor | None  # [m]; None: moved to zero, no bias is needed
    concept: tuple[int, ...]  # of each row: index into Edit.origins


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """Diagnostics of one site of one concept, kept with the edit."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    site: Plain
    kept_share: float
    rank_used: int
    rank_available: int
    auc: float | None
    d_prime: float | None
    left: float = 1.0  # of the detector, once what must pass is taken out of it


@dataclass(frozen=True, slots=True)
class Origin:
    """The recipe of one concept of an edit."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    concept: Annotated[Plain, Field(max_length=200)]
    pairs: Annotated[tuple[tuple[Prompt, Prompt], ...], Field(max_length=64)]
    subspace: SubspaceSettings
    strength: float
    anchor: Anchor
    versions: Annotated[dict[Plain, Plain], Field(max_length=40)]
    figures: Annotated[tuple[SiteFigures, ...], Field(max_length=4000)]


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """A model-free description of a weight change; nothing is changed until it is applied."""

    model: Fingerprint
    sites: Mapping[Site, SiteEdit]
    origins: tuple[Origin, ...]


def make_edit(directions: Directions, settings: EditSettings | None = None) -> Edit:
    """Turn directions into an edit.

    Raises:
        SiteError: the chosen kinds and layers leave no site.
    """
    settings = settings or EditSettings()
    strength = float(settings.strength)
    sites = {}
    for site in select(tuple(directions.sites), settings.kinds, settings.layers):
        d = directions.sites[site]
        rows = len(d.remove)
        level = d.level.float() if settings.anchor == "mean" and site.has_bias else None
        strengths = torch.full((rows,), strength)
        sites[site] = SiteEdit(d.remove.float(), d.detect.float(), strengths, level, (0,) * rows)
    names = {site.name for site in sites}
    figures = tuple(f for f in site_figures(directions) if f.site in names)
    concept, pairs = directions.concept, directions.pairs
    origin = Origin(concept, pairs, directions.settings, strength, settings.anchor, versions(), figures)
    return Edit(directions.model, sites, (origin,))


def site_figures(directions: Directions) -> tuple[SiteFigures, ...]:
    """Return the diagnostics of each site as plain numbers, in the order of the sites."""
    figures = []
    for site, d in directions.sites.items():
        auc, d_prime = (d.separation.auc, d.separation.d_prime) if d.separation else (None, None)
        ranks = (d.rank_used, d.rank_available)
        figures.append(SiteFigures(site.name, d.kept_share, *ranks, auc, d_prime, d.left))
    return tuple(figures)


def sound_note(edit: Edit) -> tuple[str, ...]:
    """Return a note where a model makes sound and an edit leaves its stream alone; else nothing."""
    family = next((family for family in FAMILIES if family.name == edit.model.family), None)
    edited = {site.kind for site in edit.sites}
    if family is None or not family.makes_sound or edited & {*SOUND_KINDS, "text-entry"}:
        return ()
    return ("The sound is untouched: its stream reads the text by itself; add the sites sound-text.",)


def combine(*edits: Edit) -> Edit:
    """Return one edit that removes several concepts, in whatever order they are given.

    Raises:
        InputError: no edit is given, they are made for different models, or two concepts are nearly
            one direction at a site; the sentence names them.
    """
    if not edits:
        raise InputError("Give at least one edit to combine.")
    first = edits[0]
    sites: dict[Site, SiteEdit] = {}
    origins: list[Origin] = []
    for edit in edits:
        if not edit.model.fits(first.model):
            raise InputError("The edits are made for different models; combine edits of one model.")
        for site, change in edit.sites.items():
            shifted = replace(change, concept=tuple(c + len(origins) for c in change.concept))
            sites[site] = _stack(sites[site], shifted) if site in sites else shifted
        origins.extend(edit.origins)
    for site, change in sites.items():
        resolved(change, tuple(origins), site.name)
    return Edit(first.model, sites, tuple(origins))


def with_strength(edit: Edit, strength: float, concept: str | None = None) -> Edit:
    """Return the edit with another strength, for one of its concepts or for all."""
    EditSettings(strength=strength)  # checks the range
    chosen = {i for i, o in enumerate(edit.origins) if concept in (None, o.concept)}
    if not chosen:
        raise InputError(f"The edit holds no concept '{concept}'.")
    sites = {}
    for site, change in edit.sites.items():
        own = zip(change.concept, change.strength.tolist(), strict=True)
        rows = [strength if concept in chosen else before for concept, before in own]
        sites[site] = replace(change, strength=torch.tensor(rows))
    origins = tuple(replace(o, strength=strength) if i in chosen else o for i, o in enumerate(edit.origins))
    return Edit(edit.model, sites, origins)


def resolved(edit: SiteEdit, origins: tuple[Origin, ...], name: str) -> SiteEdit:
    """Return the site's change with detectors that keep its concepts apart (``fold.joint_detector``).

    Raises:
        InputError: two concepts are nearly one direction here.
    """
    if len(set(edit.concept)) < 2:
        return edit
    detect, level, condition = joint_detector(
        edit.remove, edit.detect, edit.strength, edit.level, edit.concept
    )
    if not is_separable(edit.remove, edit.detect, edit.strength, condition):
        names = [origins[c].concept for c in sorted(set(edit.concept))]
        raise InputError(
            f"'{names[0]}' and '{names[1]}' are nearly one direction at {name}; merge their pairs into one"
            " concept."
        )
    return replace(edit, detect=detect.float(), level=None if level is None else level.float())


def _stack(a: SiteEdit, b: SiteEdit) -> SiteEdit:
    level = None
    if a.level is not None or b.level is not None:
        level = torch.cat([torch.zeros(len(e.strength)) if e.level is None else e.level for e in (a, b)])
    remove, detect, strength = (
        torch.cat([getattr(a, name), getattr(b, name)]) for name in ("remove", "detect", "strength")
    )
    return SiteEdit(remove, detect, strength, level, a.concept + b.concept)


def versions() -> dict[str, str]:
    """Return the versions of what decides the figures and the videos."""
    from refusal_core import __version__

    packages = ("torch", "diffusers", "transformers")
    ours = {"refusal-studio": __version__, "python": platform.python_version()}
    return ours | {name: importlib.metadata.version(name) for name in packages}


# --- the file --------------------------------------------------------------------------------------


def save_edit(edit: Edit, path: Path) -> Path:
    """Write an edit as one small safetensors file with its whole recipe in the metadata.

    Raises:
        FileError: it would be larger than ``load_edit`` reads, or the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    entries = []
    for i, (site, change) in enumerate(edit.sites.items()):
        parts = {name: getattr(change, name) for name in ("remove", "detect", "strength", "level")}
        tensors |= {f"{i}.{name}": tensor for name, tensor in parts.items() if tensor is not None}
        entries.append({"site": asdict(site), "concept": change.concept})
    if (size := sum(t.numel() * t.element_size() for t in tensors.values())) > MAX_BYTES:
        raise FileError(
            f"The edit has {size >> 20} MB, {MAX_BYTES >> 20} MB is the limit: take fewer layers or ranks."
        )
    header = {
        "kind": "edit",
        "schema": 1,
        "model": asdict(edit.model),
        "origins": [asdict(o) for o in edit.origins],
        "sites": entries,
    }
    return save_tensors(Path(path), tensors, header)


def load_edit(path: Path) -> Edit:
    """Read an edit, trusting nothing in the file.

    Raises:
        FileError: missing, damaged, of another kind or version, or not sound; one sentence.
    """
    path = Path(path)
    tensors, header = load_tensors(path, kind="edit", limit=MAX_BYTES)
    try:
        if header["schema"] != 1:
            raise FileError(f"{path.name} has schema {header['schema']!s:.20}; this version reads 1.")
        origins = tuple(TypeAdapter(Origin).validate_python(o) for o in header["origins"])
        sites = {}
        for i, entry in enumerate(header["sites"]):
            site = read_site(entry["site"])
            if site in sites:
                raise FileError(f"{path.name} names {site.name} twice; make the edit again.")
            sites[site] = _read_change(tensors, i, entry["concept"], site, len(origins))
        if not sites or not origins:
            raise FileError(f"{path.name} holds no site; make the edit again.")
        return Edit(read_fingerprint(header["model"]), sites, origins)
    except FileError:
        raise
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, ValidationError, InputError) as e:
        raise FileError(f"{path.name} is not a sound edit file; make the edit again.") from e


def _read_change(
    tensors: Mapping[str, Tensor], i: int, concept: list[int], site: Site, origins: int
) -> SiteEdit:
    remove, detect, strength = (tensors[f"{i}.{name}"].float() for name in ("remove", "detect", "strength"))
    level = tensors[f"{i}.level"].float() if f"{i}.level" in tensors else None
    rows = len(remove)
    shapes = (remove.shape, detect.shape, strength.shape)
    if not 1 <= rows <= MAX_ROWS or shapes != ((rows, site.inputs), (rows, site.inputs), (rows,)):
        raise FileError(f"The directions of {site.name[:80]} do not fit the site; make the edit again.")
    if level is not None and level.shape != (rows,):
        raise FileError(f"The levels of {site.name[:80]} do not fit the site; make the edit again.")
    if len(concept) != rows or not all(type(c) is int and 0 <= c < origins for c in concept):
        raise FileError(f"The concepts of {site.name[:80]} do not fit the edit; make the edit again.")
    for value in strength.tolist():
        EditSettings(strength=value)
    return SiteEdit(remove, detect, strength, level, tuple(concept))
