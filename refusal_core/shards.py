"""Where tensors lie in a checkpoint's safetensors files, from the headers alone. Knows no model."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from refusal_core.errors import FileError

MAX_HEADER = 100 << 20  # safetensors' own limit
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
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileError(f"{folder.name} holds no .safetensors file; other formats are not read.")
    found: dict[str, Entry] = {}
    for path in files:
        for name, entry in _read_header(path).items():
            if name in found:
                raise FileError(f"{name} lies in two files of {folder.name}; keep one variant there.")
            found[name] = entry
    return found


def _read_header(path: Path) -> dict[str, Entry]:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > min(MAX_HEADER, size - 8):
                raise ValueError("header")
            header = json.loads(file.read(length))
        start = 8 + length
        return {
            name: _entry(path, entry, start, size) for name, entry in header.items() if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as e:
        raise FileError(f"{path.name} is not a sound safetensors file; get it again.") from e


def _entry(path: Path, entry: Mapping[str, Any], start: int, size: int) -> Entry:
    low, high = entry["data_offsets"]
    shape = tuple(int(n) for n in entry["shape"])
    if not 0 <= low <= high <= size - start or any(n < 0 for n in shape):
        raise ValueError("offsets")
    dtype = entry["dtype"]
    if dtype in FLOATS and math.prod(shape) * FLOATS[dtype].itemsize != high - low:
        raise ValueError("size")
    return Entry(path, start + low, start + high, dtype, shape)
