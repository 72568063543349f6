"""The runs of each visitor, on disk: kept over a reload of the page and a restart, deleted on age.

A visitor is known by an opaque id that their browser keeps; whoever does not have it cannot name a folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import time
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from refusal_core.concepts import Concept, PromptPair, list_presets
from refusal_core.errors import FileError, InputError, RefusalError
from refusal_core.evaluate.measures.samples import save_picture, strip
from refusal_core.io.files import write_json
from refusal_core.io.places import data_folder
from refusal_core.io.video import load_video
from refusal_core.recipe import EditRequest, Recipe, changed, plain_request, read_request
from refusal_core.settings import recipe_knobs, show_layers
from refusal_core.workbench.values import SIDES, Comparison, JudgedVideo, RunCard

logger = logging.getLogger(__name__)
MAX_AGE = 7 * 24 * 3600.0  # seconds
MAX_RUNS = 60  # of one visitor
MAX_BYTES = 2 << 30  # of all


class History:
    """Runs by owner, a folder each; a folder is there whole or not at all."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open the store, made if it is missing, and delete what is too old or half written.

        Args:
            folder: by default ``data_folder()``.

        Raises:
            FileError: the folder cannot be used.
        """
        self._folder = folder = folder or data_folder()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in folder.glob("*/.new-*"):
                shutil.rmtree(left, ignore_errors=True)
        except OSError as e:
            raise FileError(f"{folder.name} cannot be used ({e.strerror}); set REFUSAL_STUDIO_DATA.") from e
        self.purge()

    def add(self, owner: str, request: EditRequest, result: Comparison, title: str) -> str:
        """Keep a finished comparison; return the run's id.

        Raises:
            InputError: the comparison is not finished, or the owner is no id.
            FileError: the disk is full.
        """
        if result.original is None or result.unlearned is None:
            raise InputError("Only a finished comparison can be kept.")
        run, videos = uuid.uuid4().hex, {"original": result.original, "unlearned": result.unlearned}
        home = self._home(owner)
        temporary = home / f".new-{run}"
        entry: dict[str, object] = {"run": run, "title": title, "subtitle": summary_of(request)}
        entry |= {"when": time.time(), "request": plain_request(_without_images(request))}
        try:
            temporary.mkdir(mode=0o700, parents=True)
            for name, video in videos.items():
                shutil.copyfile(video.path, temporary / f"{name}.mp4")
                entry[name] = {k: v for k, v in asdict(video).items() if k != "path"}
            save_picture(strip(load_video(result.unlearned.path)[0], frames=3), temporary / "thumbnail.png")
            write_json(temporary / "run.json", entry)
            temporary.rename(home / run)
        except OSError as e:
            raise FileError(f"The run cannot be kept ({e.strerror or e}); free space on the disk.") from e
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._trim(home)
        return run

    def runs(self, owner: str) -> tuple[RunCard, ...]:
        """Return the owner's runs, the newest first; one that cannot be read is left out."""
        cards = [self._read(path) for path in self._home(owner).glob("*/run.json")]
        return tuple(sorted((card for card in cards if card), key=lambda card: -card.when))

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
            plain = entry["request"]
            request = read_request(plain) if "recipe" in plain else _from_flat(plain)
            seen = {n: tuple((name, outcome) for name, outcome in entry[n].get("seen", ())) for n in SIDES}
            original, unlearned = (
                JudgedVideo(path.parent / f"{n}.mp4", **{**entry[n], "seen": seen[n]}) for n in SIDES
            )
            if not (original.path.is_file() and unlearned.path.is_file()):
                return None
            facts = entry["run"], entry["title"], entry["subtitle"], path.parent / "thumbnail.png"
            return RunCard(*facts, original, unlearned, request, float(entry["when"]))
        except (OSError, ValueError, KeyError, TypeError, RefusalError):
            logger.warning("a run of the history cannot be read and is left out")
            return None


def _without_images(request: EditRequest) -> EditRequest:
    """Return a request without the images of its pairs, which are not kept."""
    concept = request.recipe.concept
    pairs = tuple(replace(pair, unsafe_image=None, safe_image=None) for pair in concept.pairs)
    recipe = replace(request.recipe, concept=replace(concept, pairs=pairs))
    return replace(request, recipe=recipe)


def _from_flat(plain: dict[str, Any]) -> EditRequest:
    """Return a request as the first version kept it: one flat mapping, presets by their names alone."""
    presets = {p.concept.name: p.concept for p in list_presets()}
    named = {k.name: plain[k.name] for k in recipe_knobs() if k.name in plain}
    pairs = tuple(PromptPair(unsafe, safe) for unsafe, safe in plain["pairs"])
    known = presets.get(plain["preset"])
    own = (
        known
        if known and known.pairs == pairs
        else Concept("own-pairs", pairs, known.neutral if known else ())
    )
    further = [(presets[name], strength) for name, strength in plain["also"] if name in presets]
    return EditRequest(
        plain["model"],
        plain["preset"],
        changed(Recipe(own), named),
        tuple(changed(Recipe(concept), {"strength": strength}) for concept, strength in further),
    )


def summary_of(request: EditRequest) -> str:
    """Return a request's settings in a few words."""
    values = request.recipe.values()
    others = f" and {len(request.further)} more" if request.further else ""
    return (
        f"{request.preset}{others}, {values['method']}, k {values['rank']}, strength {values['strength']:g},"
        f" {'+'.join(request.recipe.capture.kinds)}, layers {show_layers(request.recipe.capture.layers)}"
    )
