"""Where tensors lie in a checkpoint's safetensors files, from the headers alone. Knows no model."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from refusal_core.errors import FileError
from refusal_core.io.reading import METADATA, open_ordinary, parse_json, plain, read_ordinary, tensor_header

MAX_HEADER = 4 << 20  # of a file: a header of thousands of tensors has less than one
MAX_SHARD = 1 << 40
MAX_INDEX = 32 << 20
MAX_DIMS = 8
DTYPE = re.compile("[A-Z0-9_]{1,20}")  # also of kinds that are only copied
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies in a file."""

    path: Path
    start: int  # bytes from the beginning of the file
    stop: int
    dtype: str
    shape: tuple[int, ...]


def read_index(folder: Path) -> dict[str, Entry]:
    """Return where each tensor of a folder's safetensors files lies, reading headers only.

    Raises:
        FileError: there is none, or a header is not sound.
    """
    # Hidden ones are left over from downloads and copies, never part of a checkpoint.
    files = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))
    if not files:
        if any(folder.glob("*.bin")):
            raise FileError(
                f"{folder.name} holds .bin files, which are not edited on disk; `export --form weights`"
                " writes the whole edited model as safetensors."
            )
        raise FileError(f"{folder.name} holds no .safetensors file; other formats are not read.")
    found: dict[str, Entry] = {}
    for path in files:
        for name, entry in read_header(path).items():
            if name in found:
                raise FileError(f"{name} lies in two files of {folder.name}; keep one variant there.")
            found[name] = entry
    return found


def main_dtype(entries: Mapping[str, Entry]) -> torch.dtype | None:
    """Return the float type that most bytes of some tensors are in; None where there is none."""
    sizes: Counter[str] = Counter()
    for entry in entries.values():
        sizes[entry.dtype] += entry.stop - entry.start
    return next((FLOATS[dtype] for dtype, _ in sizes.most_common() if dtype in FLOATS), None)


def expect_safetensors(folder: Path) -> None:
    """Refuse a model, or a pipeline of several, whose indexes name weights of another format than their own.

    transformers reads whatever file an index names and unpickles what is no safetensors file, also where
    safetensors were asked for.

    Raises:
        FileError: an index is not sound, or names another file than safetensors (or .bin) beside it.
    """
    for kind in ("safetensors", "bin"):
        for pattern in (f"*.{kind}.index*.json", f"*/*.{kind}.index*.json"):
            for path in sorted(folder.glob(pattern)):
                _expect_beside(path, kind)


def _expect_beside(index: Path, kind: str) -> None:
    try:
        found: Any = parse_json(read_ordinary(index, MAX_INDEX))
        names = {str(name) for name in found["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise FileError(f"{index.name} is no sound index of weights; get the model again.") from e
    beside = {name for name in names if name.endswith(f".{kind}") and Path(name).name == name}
    for name in sorted(names - beside):
        raise FileError(f"{index.name} names '{name[:80]}'; only {kind} beside it are read.")


def read_header(path: Path) -> dict[str, Entry]:
    """Return where each tensor of one file lies; raises FileError where the file is not sound."""
    with open_ordinary(path, MAX_SHARD) as file:
        try:
            header, start, size = tensor_header(file, MAX_HEADER)
            found = {
                plain(name): _entry(path, entry, start, size)
                for name, entry in header.items()
                if name != METADATA
            }
            _expect_apart(found)
            return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise FileError(f"{path.name} is not a sound safetensors file; get it again.") from e


def _entry(path: Path, entry: Mapping[str, Any], start: int, size: int) -> Entry:
    low, high = entry["data_offsets"]
    shape = entry["shape"]
    if not all(type(n) is int and n >= 0 for n in (low, high, *shape)) or len(shape) > MAX_DIMS:
        raise ValueError("numbers")
    if not low <= high <= size - start:
        raise ValueError("offsets")
    dtype = entry["dtype"]
    if dtype in FLOATS and math.prod(shape) * FLOATS[dtype].itemsize != high - low:
        raise ValueError("size")
    if not DTYPE.fullmatch(dtype):
        raise ValueError("dtype")
    return Entry(path, start + low, start + high, dtype, tuple(shape))


def _expect_apart(entries: Mapping[str, Entry]) -> None:
    """Raise ValueError where two tensors share bytes: an edit of one would change the other."""
    spans = sorted((entry.start, entry.stop) for entry in entries.values())
    if any(stop > start for (_, stop), (start, _) in pairwise(spans)):
        raise ValueError("overlap")
