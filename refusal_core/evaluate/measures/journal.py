"""A journal of measurements, so that a long evaluation that is stopped goes on where it was.

One line a batch, appended and flushed; a line cut short by a kill is left out when read. Processes that
share the work each write a file of their own into one folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from refusal_core.errors import FileError
from refusal_core.evaluate.judges.verdict import Verdict
from refusal_core.evaluate.measures.costs import Cost
from refusal_core.evaluate.measures.questions import score_of
from refusal_core.evaluate.suites.items import Item
from refusal_core.io.reading import open_ordinary

SUFFIX = ".readings.jsonl"
MAX_BYTES = 256 << 20  # of a file: some hundred thousand videos
MAX_LINE = 4 << 20


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found in the videos of one batch."""

    verdicts: tuple[Verdict, ...]
    quality: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # one number a video
    seconds: float = 0.0  # to generate them


@dataclass(frozen=True, slots=True)
class Prepared:
    """How the preparation of a treatment went: its cost, or why it cannot be done."""

    cost: Cost | None
    trouble: str = ""


MEASURED, PREPARED = TypeAdapter(Measured), TypeAdapter(Prepared)


class Journal:
    """Measurements by what made the videos; in a folder, or only in memory where none is given."""

    def __init__(self, folder: Path | None = None, worker: int = 0, *, again: bool = False) -> None:
        """Open a folder, made if it is missing, and read what its files hold.

        Args:
            folder: None keeps everything in memory only.
            worker: of several that share the folder; each writes a file of its own.
            again: leave out batches with videos that were not judged, or questions without an answer, so
                that they are asked again.

        Raises:
            FileError: the folder cannot be written.
        """
        self._measured: dict[str, Measured] = {}
        self._prepared: dict[str, Prepared] = {}
        self._again = again
        self.folder = folder
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                self._load(path)
            self._path = folder / f"{worker}{SUFFIX}"
            _end_line(self._path)
        except OSError as e:
            raise FileError(f"{folder.name} cannot be used ({e.strerror or e}); choose another.") from e

    def _load(self, path: Path) -> None:
        if path.is_symlink():
            raise FileError(f"{path.name} is a link; readings are written to the folder that is named.")
        with open_ordinary(path, MAX_BYTES) as file:
            for line in iter(lambda: file.readline(MAX_LINE), b""):
                self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            key = str(entry["key"])
            if "prepared" in entry:
                self._prepared[key] = PREPARED.validate_python(entry["prepared"])
                return
            measured = MEASURED.validate_python(entry)
            # A batch judged the second time stands, in whichever file it is.
            before = self._measured.get(key)
            if _judged(measured) or not (self._again or (before is not None and _judged(before))):
                self._measured[key] = measured
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # cut short by a kill

    def __len__(self) -> int:
        return len(self._measured)

    def find(self, key: str) -> Measured | None:
        """Return what was measured on a batch, None where it has not been made."""
        return self._measured.get(key)

    def add(self, key: str, measured: Measured) -> None:
        """Keep what was measured on a batch."""
        self._measured[key] = measured
        self._write({"key": key, **asdict(measured)})

    def find_prepared(self, key: str) -> Prepared | None:
        """Return how the preparation of a treatment went, None where it is yet to be done."""
        return self._prepared.get(key)

    def add_prepared(self, key: str, prepared: Prepared) -> None:
        """Keep how the preparation of a treatment went."""
        self._prepared[key] = prepared
        self._write({"key": key, "prepared": asdict(prepared)})

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self.folder is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as e:
            raise FileError(f"{self._path.name} cannot be written ({e.strerror or e}); free space.") from e


def _judged(measured: Measured) -> bool:
    score = score_of([measured.quality])
    answered = score is None or not score.unanswered
    return answered and all(verdict.outcome != "not judged" for verdict in measured.verdicts)


def _end_line(path: Path) -> None:
    """Close a line that a kill cut short, so that the next one is not lost with it."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def batch_key(
    treatment: str, judge: str, aspect: str, items: Sequence[Item], marks: Sequence[str] = ()
) -> str:
    """Return the key of a batch: equal ones give equal videos, read the same way.

    ``marks`` say what else is measured, or left out.
    """
    batch = json.dumps([treatment, judge, aspect, [(i.prompt, i.seed) for i in items], *marks])
    return hashlib.sha256(batch.encode()).hexdigest()[:32]
