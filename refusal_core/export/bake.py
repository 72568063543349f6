"""Baking an edit into a checkpoint on disk, tensor by tensor: the model itself is never loaded.

Edited weights keep their shapes and dtypes, so each tensor stays where it lies in its file: what is not
edited is copied and then compared, the rest is written once. Memory holds some rows of a tensor.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from refusal_core.edit import Edit, SiteEdit, resolved
from refusal_core.errors import FileError
from refusal_core.export.lora import write_recipe
from refusal_core.fold import BLOCK, project_out, shift_bias
from refusal_core.io.files import new_folder, wait_for_disk
from refusal_core.io.shards import FLOATS, Entry, read_index
from refusal_core.models.inventory import read_config
from refusal_core.models.model import denoiser_places
from refusal_core.models.parts import network_class
from refusal_core.models.sites import Site
from refusal_core.models.threads import one_thread
from refusal_core.progress import Progress, silent

AT_ONCE = 2  # files
CHUNK = 256 << 10  # bytes of a comparison, so that both sides stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Baked:
    """What was found in the written files: tensors that changed, and bytes equal to the original's."""

    folder: Path
    edited: int
    untouched_bytes: int
    note: str = ""


def bake(checkpoint: Path, edit: Edit, out: Path, progress: Progress = silent) -> Baked:
    """Write a checkpoint folder with the edit folded in; all of it or nothing.

    Args:
        checkpoint: a diffusers folder, or a folder with the denoiser's safetensors files.
        edit: its sites are looked up by name.
        out: a folder that does not exist yet.
        progress: told per file; may raise ``Cancelled``.

    Raises:
        FileError: a file is damaged or not safetensors, a tensor of the edit is missing or of another
            shape, or the disk is full.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if not checkpoint.is_dir():
        raise FileError(f"{checkpoint.name} is no folder; give the folder that holds the checkpoint.")
    with new_folder(out) as temporary:
        work = _plan(checkpoint, edit)
        edited, untouched = _copy(checkpoint, temporary, work, progress)
        write_recipe(edit, temporary)
    planned = {task.site.name for tasks in work.values() for task in tasks}
    left = dict.fromkeys(s.name.partition(".")[0] for s in edit.sites if s.name not in planned)
    note = f"The edit also changes {' and '.join(left)}, not in this folder: bake it too." if left else ""
    return Baked(out, edited, untouched, note)


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """One site of the edit and where its tensors are."""

    site: Site
    change: SiteEdit
    weight: Entry
    bias: Entry | None

    @property
    def stretches(self) -> list[tuple[int, int]]:
        """Where the bytes lie that change."""
        moved = [self.bias] if self.bias is not None and self.change.level is not None else []
        return [(entry.start, entry.stop) for entry in (self.weight, *moved)]


def _plan(checkpoint: Path, edit: Edit) -> dict[Path, list[_Task]]:
    """Find every tensor of the edit before anything is written. A bias lies in its weight's file."""
    indexes = {prefix: read_index(folder) for prefix, folder in _folders(checkpoint, edit).items()}
    work: dict[Path, list[_Task]] = {}
    for site, change in edit.sites.items():
        prefix, _, inner = site.name.partition(".")
        if prefix not in indexes:
            continue
        index = indexes[prefix]
        weight, bias = index.get(f"{inner}.weight"), index.get(f"{inner}.bias")
        if weight is None:
            raise FileError(f"{checkpoint.name} has no tensor {inner}.weight; the edit is for another model.")
        if weight.shape != (site.outputs, site.inputs) or weight.dtype not in FLOATS:
            raise FileError(
                f"{inner}.weight is {weight.dtype} {list(weight.shape)}, the edit needs"
                f" {[site.outputs, site.inputs]} in a float type; it is for another model."
            )
        if change.level is not None and not (bias and _fits(bias, weight)):
            raise FileError(f"{inner} has no bias beside its weight; make the edit with anchor zero.")
        clean = resolved(change, edit.origins, site.name)
        work.setdefault(weight.path, []).append(_Task(site, clean, weight, bias))
    return work


def _fits(bias: Entry, weight: Entry) -> bool:
    return bias.path == weight.path and bias.shape == weight.shape[:1] and bias.dtype in FLOATS


