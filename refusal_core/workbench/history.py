"""The runs of each visitor, on disk: kept over a reload of the page and a restart, deleted on age.

A visitor is known by an opaque id that their browser keeps; whoever does not have it cannot name a folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.measures.samples import save_picture, strip
from refusal_core.io.files import write_json
from refusal_core.io.video import load_video
from refusal_core.workbench.values import Clip, Comparison, EditRequest, RunCard

logger = logging.getLogger(__name__)
MAX_AGE = 7 * 24 * 3600.0  # seconds
MAX_RUNS = 60  # of one visitor
MAX_BYTES = 2 << 30  # of all
SPACES_DISK = Path("/data")  # where a Space has storage that outlives it


def data_folder() -> Path:
    """Return where runs are kept: REFUSAL_STUDIO_DATA, a Space's disk, or a folder for temporary files."""
    if named := os.environ.get("REFUSAL_STUDIO_DATA"):
        return Path(named)
    if os.environ.get("SPACE_ID") and os.access(SPACES_DISK, os.W_OK):
        return SPACES_DISK / "refusal-studio"
    return Path(tempfile.gettempdir()) / f"refusal-studio-{os.getuid() if hasattr(os, 'getuid') else 0}"


class History:
    """Runs by owner, a folder each; a folder is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        """Open the store, made if it is missing, and delete what is too old or half written.

        Raises:
            FileError: the folder cannot be used.
        """
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in folder.glob("*/.new-*"):
                shutil.rmtree(left, ignore_errors=True)
        except OSError as e:
            raise FileError(f"{folder.name} cannot be used ({e.strerror}); set REFUSAL_STUDIO_DATA.") from e
        self.purge()

    def add(self, owner: str, request: EditRequest, found: Comparison, title: str) -> str:
        """Keep a finished comparison; return the run's id.

        Raises:
            InputError: the comparison is not finished, or the owner is no id.
            FileError: the disk is full.
        """
        if found.original is None or found.unlearned is None:
            raise InputError("Only a finished comparison can be kept.")
        run = uuid.uuid4().hex
        home = self._home(owner)
        temporary = home / f".new-{run}"
        try:
            temporary.mkdir(mode=0o700, parents=True)
            shutil.copyfile(found.original.path, temporary / "original.mp4")
            shutil.copyfile(found.unlearned.path, temporary / "unlearned.mp4")
            save_picture(strip(load_video(found.unlearned.path)[0], frames=3), temporary / "thumbnail.png")
            write_json(temporary / "run.json", _entry(run, request, found, title))
            temporary.rename(home / run)
        except OSError as e:
            raise FileError(f"The run cannot be kept ({e.strerror or e}); free space on the disk.") from e
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._trim(home)
        return run

    def runs(self, owner: str) -> tuple[RunCard, ...]:
        """Return the owner's runs, the newest first; one that cannot be read is left out."""
        found = [self._read(path) for path in self._home(owner).glob("*/run.json")]
        return tuple(sorted((card for card in found if card), key=lambda card: -card.when))

    def run(self, owner: str, run: str) -> RunCard:
        """Return one of the owner's runs; raises InputError where there is none of that id."""
        card = self._read(self._home(owner) / run / "run.json") if re.fullmatch("[0-9a-f]{32}", run) else None
        if card is None:
            raise InputError("That run is no longer there; choose another.")
        return card

    def delete(self, owner: str, run: str | None = None) -> None:
        """Delete one run of the owner, or all."""
        if run is None:
            shutil.rmtree(self._home(owner), ignore_errors=True)
        elif re.fullmatch("[0-9a-f]{32}", run):
            shutil.rmtree(self._home(owner) / run, ignore_errors=True)

    def purge(self, now: float | None = None) -> None:
        """Delete runs past their age, and the oldest while all of them together are too large."""
        now = time.time() if now is None else now
        ages = sorted((p.stat().st_mtime, p) for p in self._folder.glob("*/*") if p.is_dir())
        sizes = {p: sum(f.stat().st_size for f in p.iterdir() if f.is_file()) for _, p in ages}
        total = sum(sizes.values())
        for written, path in ages:
            if now - written > MAX_AGE or total > MAX_BYTES:
                total -= sizes[path]
                shutil.rmtree(path, ignore_errors=True)

    def _home(self, owner: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{32}", owner or ""):
            raise InputError("This browser has no id yet; reload the page.")
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32]

    def _trim(self, home: Path) -> None:
        runs = sorted((p for p in home.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
        for path in runs[: max(0, len(runs) - MAX_RUNS)]:
            shutil.rmtree(path, ignore_errors=True)
        self.purge()

    def _read(self, path: Path) -> RunCard | None:
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            request = TypeAdapter(EditRequest).validate_python(entry["request"])
            clips = [
                Clip(path.parent / f"{name}.mp4", **entry[name])
                for name in ("original", "unlearned")
                if (path.parent / f"{name}.mp4").is_file()
            ]
            picture = path.parent / "thumbnail.png"
            facts = entry["run"], entry["title"], entry["subtitle"]
            return RunCard(*facts, picture, clips[0], clips[1], request, float(entry["when"]))
        except (OSError, ValueError, KeyError, TypeError, IndexError, ValidationError):
            logger.warning("a run of the history cannot be read and is left out")
            return None


def _entry(run: str, request: EditRequest, found: Comparison, title: str) -> dict[str, Any]:
    assert found.original is not None and found.unlearned is not None
    clips = {}
    for name, clip in (("original", found.original), ("unlearned", found.unlearned)):
        clips[name] = {k: v for k, v in asdict(clip).items() if k != "path"}
    plain = asdict(replace(request, images=()))  # images are not kept
    return {
        "run": run,
        "title": title,
        "subtitle": summary_of(request),
        "when": time.time(),
        "request": plain,
        **clips,
    }


def summary_of(request: EditRequest) -> str:
    """Return a request's settings in a few words."""
    others = f" and {len(request.also)} more" if request.also else ""
    sites = "+".join(request.sites)
    return (
        f"{request.preset}{others}, {request.method}, k {request.rank}, strength {request.strength:g},"
        f" {sites}, layers {request.layers}"
    )
