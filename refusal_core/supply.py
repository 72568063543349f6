"""What the project stands on: the installed packages that its requirements bring, and their licences.

All of it is read from the packages' own metadata on this machine; no registry is asked. Knows no tensors.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import refusal_core
from refusal_core.errors import InputError

Kind = Literal["permissive", "weak copyleft", "copyleft", "proprietary", "unknown"]
OURS = "refusal-studio"
REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"  # in a checkout
LONGEST = 60  # characters: some packages put the whole text where its name belongs

_MILDEST: tuple[Kind, ...] = ("permissive", "weak copyleft", "copyleft", "proprietary", "unknown")
_PATTERNS: tuple[tuple[str, Kind], ...] = (  # the first that is found decides
    (r"proprietary|nvidia", "proprietary"),
    (r"lgpl|lesser|mpl|mozilla|\bepl\b", "weak copyleft"),
    (r"gpl|general public|affero", "copyleft"),
    (r"\b(mit|bsd|0bsd|apache|isc|psf|zlib|cc0|bsl|hpnd|unlicense|cnri)\b", "permissive"),
    (r"python software foundation|python-2", "permissive"),
)
# Libraries that wheels carry without a word in their metadata.
_CARRIED = {"libx264": "GPL-2.0-or-later", "libx265": "GPL-2.0-or-later"}


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package."""

    name: str
    version: str
    licence: str  # as its metadata says, empty where it says nothing
    needs: tuple[str, ...] = ()
    carries: tuple[str, ...] = ()  # shared libraries under a stricter licence

    @property
    def kind(self) -> Kind:
        """What the licence asks of those who hand the package on, the libraries it carries included."""
        kinds = (kind_of(self.licence), *(kind_of(_CARRIED[name]) for name in self.carries))
        return max(kinds, key=_MILDEST.index)


@dataclass(frozen=True, slots=True)
class Supply:
    """The packages that requirements bring, by name, and the names of those that are not installed."""

    packages: tuple[Package, ...]
    roots: tuple[str, ...]
    missing: tuple[str, ...]


def kind_of(licence: str) -> Kind:
    """Return what a licence asks, or an expression of several: of OR the mildest, of AND the strictest."""
    while inner := re.search(r"\(([^()]*\b(?:AND|OR)\b[^()]*)\)", licence):
        licence = licence.replace(inner.group(), kind_of(inner.group(1)))
    if " OR " in licence:
        return min((kind_of(part) for part in licence.split(" OR ")), key=_MILDEST.index)
    if " AND " in licence:
        return max((kind_of(part) for part in licence.split(" AND ")), key=_MILDEST.index)
    said = next((kind for kind in _MILDEST if kind == licence), None)  # of what was within brackets
    return said or next(
        (kind for pattern, kind in _PATTERNS if re.search(pattern, licence, re.IGNORECASE)), "unknown"
    )


def read_requirements(paths: Sequence[Path] = ()) -> list[Requirement]:
    """Return the requirements of files; of none, the project's own.

    Raises:
        InputError: a file is missing, or a line is no requirement.
    """
    found = []
    for line in _lines(paths):
        try:
            found.append(Requirement(line))
        except InvalidRequirement as e:
            raise InputError(f"'{line[:80]}' is no requirement; give a file like requirements.txt.") from e
    return found


def _lines(paths: Sequence[Path]) -> list[str]:
    if not paths and not REQUIREMENTS.is_file():  # installed, not a checkout
        lines = metadata.requires(OURS) or []
        return [line for line in lines if "extra ==" not in line]
    lines = []
    for path in paths or (REQUIREMENTS,):
        try:
            lines += path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise InputError(f"'{path.name}' cannot be read; give a file like requirements.txt.") from e
    bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [line for line in bare if line]


def installed(requirements: Iterable[Requirement]) -> Supply:
    """Return every installed package that the requirements bring, one by another."""
    roots = [r for r in requirements if r.marker is None or r.marker.evaluate()]
    queue = [(r.name, extra) for r in roots for extra in ("", *sorted(r.extras))]
    needs: dict[str, set[str]] = defaultdict(set)
    seen: set[tuple[str, str]] = set()
    found: dict[str, metadata.Distribution] = {}
    missing: set[str] = set()
    while queue:
        asked, extra = queue.pop()
        name = canonicalize_name(asked)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            missing.add(name)
            continue
        for line in found[name].requires or ():
            r = Requirement(line)
            if r.marker is None or r.marker.evaluate({"extra": extra}):
                needs[name].add(canonicalize_name(r.name))
                queue += [(r.name, more) for more in ("", *sorted(r.extras))]
    packages = tuple(_package(name, found[name], needs[name]) for name in sorted(found))
    return Supply(packages, tuple(sorted({canonicalize_name(r.name) for r in roots})), tuple(sorted(missing)))


def _package(name: str, distribution: metadata.Distribution, needs: set[str]) -> Package:
    files = {re.split(r"[-.]", path.name)[0] for path in distribution.files or () if ".so" in path.name}
    carries = tuple(sorted(files & set(_CARRIED)))
    return Package(name, distribution.version, _licence(distribution), tuple(sorted(needs)), carries)


def _licence(distribution: metadata.Distribution) -> str:
    """Return the licence as an SPDX expression where there is one, else as the package names it."""
    said = distribution.metadata
    classes = [c.split(" :: ")[-1] for c in said.get_all("Classifier") or [] if c.startswith("License :: ")]
    text = (said.get("License") or "").strip()
    short = text if len(text) <= LONGEST and "\n" not in text and text != "UNKNOWN" else ""
    classed = " AND ".join(c for c in classes if c != "OSI Approved")
    return said.get("License-Expression") or short or classed or text.split("\n")[0][:LONGEST]


def bill_of_materials(supply: Supply) -> dict[str, Any]:
    """Return the packages as CycloneDX 1.6; equal packages give equal bytes, so there is no time in it."""
    ours = f"pkg:pypi/{OURS}@{refusal_core.__version__}"
    references = {p.name: _reference(p) for p in supply.packages}
    depends = {ours: supply.roots, **{references[p.name]: p.needs for p in supply.packages}}
    content = {
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": ours,
                "name": OURS,
                "version": refusal_core.__version__,
                "purl": ours,
                "licenses": [{"expression": "Apache-2.0"}],
            }
        },
        "components": [_component(p) for p in supply.packages],
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(references[name] for name in names if name in references)}
            for ref, names in depends.items()
        ],
    }
    number = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(content, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{number}", **content}


def _reference(package: Package) -> str:
    return f"pkg:pypi/{package.name}@{package.version.replace('+', '%2B')}"


def _component(package: Package) -> dict[str, Any]:
    licence: dict[str, Any]
    try:
        licence = {"expression": canonicalize_license_expression(package.licence)}
    except InvalidLicenseExpression:
        licence = {"license": {"name": package.licence}}
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _reference(package),
        "name": package.name,
        "version": package.version,
        "purl": _reference(package),
    }
    if package.licence:
        component["licenses"] = [licence]
    if package.carries:
        component["components"] = [
            {"type": "library", "name": name, "licenses": [{"license": {"id": _CARRIED[name]}}]}
            for name in package.carries
        ]
    return component
