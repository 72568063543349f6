"""Files from strangers: whatever is in them, they load or give one sentence, in bounded time and memory."""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import refusal_core as rc
from refusal_core.activations import load_activations, save_activations
from refusal_core.concepts import PRESETS, load_pairs, load_preset
from refusal_core.edit import load_edit, save_edit
from refusal_core.errors import RefusalError
from refusal_core.images import load_image
from refusal_core.models.model import Model
from refusal_core.shards import read_index
from refusal_core.video import Video, load_video, save_video

pytestmark = pytest.mark.security

# All 10,000 with REFUSAL_FUZZ=10000; each run draws the same cases.
CASES = int(os.environ.get("REFUSAL_FUZZ", "1500"))
SECONDS, MEGABYTES = 2.0, 200
WORDS = (b"F32", b"shape", b"data_offsets", b"unsafe", b"safe", b"concept", b"version", b"schema", b"kind")
OTHERS = (b"F64", b"U8", b"../../etc/passwd", b"__class__", b"\xe2\x80\xae", b"\\u0000", b"", b"{", b'"')
STARTS = (b"PK\x03\x04", b"\x80\x04\x95", b"<svg xmlns='x'/>", b"", b"\x00" * 64)
FORBIDDEN = ("torch.load(", "pickle.load", "trust_remote_code=True", "gr.load(", " eval(", "shell=True")


@pytest.fixture(scope="module")
def originals(tiny: Model, fire: rc.Concept, tmp_path_factory) -> dict[str, tuple[Path, Callable]]:
    """A sound file of each kind, with what reads it."""
    folder = tmp_path_factory.mktemp("sound")
    seen = rc.capture(tiny, fire, rc.CaptureSettings(kinds=("text",), layers=(0, 1)))
    edit = save_edit(rc.make_edit(rc.estimate(seen)), folder / "edit.safetensors")
    bank = save_activations(seen, folder / "seen.safetensors")
    preset = folder / "preset.json"
    preset.write_text((PRESETS / "fire.json").read_text())
    pairs = folder / "pairs.json"
    pairs.write_text(json.dumps({"pairs": [{"unsafe": p.unsafe, "safe": p.safe} for p in fire.pairs]}))
    Image.new("RGB", (16, 16), (9, 99, 200)).save(folder / "image.png")
    clip = Video(np.zeros((5, 16, 16, 3), np.uint8), 8.0)
    video = save_video(clip, folder / "clip.mp4", {"format": "recipe", "prompt": "x"})
    return {
        "edit": (edit, load_edit),
        "activations": (bank, load_activations),
        "preset": (preset, load_preset),
        "pairs": (pairs, load_pairs),
        "image": (folder / "image.png", load_image),
        "shard": (edit, lambda path: read_index(path.parent)),
        "video": (video, load_video),
    }


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change a file as damage or malice would: bytes, lengths, numbers, words, nesting."""
    kind = rng.randrange(9)
    at = rng.randrange(max(1, len(content)))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + rng.randbytes(rng.randrange(1, 40)) + content[at:]
    if kind == 2:
        changed = bytearray(content)
        for _ in range(rng.randrange(1, 30)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if kind == 3:
        return struct.pack("<Q", rng.choice([0, 1, 7, 2**31, 2**40, 2**63, 2**64 - 1])) + content[8:]
    if kind == 4:  # another number
        number = rng.choice([b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b"0.5", b"null", b"[]"])
        digits = [i for i, c in enumerate(content[:4000]) if chr(c).isdigit()]
        place = rng.choice(digits) if digits else at
        return content[:place] + number + content[place + 1 :]
    if kind == 5:  # another word
        return content.replace(rng.choice(WORDS), rng.choice(OTHERS), rng.randrange(1, 4))
    if kind == 6:
        depth = rng.choice([10, 200, 5000])
        return b'{"pairs":' + b"[" * depth + b"]" * depth + b"}"
    if kind == 7:
        return rng.choice(STARTS) + content[at:]
    return content[:at] + content[at : at + 200] * rng.randrange(2, 50) + content[at:]


@pytest.mark.parametrize("kind", ["edit", "activations", "preset", "pairs", "image", "shard", "video"])
def test_a_changed_file_loads_or_is_refused_in_one_sentence(originals, kind: str, tmp_path: Path) -> None:
    original, load = originals[kind]
    content = original.read_bytes()
    rng = random.Random(f"refusal {kind}")
    target = tmp_path / f"case{original.suffix}"
    load(original)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = refused = 0
    for case in range(CASES // 7):
        changed = mutate(content, rng)
        for _ in range(rng.randrange(3)):
            changed = mutate(changed, rng) if changed else changed
        target.write_bytes(changed)
        start = time.monotonic()
        try:
            load(target)
            loaded += 1
        except RefusalError as e:
            refused += 1
            assert "\n" not in str(e) and str(tmp_path) not in str(e), (case, e)
        assert time.monotonic() - start < SECONDS, case
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{kind}: {loaded} loaded, {refused} refused, {grown:.0f} MB more at most")
    assert grown < MEGABYTES
    assert refused > loaded, "most changes must be noticed, or the loader checks nothing"
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_files_in_disguise_are_refused(tmp_path: Path) -> None:
    import pickle
    import zipfile

    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps(Payload()))
    with zipfile.ZipFile(tmp_path / "zip.safetensors", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Payload()))
    for name in ("pickle", "zip"):
        with pytest.raises(RefusalError):
            load_edit(tmp_path / f"{name}.safetensors")
    assert not (tmp_path / "pwned").exists()


def test_a_hundred_megabytes_of_text_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    start = time.monotonic()
    for load in (load_preset, load_pairs):
        with pytest.raises(RefusalError, match="larger than"):
            load(path)
    assert time.monotonic() - start < SECONDS


def test_an_image_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    Image.new("L", (30_000, 3000)).save(tmp_path / "bomb.png")
    with pytest.raises(RefusalError, match=r"bomb\.png"):
        load_image(tmp_path / "bomb.png")


def test_a_link_out_of_a_preset_s_folder_is_not_followed_by_name(tmp_path: Path) -> None:
    """Images of pairs are bare names beside their file; a path in a name is refused."""
    for name in ("../secret.png", "/etc/passwd", "a/b.png", "..png", "x.svg"):
        text = json.dumps({"pairs": [{"unsafe": "a b", "safe": "a", "unsafe_image": name}] * 2})
        (tmp_path / "pairs.json").write_text(text)
        with pytest.raises(RefusalError):
            load_pairs(tmp_path / "pairs.json")


def test_no_code_path_reads_pickle_or_runs_remote_code() -> None:
    root = Path(rc.__file__).parent
    for path in [*root.rglob("*.py"), root.parent / "app.py"]:
        text = path.read_text(encoding="utf-8")
        for word in FORBIDDEN:
            assert word not in text, (path.name, word)
