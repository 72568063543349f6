"""Prepared treatments on disk, beside the readings: made once, whatever stops or shares the work."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from refusal_core.edit import load_edit, save_edit
from refusal_core.errors import FileError
from refusal_core.evaluate.methods.treatments import EDIT, Treatment
from refusal_core.io.files import load_tensors, save_tensors

FOLDER = "prepared"
MAX_BYTES = 64 << 30  # the text layers of the largest models, fine-tuned


def store(folder: Path, key: str, treatment: Treatment) -> None:
    """Keep an edit or weights under their key; what lies in neither, or finds no room, is prepared again."""
    if not treatment.is_in_weights:
        return
    with suppress(FileError, OSError):
        path = _path(folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if treatment.edit is not None:
            save_edit(treatment.edit, path)
        elif treatment.weights is not None:
            save_tensors(path, treatment.weights, {"kind": "weights"})


def stored(folder: Path, key: str) -> Treatment | None:
    """Return what ``store`` kept under a key; None where there is nothing sound."""
    path = _path(folder, key)
    if not path.is_file():
        return None
    try:
        if key.startswith(f"{EDIT}-"):
            return Treatment(edit=load_edit(path))
        return Treatment(weights=load_tensors(path, kind="weights", limit=MAX_BYTES)[0])
    except FileError:
        return None


def _path(folder: Path, key: str) -> Path:
    return folder / FOLDER / f"{key}.safetensors"
