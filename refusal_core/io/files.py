"""Files: atomic writing, and safetensors with one JSON header, read with limits and clear sentences."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from refusal_core.errors import FileError
from refusal_core.io.reading import METADATA, open_ordinary, parse_json, tensor_header

HEADER_KEY = "refusal_studio"
MAX_HEADER = 1 << 20  # bytes
MAX_TENSORS = 4000
_DTYPES = ("F32", "F16", "BF16", "F64", "I64")


def write_atomic(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: whole or not at all.

    Raises:
        FileError: the folder is missing or read-only, or the disk is full.
    """
    path = Path(path)
    # Hidden, and with an end of its own: what a kill leaves behind is taken for no result.
    temporary = _unused(path, ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(0o600, exist_ok=False)
        write(temporary)
        wait_for_disk(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as e:
        raise FileError(f"{path.name} cannot be written ({e.strerror or e}); choose another folder.") from e
    finally:
        with suppress(OSError):  # a folder of another's that could not be entered holds nothing of ours
            temporary.unlink(missing_ok=True)
    return path


def _unused(path: Path, end: str) -> Path:
    """Return a new name beside a path, known before the file is made: Ctrl-C can come in between."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}{end}")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` to fill, then rename it: whole or not at all.

    Raises:
        FileError: the folder exists or cannot be written, or the disk is full.
    """
    if folder.exists():
        raise FileError(f"{folder.name} exists; choose another folder, nothing is overwritten.")
    temporary = _unused(folder, "")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(0o700)
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(folder)
    except (OSError, SafetensorError) as e:
        why = getattr(e, "strerror", None) or e
        raise FileError(f"{folder.name} cannot be written ({why}); free space, or choose another.") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def wait_for_disk(path: Path) -> None:
    """Return once the disk has what was written to a file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> Path:
    """Write a text atomically, in UTF-8."""

    def write(target: Path) -> None:
        target.write_text(text, encoding="utf-8")

    return write_atomic(path, write)


def write_json(path: Path, content: object) -> Path:
    """Write JSON atomically, UTF-8, indented."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_text(path, text)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Path:
    """Write tensors with a JSON header into one safetensors file, atomically."""
    metadata = {"format": "pt", HEADER_KEY: json.dumps(header, allow_nan=False)}
    whole = _apart(tensors)

    def write(target: Path) -> None:
        try:
            save_file(whole, target, metadata=metadata)
        except SafetensorError as e:
            raise OSError(str(e)) from e

    return write_atomic(path, write)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without shared memory, which safetensors refuses: U and Q may be one tensor."""
    whole: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        whole[name] = own.clone() if place in taken else own
        taken.add(place)
    return whole


def load_tensors(path: Path, *, kind: str, limit: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of ``save_tensors``, trusting nothing in it.

    Args:
        path: the file.
        kind: what its header must call itself, for example ``edit``.
        limit: largest size in bytes.

    Raises:
        FileError: missing, too large, damaged, of another kind, or with values that are not finite.
    """
    path = Path(path)
    header = check_container(path, kind, limit)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, ValueError, RecursionError) as e:
        raise FileError(f"{path.name} is damaged; get it again.") from e
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise FileError(f"{path.name}: {name[:80]} holds NaN or infinity; make the file again.")
    return tensors, header


def check_container(path: Path, kind: str, limit: int) -> dict[str, Any]:
    """Check sizes and kind before any tensor is read, as a header may lie about everything; return ours."""
    foreign = f"{path.name} is not a Refusal Studio {kind} file."
    with open_ordinary(path, limit) as file:
        try:
            entries, _, size = tensor_header(file, MAX_HEADER)
            if len(entries) > MAX_TENSORS:
                raise ValueError("entries")
            header = parse_json(entries.pop(METADATA, {}).get(HEADER_KEY, "null"))
        except (OSError, ValueError, TypeError, AttributeError) as e:
            raise FileError(foreign) from e
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise FileError(foreign)
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.get("dtype") not in _DTYPES:
            raise FileError(f"{path.name}: {name[:80]} is of a kind that is not allowed in a {kind} file.")
        shape = entry.get("shape")
        if not isinstance(shape, list) or len(shape) > 2 or not all(type(n) is int and n >= 0 for n in shape):
            raise FileError(f"{path.name}: {name[:80]} has no valid shape.")
        if math.prod(shape) > size:
            raise FileError(f"{path.name}: {name[:80]} claims to be larger than the file.")
    return header
