"""Rows of ordinary prompts on disk: read once, for every concept. Knows neither pairs nor edits.

A file holds what a whole list of prompts gave at some sites. Until it is there each block of prompts has a
file of its own, so that a reading that was stopped goes on. Several processes may read the same: what they
write is equal, and there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from refusal_core.activations import read_site
from refusal_core.edit import versions
from refusal_core.errors import FileError
from refusal_core.io.files import check_container, load_tensors, save_tensors
from refusal_core.io.places import cache_folder
from refusal_core.models.model import Model
from refusal_core.models.recording import batches
from refusal_core.models.sites import Site
from refusal_core.models.slots import Beside, sampled_hash
from refusal_core.progress import Progress, each

KIND, SCHEMA = "neutral", 1
MOST_BYTES = 20 << 30  # of all files; what was used longest ago goes
BLOCK = 16  # prompts at least that are lost where a reading is stopped
ABANDONED = 24 * 3600.0  # seconds: nobody writes one file for so long

Rows = Mapping[Site, Tensor]  # [m, H]; sites with the same input share one


@dataclass(frozen=True, slots=True)
class NeutralReading:
    """Rows of ordinary prompts that are to be had: what they are, and how they are read."""

    key: str | None  # equal keys give equal rows; None: nothing is kept
    sites: Sequence[Site]
    blocks: Sequence[range]  # of the prompts, in their order
    read: Callable[[range, Progress], Rows]  # what one block gives
    finish: Callable[[Tensor], Tensor] = field(default=lambda rows: rows)  # all rows of a site

    def left(self) -> int:
        """Return how many prompts are yet to be read."""
        store = _Store(self)
        if any(store.wholes()):
            return 0
        return sum(len(block) for block in self.blocks if not store.has(store.piece(block)))

    def rows(self, progress: Progress) -> tuple[Rows, tuple[str, ...]]:
        """Return the rows, read where they are not kept, with what is to be said of the files."""
        store = _Store(self)
        for path in store.wholes():
            rows, seconds = store.find(path)
            if rows:
                _Spared.seconds += seconds
                progress(1.0, "Activations of neutral prompts are kept from before")
                return {site: rows[site] for site in self.sites}, tuple(store.notes)
        pieces, total = [], 0.0
        for block, step in each(progress, self.blocks):
            piece, seconds = self._block(store, block, step)
            pieces.append(piece)
            total += seconds
        joined = _joined(pieces, self.sites)
        made = {id(x): narrow(self.finish(x)) for x in _unique(joined)}
        rows = {site: made[id(x)] for site, x in joined.items()}
        if store.keep(store.whole, rows, total):
            for block in self.blocks:
                store.drop(store.piece(block))
            rows = store.find(store.whole)[0] or rows  # mapped from the file: the memory is free again
        return rows, tuple(store.notes)

    def _block(self, store: _Store, block: range, progress: Progress) -> tuple[Rows, float]:
        """Return the rows of a block, and how long it took to read them, now or before."""
        piece, seconds = store.find(store.piece(block))
        if piece:
            _Spared.seconds += seconds
            return piece, seconds
        start = time.perf_counter()
        piece = self.read(block, progress)
        seconds = time.perf_counter() - start
        if len(self.blocks) > 1:
            store.keep(store.piece(block), piece, seconds)
        return piece, seconds


class _Spared:
    seconds = 0.0  # of this process


def spared_seconds() -> float:
    """Return how long it once took to read what this process has found kept: part of what work costs."""
    return _Spared.seconds


def reading_key(model: Model, prompts: Sequence[str], what: Mapping[str, object]) -> str | None:
    """Return what rows of these prompts are kept under; None where they are not to be kept.

    Args:
        model: its weights as they are now, of all its networks, its schedule and precision.
        prompts: all of them: by their number it is chosen which rows stay.
        what: all else that decides the rows.
    """
    if not model.loading.cache or any(Beside(layer).get() for layer in model.layers.values()):
        return None
    if (weights := sampled_hash(model.pipeline)) is None:
        return None
    place = model.pipeline._execution_device
    device = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    schedule = getattr(getattr(model.pipeline, "scheduler", None), "config", None)
    facts = [asdict(model.fingerprint), asdict(model.defaults), model.precision, device, versions()]
    whole = [SCHEMA, weights, *facts, repr(schedule), prompts, model.tokens(prompts), dict(what)]
    return _hash(json.dumps(whole, default=str))


def blocks(model: Model, count: int) -> list[range]:
    """Return the blocks of so many prompts: whole batches, so that rows do not depend on a stop."""
    of_one = batches(model, range(count))
    several = max(1, BLOCK // max(len(of_one[0]), 1))
    return [
        range(part[0].start, part[-1].stop)
        for part in (of_one[i : i + several] for i in range(0, len(of_one), several))
    ]


def narrow(rows: Tensor) -> Tensor:
    """Return rows in half precision where that loses nothing: those of a model in half precision."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal((half := rows.to(dtype)).float(), rows.float()):
            return half
    return rows


def kept_bytes() -> int:
    """Return what the files take on disk."""
    return sum(size for _, size, _ in _files())


def clear_files() -> int:
    """Delete all files; return how many bytes they took."""
    freed = 0
    for path, size, _ in _files():
        with suppress(OSError):
            path.unlink()
            freed += size
    return freed


