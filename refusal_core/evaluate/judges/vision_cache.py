"""Answers kept on disk by what was asked, so that nothing is paid for twice. Damaged entries are ignored."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refusal_core.errors import FileError
from refusal_core.evaluate.judges.frames import Frames
from refusal_core.evaluate.judges.query import Query
from refusal_core.evaluate.judges.vision_settings import VisionSettings
from refusal_core.io.files import write_json

MAX_BYTES = 1 << 16
VERSION = 1


def query_key(settings: VisionSettings, frames: Frames, query: Query) -> str:
    """Return the key of a question: the frames, its text and form, and whatever else changes the answer.

    The threshold is not part of it: the same answers can be read with another one.
    """
    pixels = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
    asked = {
        "version": VERSION,
        "frames": [pixels, list(frames.shape)],
        "text": query.text,
        "schema": dict(query.schema),
        "base_url": settings.base_url.rstrip("/"),
        "model": settings.model,
        "temperature": settings.temperature,
        "answer_tokens": settings.answer_tokens,
        "json_schema": settings.json_schema,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """Answers in a folder, one small file each; in no folder, nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        """Make the folder if it is missing.

        Raises:
            FileError: it cannot be made.
        """
        self._folder = Path(folder) if folder is not None else None
        try:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise FileError(f"{self._folder} cannot be used ({e.strerror or e}); choose another.") from e

    def find(self, key: str) -> Mapping[str, Any] | None:
        """Return the answer that was kept, None where there is none that can be read."""
        if self._folder is None:
            return None
        try:
            with self._path(key).open("rb") as file:
                entry = json.loads(file.read(MAX_BYTES))
            found = entry["answer"] if entry["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def keep(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer; a full disk costs the entry, not the run."""
        if self._folder is None:
            return
        try:
            write_json(self._path(key), {"key": key, "answer": dict(answer)})
        except (FileError, ValueError) as e:
            logging.getLogger(__name__).warning("An answer was not kept: %s", e)

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / key[:2] / f"{key}.json"
