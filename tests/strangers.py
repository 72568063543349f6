"""What tests of hostile files share: sound files, gauges of time, memory and reach, lying containers."""

from __future__ import annotations

import csv
import json
import os
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import refusal_core as rc
from refusal_core.activations import load_activations, save_activations
from refusal_core.concepts import PRESETS, load_pairs, load_preset
from refusal_core.edit import load_edit, save_edit
from refusal_core.errors import RefusalError
from refusal_core.evaluate.judges.verdict import Verdict
from refusal_core.evaluate.measures.journal import Journal, Measured
from refusal_core.evaluate.measures.statistics import Rate
from refusal_core.evaluate.reports.cells import Cell
from refusal_core.evaluate.reports.report import Report, load_report
from refusal_core.evaluate.reports.tables import as_markdown, cells_table, summary
from refusal_core.evaluate.suites.sources import load_suite
from refusal_core.io.decoding import ffmpeg
from refusal_core.io.files import HEADER_KEY, write_json
from refusal_core.io.images import load_image
from refusal_core.io.shards import read_index
from refusal_core.io.video import Video, load_video, save_video
from refusal_core.models.model import Model
from refusal_core.workbench.pairs import read_pairs

SECONDS, MEGABYTES = 2.0, 200
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")
FORBIDDEN += ("pickle.find_class",)
ROOT = Path(rc.__file__).resolve().parents[1]
PROMPTS = ("pairs", "neutral", "prompt", "unsafe", "safe")
Load = Callable[[Path], object]
SCRIPTS = (  # prompts of many scripts, with joiners, marks of direction and what else controls a terminal
    "a red circle",
    "ein großer roter Kreis",
    "\u041a\u0440\u0430\u0441\u043d\u044b\u0439 \u043a\u0440\u0443\u0433",
    "\u7ea2\u8272\u7684\u5706",
    "\u0932\u093e\u0932 \u0935\u0943\u0924\u094d\u0924",
    "\u06cc\u200c\u0647 \u202eabc\u202c",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a\x1b[2Jb\x00c\x7f\x85\u2028d",
    '=1+1, "two"\nlines',
)


def read_report(path: Path) -> str:
    """Load a report and print it: a report that loads and cannot be shown is no report."""
    report = load_report(path)
    return as_markdown(cells_table(report)) + summary([report])


def read_journal(path: Path) -> int:
    """Open the folder of a journal: lines that are not sound are left out."""
    return len(Journal(path.parent))


LOADERS: dict[str, tuple[str, Load]] = {
    "edit": (".safetensors", load_edit),
    "activations": (".safetensors", load_activations),
    "shard": (".safetensors", lambda path: read_index(path.parent)),
    "preset": (".json", load_preset),
    "pairs": (".json", load_pairs),
    "pairs-table": (".csv", read_pairs),
    "report": (".json", read_report),
    "journal": (".readings.jsonl", read_journal),
    "table": (".csv", lambda path: load_suite("file", path)),
    "prompts": (".json", lambda path: load_suite("file", path)),
    "safesora": (".json", lambda path: load_suite("safesora", path)),
    "png": (".png", load_image),
    "jpeg": (".jpg", load_image),
    "webp": (".webp", load_image),
    "video": (".mp4", load_video),
    "recipe": (".mp4", load_video),
}


def sound_files(model: Model, concept: rc.Concept, folder: Path) -> dict[str, Path]:
    """Write a sound file of each kind."""
    seen = rc.capture(model, concept, rc.CaptureSettings(kinds=("text",), layers=(0, 1)))
    found = rc.estimate(seen)
    edit = rc.make_edit(found, rc.EditSettings(anchor="mean"))
    pairs = {"pairs": [{"unsafe": p.unsafe, "safe": p.safe} for p in concept.pairs]}
    (folder / "preset.json").write_text((PRESETS / "fire.json").read_text(encoding="utf-8"), encoding="utf-8")
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    image = Image.fromarray(pixels)
    for name in ("png", "jpeg", "webp"):
        image.save(folder / f"image{LOADERS[name][0]}", name)
    clip = Video(np.broadcast_to(pixels, (5, 16, 16, 3)).copy(), 8.0)
    video = save_video(clip, folder / "clip.mp4", {"format": "recipe", "prompt": "a robot", "seed": 7})
    return {
        "edit": save_edit(edit, folder / "edit.safetensors"),
        "activations": save_activations(seen, folder / "seen.safetensors"),
        "shard": folder / "edit.safetensors",
        "preset": folder / "preset.json",
        "pairs": write_json(folder / "pairs.json", pairs),
        "pairs-table": _table(folder / "pairs.csv", [(p.unsafe, p.safe) for p in concept.pairs]),
        "report": write_json(folder / "report.json", sound_report().to_json()),
        "journal": _sound_journal(folder / "work"),
        "table": _table(
            folder / "table.csv", [("prompt", "seed", "class"), *((p, 7, "boat") for p in SCRIPTS)]
        ),
        "prompts": write_json(folder / "prompts.json", {"data": [{"prompt": p, "seed": 7} for p in SCRIPTS]}),
        "safesora": write_json(folder / "safesora.json", [_labelled(p) for p in SCRIPTS]),
        "png": folder / "image.png",
        "jpeg": folder / "image.jpg",
        "webp": folder / "image.webp",
        "video": video,
        "recipe": video,
    }


def sound_report() -> Report:
    """Return a small report."""
    rate = Rate(0.5, 0.2, 0.8)
    cells = tuple(
        Cell(method, prompts, 4, 4, rate, rate, {"colour": 1.0}, {"ssim": 0.9})
        for method in ("original", "rv")
        for prompts in ("concept", "paraphrase", "neutral", "other-concepts")
    )
    return Report("toyworld", "fire", cells)


def _table(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def _labelled(prompt: str) -> dict[str, object]:
    return {"prompt_text": prompt, "prompt_type": "safety_critical", "prompt_labels": {"violence": True}}


def _sound_journal(folder: Path) -> Path:
    journal = Journal(folder)
    for key in ("a", "b", "c"):
        journal.add(
            key, Measured((Verdict("safe", 0.1, "nothing", {"colour": "red"}),), {"ssim": (0.5,)}, 1.0)
        )
    return next(folder.iterdir())


def texts(found: object) -> Iterator[str]:
    """Yield every text inside what was loaded but prompts, which are any text and escaped where shown."""
    if isinstance(found, str):
        yield from found.splitlines()
    elif is_dataclass(found):
        for item in (f for f in fields(found) if f.name not in PROMPTS):
            yield from texts(getattr(found, item.name))
    elif isinstance(found, Mapping):
        for key, value in found.items():
            yield from texts(key)
            yield from texts(value)
    elif isinstance(found, (list, tuple)):
        for value in found:
            yield from texts(value)


# --- containers --------------------------------------------------------------------------------------


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the tensors of a safetensors file."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: object, body: bytes) -> bytes:
    """Return a safetensors file of a header, which may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "replace")
    return struct.pack("<Q", len(text)) + text + body


def with_recipe(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return an edit or activations file with another JSON header of ours in its metadata."""
    header, body = split(content)
    recipe = json.loads(header["__metadata__"][HEADER_KEY])
    changed = change(recipe)
    header["__metadata__"][HEADER_KEY] = json.dumps(recipe if changed is None else changed)
    return joined(header, body)


# --- gauges ------------------------------------------------------------------------------------------


class Gauge:
    """The most memory that was held since the gauge was made, over what was held then, in MB."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # sets the mark of the most memory back
        self._before = _status("VmRSS")

    def most(self) -> float:
        """Return the most memory over that at the start."""
        return _status("VmHWM") - self._before


def _status(name: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split(f"{name}:")[1].split()[0]) / 1024


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail where a block takes more time of the processor, or waits for what never comes.

    The processor's time, as the machine may be busy with other things.
    """

    def stop(*_: object) -> None:
        raise TimeoutError("it waits")

    before, ordinary = time.process_time(), signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, ordinary)
    taken = time.process_time() - before
    assert taken <= seconds, f"{taken:.1f} s of the processor"


def refused(load: Callable[[Path], object], path: Path) -> str:
    """Load what must be refused, with little time, memory and reach; return the sentence."""
    gauge = Gauge()
    with watched(path.parent) as touched, within(SECONDS), pytest.raises(RefusalError) as caught:
        load(path)
    assert gauge.most() < MEGABYTES
    assert touched == []
    sentence = str(caught.value)
    assert sentence.isprintable() and sentence.endswith("."), sentence
    return sentence


@dataclass
class Watch:
    """What Python was asked to do outside a folder while the watch was on."""

    folder: Path | None = None
    found: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note an audited event that a loader has no business with."""
        if self.folder is None:
            return
        if event in FORBIDDEN and not _is_decoder(event, arguments):
            self.found.append(event)
        if event in ("open", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink"):
            path = arguments[0]
            if isinstance(path, (str, bytes, os.PathLike)) and not self._is_at_home(os.fsdecode(path), event):
                self.found.append(f"{event} {os.fsdecode(path)}")

    def _is_at_home(self, path: str, event: str) -> bool:
        at = os.path.abspath(path)
        homes = [str(self.folder)]
        if event == "open":  # modules that are imported late, the presets, and the gauges of this file
            homes += [sys.prefix, sys.base_prefix, str(ROOT), "/proc", "/usr/share/zoneinfo", os.devnull]
            homes += [sys.pycache_prefix] if sys.pycache_prefix else []
        return any(at == home or at.startswith(home + os.sep) for home in homes)


def _is_decoder(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether the child is started that decodes videos, kept to the one file that it is given open."""
    if event != "subprocess.Popen":
        return False
    command = list(arguments[1])
    return command[0] == ffmpeg() and command[command.index("-protocol_whitelist") + 1] == "fd"


_WATCH = Watch()
_hooked: list[bool] = []


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """Yield a list of what is touched outside a folder while the block runs.

    Python itself may keep byte code of what a loader is the first to import: not meanwhile.
    """
    if not _hooked:
        sys.addaudithook(_WATCH)  # for the life of the process: Python has no way to take it out
        _hooked.append(True)
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _WATCH.found = []
    _WATCH.folder = folder
    try:
        yield _WATCH.found
    finally:
        _WATCH.folder = None
        sys.dont_write_bytecode = kept


def fresh_folder(parent: Path) -> Path:
    """Return a new folder of its own."""
    return Path(tempfile.mkdtemp(dir=parent))
