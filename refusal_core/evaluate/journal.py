"""A journal of readings, so that a long evaluation that is stopped goes on where it was.

One line a batch, appended and flushed; a line cut short by a kill is left out when read. Processes that
share the work each write a file of their own into one folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from refusal_core.errors import FileError
from refusal_core.evaluate.suites import Item
from refusal_core.toyworld.judge import Reading

SUFFIX = ".readings.jsonl"


class Journal:
    """Readings by what made the videos, in a folder."""

    def __init__(self, folder: Path, worker: int = 0) -> None:
        """Open a folder, made if it is missing, and read what its files hold.

        Raises:
            FileError: the folder cannot be written.
        """
        self._found: dict[str, list[Reading]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                self._load(path)
            self._path = folder / f"{worker}{SUFFIX}"
            _end_line(self._path)
        except OSError as e:
            raise FileError(f"{folder.name} cannot be used ({e.strerror or e}); choose another.") from e

    def _load(self, path: Path) -> None:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                readings = [Reading(r["values"], r["confidence"]) for r in entry["readings"]]
                self._found[str(entry["key"])] = readings
            except (ValueError, KeyError, TypeError):
                continue  # cut short by a kill

    def find(self, treatment: str, items: Sequence[Item]) -> list[Reading] | None:
        """Return the readings of a batch, None where it has not been made."""
        return self._found.get(_key(treatment, items))

    def add(self, treatment: str, items: Sequence[Item], readings: Sequence[Reading]) -> None:
        """Keep the readings of a batch."""
        key = _key(treatment, items)
        self._found[key] = list(readings)
        entry = {"key": key, "readings": [{"values": r.values, "confidence": r.confidence} for r in readings]}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as e:
            raise FileError(f"{self._path.name} cannot be written ({e.strerror or e}); free space.") from e


def _end_line(path: Path) -> None:
    """Close a line that a kill cut short, so that the next one is not lost with it."""
    if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")


def _key(treatment: str, items: Sequence[Item]) -> str:
    batch = json.dumps([treatment, [(i.prompt, i.seed) for i in items]])
    return hashlib.sha256(batch.encode()).hexdigest()[:32]