def _folders(checkpoint: Path, edit: Edit) -> dict[str, Path]:
    """Return where the weights of each denoiser lie: in a pipeline's folder, or one denoiser's own."""
    prefixes = list(dict.fromkeys(site.name.partition(".")[0] for site in edit.sites))
    if other := [name for name in _denoisers(checkpoint, edit) if name not in prefixes]:
        raise FileError(
            f"{checkpoint.name} has {' and '.join(other)}, too, and the edit is for {' and '.join(prefixes)}"
            " alone; make an edit for this model."
        )
    if any((checkpoint / prefix).is_dir() for prefix in prefixes):
        return {prefix: checkpoint / prefix for prefix in prefixes}
    own = [prefix for prefix in prefixes if prefix == checkpoint.resolve().name] or prefixes
    if len(own) > 1:
        raise FileError(
            f"The edit is for {' and '.join(prefixes)}; give the folder with both, not {checkpoint.name}."
        )
    return {own[0]: checkpoint}


def _denoisers(checkpoint: Path, edit: Edit) -> list[str]:
    """Return the denoisers of a pipeline's folder by its index; none where there is no index."""
    if not (checkpoint / "model_index.json").is_file():
        return []
    index = read_config(checkpoint / "model_index.json")
    return [name for name in denoiser_places(edit.model.pipeline) if network_class(index.get(name))]


def _files(checkpoint: Path) -> list[Path]:
    """Return every file of a folder, in linked folders too: a hub's cache and many a disk have links.

    Raises:
        FileError: a link leads nowhere, or a folder into itself.
    """
    found: list[Path] = []
    for folder, inner, names in os.walk(checkpoint, followlinks=True):
        home = Path(folder)
        around = [above.resolve() for above in home.parents if above.is_relative_to(checkpoint)]
        if home.is_symlink() and home.resolve() in around:
            raise FileError(f"{home.name} is a link to a folder around it; take it away.")
        for name in names:
            if not (home / name).is_file():
                raise FileError(f"{name} is a link that leads nowhere, or no file; get the checkpoint again.")
        inner.sort()
        found += [home / name for name in names]
    return sorted(found)