def _files() -> list[tuple[Path, int, float]]:
    """Return our files, half written ones too, with size and time of their last use, the oldest first."""
    found = []
    for path in (*cache_folder().glob("*.safetensors"), *cache_folder().glob(".*.safetensors.*.tmp")):
        with suppress(OSError):  # another process may delete it now
            found.append((path, path.stat().st_size, path.stat().st_mtime))
    return sorted(found, key=lambda entry: entry[2])


def _make_room(newest: Path) -> None:
    """Delete what was used longest ago until the files take MOST_BYTES, and what was never finished."""
    files = _files()
    total = sum(size for _, size, _ in files)
    for path, size, used in files:
        unfinished = path.suffix == ".tmp" and time.time() - used > ABANDONED
        if path != newest and (total > MOST_BYTES or unfinished):
            with suppress(OSError):
                path.unlink()
            total -= size


class _Store:
    """The files of one reading, and what is to be said of them.

    None is ever changed: whoever has mapped it from another machine would lose it.
    """

    def __init__(self, reading: NeutralReading) -> None:
        self._key, self._sites = reading.key, reading.sites
        self._name = _hash("".join(site.name for site in reading.sites))[:8]
        self.notes: dict[str, None] = {}  # each once

    @property
    def whole(self) -> Path:
        """The file of all prompts at these sites."""
        return cache_folder() / f"{self._key}-{self._name}.safetensors"

    def wholes(self) -> Iterator[Path]:
        """Yield the files of all prompts that have these sites, or more."""
        if self._key is not None:
            others = sorted(cache_folder().glob(f"{self._key}-*.safetensors"))
            yield from (path for path in dict.fromkeys((self.whole, *others)) if self.has(path))

    def piece(self, block: range) -> Path:
        """Return the file of a block."""
        return cache_folder() / f"{self._key}.{self._name}.{block.start}.safetensors"

    def has(self, path: Path) -> bool:
        """Return whether a file is there that says it has all sites, or that cannot say anything."""
        if self._key is None or not path.is_file():
            return False
        try:
            names = {entry["name"] for entry in check_container(path, KIND, MOST_BYTES)["sites"]}
        except (FileError, KeyError, TypeError):
            return True  # damaged: ``find`` says so
        return all(site.name in names for site in self._sites)

    def find(self, path: Path) -> tuple[Rows, float]:
        """Return rows of a file and how long it took to read them; nothing where there is no sound file."""
        if self._key is None or not path.is_file():
            return {}, 0.0
        try:
            found = _load(path)
            path.touch()
        except FileError:
            if path.is_file():  # else another process has just deleted it
                self.notes["Activations kept of neutral prompts were damaged: they are read again."] = None
                self.drop(path)
            return {}, 0.0
        except OSError:
            return {}, 0.0
        return found

    def keep(self, path: Path, rows: Rows, seconds: float) -> bool:
        """Write a file that is not there, and make room for it; return whether it is there."""
        if self._key is None or not all(torch.isfinite(x).all() for x in rows.values()):
            return False
        try:
            if not path.is_file():
                _save(path, rows, seconds)
        except FileError as e:
            why = getattr(e.__cause__, "strerror", None) or e.__cause__
            advice = "free space, or name another folder in REFUSAL_STUDIO_DATA"
            self.notes[f"Activations of neutral prompts are not kept ({why}); {advice}."] = None
            return False
        _make_room(path)
        return True

    def drop(self, path: Path) -> None:
        """Delete a file, where there is one."""
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _unique(rows: Rows) -> list[Tensor]:
    return list({id(x): x for x in rows.values()}.values())


def _joined(pieces: Sequence[Rows], sites: Sequence[Site]) -> Rows:
    """Return the rows of all blocks at each site; sites that share them in each block go on sharing."""
    made: dict[tuple[int, ...], Tensor] = {}
    joined = {}
    for site in sites:
        parts = [piece[site] for piece in pieces]
        key = tuple(map(id, parts))
        if key not in made:
            made[key] = torch.cat(parts)
        joined[site] = made[key]
    return joined


def _save(path: Path, rows: Rows, seconds: float) -> None:
    unique = _unique(rows)
    place = {id(x): i for i, x in enumerate(unique)}
    sites = [asdict(site) | {"rows": place[id(x)]} for site, x in rows.items()]
    header = {
        "kind": KIND,
        "schema": SCHEMA,
        "seconds": seconds,
        "checksum": _checksum(unique),
        "sites": sites,
    }
    save_tensors(path, {str(i): x for i, x in enumerate(unique)}, header)


def _load(path: Path) -> tuple[Rows, float]:
    """Return the rows of a file, memory-mapped; FileError where it is not sound."""
    tensors, header = load_tensors(path, kind=KIND, limit=MOST_BYTES)
    try:
        unique = [tensors[str(i)] for i in range(len(tensors))]
        if header["schema"] != SCHEMA or header["checksum"] != _checksum(unique):
            raise ValueError("checksum")
        rows = {}
        for entry in header["sites"]:
            of_site = unique[entry.pop("rows")]
            site = read_site(entry)
            if of_site.shape[1:] != (site.inputs,):
                raise ValueError("shape")
            rows[site] = of_site
        return rows, float(header["seconds"])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as e:
        raise FileError(f"{path.name} is damaged.") from e


def _checksum(tensors: Iterable[Tensor]) -> int:
    total = 0
    for x in tensors:
        total = zlib.crc32(x.contiguous().reshape(-1).view(torch.uint8).numpy().data, total)
    return total