def _copy(
    checkpoint: Path, target: Path, work: Mapping[Path, list[_Task]], progress: Progress
) -> tuple[int, int]:
    """Write every file anew; return how many tensors changed in them, and the bytes found untouched."""
    sources = _files(checkpoint)
    if lost := set(work) - set(sources):
        raise FileError(f"{min(lost).name} is not among the folder's files; get the checkpoint again.")
    total, done, edited, untouched = sum(p.stat().st_size for p in sources) or 1, 0, 0, 0
    waits: list[Future[None]] = []

    def one(path: Path) -> tuple[int, int]:
        copy = target / path.relative_to(checkpoint)
        copy.parent.mkdir(parents=True, exist_ok=True)
        tasks = work.get(path, [])
        kept = _untouched(path, tasks)
        sums = _write(path, copy, tasks, kept)
        same = _check_untouched(path, copy, kept)
        changed = _check_edited(path, copy, tasks, sums)
        waits.append(disk.submit(wait_for_disk, copy))  # its own thread: nobody else waits for the disk
        return changed, same

    # Copying waits for the disk and editing does not: of two files at once one always gets on.
    with (
        one_thread(torch.get_num_threads, torch.set_num_threads),
        ThreadPoolExecutor(1) as disk,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        made = [pool.submit(one, path) for path in sources]
        try:
            for path, one_done in zip(sources, made, strict=True):
                progress(done / total, f"Baking {path.name}")
                changed, kept = one_done.result()
                edited, untouched = edited + changed, untouched + kept
                done += path.stat().st_size
            progress(1.0, "Waiting for the disk")
            for wait in waits:
                wait.result()
        finally:
            pool.shutdown(cancel_futures=True)
            disk.shutdown(cancel_futures=True)
    return edited, untouched


def _untouched(path: Path, tasks: list[_Task]) -> list[tuple[int, int]]:
    """Return the stretches of a file that no task changes."""
    changed = sorted(stretch for task in tasks for stretch in task.stretches)
    edges = [0, *(edge for stretch in changed for edge in stretch), path.stat().st_size]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _write(path: Path, copy: Path, tasks: list[_Task], kept: list[tuple[int, int]]) -> dict[int, int]:
    """Write a file with its edited tensors, each byte once; return checksums of these by where they start."""
    sums: dict[int, int] = {}
    with path.open("rb") as source, copy.open("wb") as target:
        for low, high in kept:
            _transfer(source, target, low, high)
        for task in tasks:
            for entry, value in _edited(source, task):
                content = value.contiguous().view(torch.uint8).numpy().data
                target.seek(entry.start)
                target.write(content)
                sums[entry.start] = crc32(content)
    return sums


def _check_edited(original: Path, copy: Path, tasks: list[_Task], sums: Mapping[int, int]) -> int:
    """Read edited tensors again; return of how many sites they differ from the original's."""
    starts, changed = sorted(sums), 0
    with original.open("rb", buffering=0) as a, copy.open("rb", buffering=0) as b:
        for task in tasks:
            same = True
            for low, high in task.stretches:
                inside = [start for start in starts if low <= start < high]
                for start, stop in pairwise([*inside, high]):
                    b.seek(start)
                    if crc32(b.read(stop - start)) != sums[start]:
                        raise FileError(f"{task.site.name} was not written soundly; check the disk.")
                same = same and _same(a, b, low, high)
            changed += not same
    return changed


def _transfer(source: Any, target: Any, low: int, high: int) -> None:
    """Copy a stretch of bytes to the same place: by the system where it can, else in small parts."""
    while low < high:
        try:
            count = os.copy_file_range(source.fileno(), target.fileno(), high - low, low, low)
        except (OSError, AttributeError):  # other systems and some file systems; a full disk shows below
            source.seek(low)
            target.seek(low)
            count = target.write(source.read(min(CHUNK, high - low)))
            target.flush()
        if not count:
            raise FileError(f"{Path(source.name).name} became shorter meanwhile; get it again.")
        low += count


def _edited(file: Any, task: _Task) -> Iterator[tuple[Entry, Tensor]]:
    """Yield stretches of a site's tensors and what belongs there: an edit works on each row alone."""
    change = task.change
    rows = max(1, BLOCK * task.site.outputs // (task.weight.stop - task.weight.start))
    for first in range(0, task.site.outputs, rows):
        where = _rows(task.weight, first, rows)
        weight = _read(file, where)
        if not math.isfinite(weight.sum(dtype=torch.float32)):  # NaN and infinity outlast a sum
            raise FileError(f"{task.site.name} holds NaN or infinity; get the checkpoint again.")
        if change.level is not None and task.bias is not None:
            place = _rows(task.bias, first, rows)
            bias = _read(file, place)
            yield place, shift_bias(weight, bias, change.remove, change.strength, change.level)
        yield where, project_out(weight, change.remove, change.detect, change.strength)


def _rows(entry: Entry, first: int, count: int) -> Entry:
    """Return where some rows of a tensor lie."""
    width = (entry.stop - entry.start) // entry.shape[0]
    last = min(first + count, entry.shape[0])
    start, stop = (entry.start + row * width for row in (first, last))
    return replace(entry, start=start, stop=stop, shape=(last - first, *entry.shape[1:]))


def _read(file: Any, entry: Entry) -> Tensor:
    file.seek(entry.start)
    content = bytearray(entry.stop - entry.start)
    if file.readinto(content) != len(content):
        raise FileError(f"{entry.path.name} is shorter than its header says; get it again.")
    return torch.frombuffer(content, dtype=FLOATS[entry.dtype]).reshape(entry.shape)


def _check_untouched(original: Path, copy: Path, kept: list[tuple[int, int]]) -> int:
    """Compare what was copied byte by byte; return how many bytes that was."""
    with original.open("rb", buffering=0) as a, copy.open("rb", buffering=0) as b:
        same = os.fstat(a.fileno()).st_size == os.fstat(b.fileno()).st_size
        if not (same and all(_same(a, b, low, high) for low, high in kept)):
            raise FileError(f"{original.name} was not copied soundly; check the disk.")
    return sum(high - low for low, high in kept)


def _same(a: Any, b: Any, low: int, high: int) -> bool:
    """Return whether two files hold the same bytes in a stretch."""
    left, right = bytearray(CHUNK), bytearray(CHUNK)  # read into again and again: they stay in the cache
    a.seek(low)
    b.seek(low)
    for start in range(low, high, CHUNK):
        count = min(CHUNK, high - start)
        if count < CHUNK:
            left, right = bytearray(count), bytearray(count)
        if a.readinto(left) != count or b.readinto(right) != count or left != right:
            return False
    return True
