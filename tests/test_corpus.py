"""Files that once broke a loader, or were made to: each is refused in one sentence, or does no harm."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from strangers import (
    LOADERS,
    MEGABYTES,
    SECONDS,
    Gauge,
    joined,
    refused,
    sound_files,
    split,
    with_recipe,
    within,
)

import refusal_core as rc
from refusal_core.activations import load_activations
from refusal_core.concepts import load_pairs, load_preset
from refusal_core.edit import load_edit
from refusal_core.errors import FileError, ModelError
from refusal_core.evaluate.measures.journal import Journal
from refusal_core.evaluate.reports.report import load_report
from refusal_core.evaluate.reports.tables import summary
from refusal_core.io import reading
from refusal_core.io.images import load_image
from refusal_core.io.shards import read_index
from refusal_core.models.model import Model
from refusal_core.models.tiny import tiny_model

pytestmark = pytest.mark.security
Sound = dict[str, Path]


@pytest.fixture(scope="module")
def sound(tiny: Model, fire: rc.Concept, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return sound_files(tiny, fire, tmp_path_factory.mktemp("sound"))


# --- what is no file -----------------------------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def nothing(path: Path) -> None:
    path.symlink_to("/dev/null")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def folder(path: Path) -> None:
    path.mkdir()


def missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 << 40)


@pytest.mark.parametrize("thing", [pipe, endless, nothing, loop, dangling, folder, missing, empty, huge])
@pytest.mark.parametrize("kind", [k for k in LOADERS if k not in ("journal", "recipe")])
def test_what_is_no_file_of_its_kind_is_refused(kind: str, thing: Callable[[Path], None], tmp_path) -> None:
    suffix, load = LOADERS[kind]
    path = tmp_path / f"file{suffix}"
    thing(path)
    refused(load, path)


@pytest.mark.parametrize("thing", [pipe, endless, folder, dangling])
def test_a_journal_reads_and_writes_only_files_of_its_folder(thing, tmp_path: Path) -> None:
    path = tmp_path / "0.readings.jsonl"
    thing(path)
    with within(SECONDS), pytest.raises(FileError):
        Journal(tmp_path)


def test_a_journal_that_is_a_link_to_another_file_leaves_that_as_it_is(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "0.readings.jsonl").symlink_to(outside)
    with pytest.raises(FileError, match="is a link"):
        Journal(tmp_path / "work")
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("kind", [k for k in LOADERS if k not in ("journal", "recipe")])
def test_a_file_that_may_not_be_read_is_refused(kind: str, sound: Sound, tmp_path, monkeypatch) -> None:
    """Root reads everything, so the answer of the system is played."""
    suffix, load = LOADERS[kind]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(sound[kind].read_bytes())

    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reading.os, "open", denied)
    assert "Permission denied" in refused(load, path)


NAMES = (
    "a\nb",
    "a\x1b]0;pwned\x07b",
    "\u202egnp.exe",
    "a\u200bb",
    "x" * 250,
    "\udcff",
    "-rf",
    "%s%n",
    "' OR 1=1",
)


@pytest.mark.parametrize("kind", [k for k in LOADERS if k not in ("journal", "recipe", "shard")])
def test_names_of_files_cannot_speak_for_us(kind: str, tmp_path: Path) -> None:
    suffix, load = LOADERS[kind]
    for name in NAMES:
        path = tmp_path / f"{name[: 250 - len(suffix)]}{suffix}"
        path.write_bytes(b"x")
        refused(load, path)
    refused(load, tmp_path / f"nul\0byte{suffix}")
    refused(load, tmp_path / f"{'long' * 100}{suffix}")
    refused(load, tmp_path / "no" / "such" / f"folder{suffix}")


# --- in disguise ---------------------------------------------------------------------------------------


class Payload:
    """Unpickled, it would leave a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("kind", [k for k in LOADERS if k not in ("journal", "recipe")])
def test_files_in_disguise_are_refused_and_never_unpickled(kind: str, sound: Sound, tmp_path: Path) -> None:
    suffix, load = LOADERS[kind]
    mark, path = tmp_path / "pwned", tmp_path / f"file{suffix}"
    pickled = pickle.dumps(Payload(mark))
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    pictures = ("png", "jpeg", "webp")  # these may stand under each other's names
    skipped = ("journal", *(pictures if kind in pictures else ()))
    others = [p.read_bytes() for k, p in sound.items() if p.suffix != suffix and k not in skipped]
    zipped = (tmp_path / "archive").read_bytes()
    for content in (
        pickled,
        zipped,
        zlib.compress(pickled),
        b"\x7fELF",
        b"#!/bin/sh\ntouch pwned\n",
        *others,
    ):
        path.write_bytes(content)
        refused(load, path)
    assert not mark.exists()
    pickle.loads(pickled)
    assert mark.exists(), "the payload is a dud, and the test with it"


def test_edits_and_activations_do_not_pass_for_each_other(sound: Sound) -> None:
    assert "not a Refusal Studio activations file" in refused(load_activations, sound["edit"])
    assert "not a Refusal Studio edit file" in refused(load_edit, sound["activations"])


def test_an_edit_for_another_model_loads_and_is_not_applied(sound: Sound) -> None:
    with (
        pytest.raises(ModelError, match="made for WanPipeline"),
        rc.applied(tiny_model("latte"), load_edit(sound["edit"])),
    ):
        pytest.fail("the edit of another model was applied")


# --- headers that lie ----------------------------------------------------------------------------------


def changed(entry: str, **values: object) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header[entry].update(values)

    return change


def overlapping(header: dict[str, Any]) -> None:
    header["0.detect"]["data_offsets"] = header["0.remove"]["data_offsets"]


def hidden(header: dict[str, Any]) -> None:
    header["0.\u202eremove"] = header.pop("0.remove")


def crowded(header: dict[str, Any]) -> None:
    header.update({f"x{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(8000)})


LIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "overlap": overlapping,
    "crowd": crowded,
    "hidden in a name": hidden,
    "hidden in a type": changed("0.remove", dtype="I8\x97"),
    "huge dims": changed("0.remove", shape=[2**62, 2**62]),
    "many dims": changed("0.remove", shape=[1] * 300_000),
    "overflow": changed("0.remove", shape=[2**32, 2**32]),
    "negative": changed("0.remove", shape=[-1, 32]),
    "fraction": changed("0.remove", shape=[1.5, 2]),
    "truth": changed("0.remove", shape=[True, True]),
    "text": changed("0.remove", shape="32"),
    "far": changed("0.remove", data_offsets=[2**62, 2**63]),
    "back": changed("0.remove", data_offsets=[64, 0]),
    "none": changed("0.remove", data_offsets=None),
    "short": changed("0.remove", data_offsets=[0, 4]),
    "type": changed("0.remove", dtype="F128"),
    "list": changed("0.remove", dtype=["F32"]),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("kind", ["edit", "shard"])
def test_headers_that_lie_are_refused(kind: str, lie: str, sound: Sound, tmp_path: Path) -> None:
    if kind == "shard" and lie in ("crowd", "type"):
        return  # a checkpoint may have that many tensors, and types that are not edited
    header, body = split(sound["edit"].read_bytes())
    LIES[lie](header)
    path = tmp_path / "file.safetensors"
    path.write_bytes(joined(header, body))
    refused(LOADERS[kind][1], path)


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("kind", ["edit", "activations", "shard", "preset", "pairs", "report"])
@pytest.mark.parametrize(
    "text",
    [DEEP, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b"9" * 5000, b"\xff\xfe{}", b"[" * 900_000],
    ids=["deep list", "deep object", "long number", "no UTF-8", "open lists"],
)
def test_json_that_is_made_to_exhaust_is_refused(kind: str, text: bytes, tmp_path: Path) -> None:
    suffix, load = LOADERS[kind]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(joined(text, b"") if suffix == ".safetensors" else text)
    refused(load, path)


def test_a_header_of_empty_things_takes_little_memory(tmp_path: Path) -> None:
    """Twenty-four bytes of memory for each byte of text: the limits of sizes are what bounds it."""
    for suffix, load, size in (
        (".json", load_report, 4 << 20),
        (".safetensors", lambda p: read_index(p.parent), 4 << 20),
    ):
        text = b"[" + b"{}," * (size // 3 - 2) + b"0]"
        path = tmp_path / f"file{suffix}"
        path.write_bytes(joined(text, b"") if suffix == ".safetensors" else text)
        refused(load, path)


def test_what_hides_beside_a_checkpoint_is_no_part_of_it(sound: Sound, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(sound["edit"].read_bytes())
    (tmp_path / "._model.safetensors").write_bytes(b"\x00\x05\x16\x07")
    assert {entry.path.name for entry in read_index(tmp_path).values()} == {"model.safetensors"}


# --- recipes -------------------------------------------------------------------------------------------


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(recipe: Any) -> None:
        for key in path[:-1]:
            recipe = recipe[key]
        recipe[path[-1]] = value

    return change


RECIPES: dict[str, Callable[[dict[str, Any]], object]] = {
    "escape": put("origins", 0, "concept", value="fire\x1b[2J"),
    "half": put("origins", 0, "pairs", 0, 0, value="\ud83dgnp.exe"),
    "version": put("origins", 0, "versions", value={"torch\n": "2"}),
    "infinite": put("origins", 0, "strength", value=float("inf")),
    "nan": put("origins", 0, "figures", 0, "kept_share", value=float("nan")),
    "strong": put("origins", 0, "subspace", "rank", value=10**9),
    "path": put("sites", 0, "site", "name", value="../../x"),
    "spoken": put("sites", 0, "site", "name", value="transformer\n.x"),
    "block": put("sites", 0, "site", "block", value=-1),
    "true": put("sites", 0, "concept", value=[False]),
    "other concept": put("sites", 0, "concept", value=[7]),
    "other family": put("model", "family", value="wan\x00"),
    "no sites": put("sites", value=[]),
    "no origins": put("origins", value=[]),
    "twice": lambda recipe: recipe["sites"].append(recipe["sites"][0]),
    "schema": put("schema", value="1" * 900_000),
    "list": lambda recipe: [],
    "text": lambda recipe: "edit",
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_that_lie_are_refused(name: str, sound: Sound, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(with_recipe(sound["edit"].read_bytes(), RECIPES[name]))
    refused(load_edit, path)
    path.write_bytes(with_recipe(sound["edit"].read_bytes(), lambda recipe: None))
    load_edit(path)


def test_rows_of_activations_must_fit_one_another(sound: Sound, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    content = sound["activations"].read_bytes()
    for change in (
        put("sites", 0, "samples", value=-1),
        put("sites", 0, "samples", value=99),
        put("sites", 0, "inputs", value=7),
        put("sites", value=[]),
        put("concept", value="a\x07"),
        put("settings", "timesteps", value=10**6),
        put("by_token", value=[]),
    ):
        path.write_bytes(with_recipe(content, change))
        refused(load_activations, path)
    header, body = split(content)
    header["0.pair_of_row"]["dtype"] = "F64"
    path.write_bytes(joined(header, body))
    refused(load_activations, path)


def test_presets_say_what_they_show(sound: Sound, tmp_path: Path) -> None:
    path = tmp_path / "preset.json"
    original = json.loads(sound["preset"].read_text())
    for field in ("title", "category", "note"):
        path.write_text(json.dumps(original | {field: "harmless \u202egnp.exe"}))
        assert "invisible control characters" in refused(load_preset, path)
    path.write_text(json.dumps(original | {"recommended": {"layers": "0-1\x80"}}))
    assert "invisible control characters" in refused(load_preset, path)
    for name in ("x\n\x1b[31m", "no character: \U00073684", "private: \ue000"):
        path.write_text(json.dumps(original | {name: 1}))
        refused(load_preset, path)
    path.write_text(json.dumps(original | {"neutral": "../../../etc/passwd"}))
    refused(load_preset, path)


def test_images_of_pairs_lie_beside_their_file(sound: Sound, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x.png").write_bytes(sound["png"].read_bytes())
    place = tmp_path / "pairs"
    place.mkdir()
    (place / "in.png").write_bytes(sound["png"].read_bytes())
    (place / "also-in.png").symlink_to("in.png")
    (place / "out.png").symlink_to("../secret/x.png")
    path = place / "pairs.json"

    def write(name: str) -> Path:
        path.write_text(json.dumps({"pairs": [{"unsafe": "a b", "safe": "a", "unsafe_image": name}] * 2}))
        return path

    for name in (
        "../secret/x.png",
        "/etc/passwd",
        "a/b.png",
        "..png",
        "x.svg",
        "out.png",
        "in.png\n",
        "IN.PNG\0.png",
    ):
        refused(load_pairs, write(name))
    for name in ("in.png", "also-in.png"):
        assert load_pairs(write(name))[0].unsafe_image == place / name


# --- images and videos ---------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes, mode: int = 0) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + pixels + chunk(b"IEND", b"")


BOMB = zlib.compress(b"x" * (100 << 20), 9)


@pytest.mark.parametrize(
    "content",
    [
        png(2**31 - 1, 2**31 - 1),
        png(30_000, 30_000),
        png(0, 0),
        png(5000, 5000),
        png(16, 16, chunk(b"zTXt", b"a\0\0" + BOMB)),
        png(16, 16, chunk(b"iTXt", b"a\0\x01\0\0\0" + BOMB)),
        b"GIF89a" + bytes(20),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"II*\0" + bytes(100),
    ],
    ids=["largest", "huge", "none", "large", "zTXt", "iTXt", "gif", "eps", "svg", "tiff"],
)
def test_images_that_are_made_to_exhaust_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    refused(load_image, path)


def test_the_largest_image_that_is_taken_stays_within_the_bounds(tmp_path: Path) -> None:
    Image.new("RGBA", (4096, 4096)).save(tmp_path / "large.png")
    gauge = Gauge()
    with within(SECONDS):
        load_image(tmp_path / "large.png")
    assert gauge.most() < MEGABYTES


def test_a_sound_image_of_which_pillow_warns_is_taken(tmp_path: Path) -> None:
    """Warnings are errors in these tests; a palette with transparency gives one."""
    image = Image.new("P", (4, 4))
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(tmp_path / "palette.png", transparency=bytes([0, 128]))
    assert load_image(tmp_path / "palette.png").mode == "RGB"


# --- reports and journals ------------------------------------------------------------------------------


def test_a_report_with_uneven_cells_can_be_shown(sound: Sound, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report = json.loads(sound["report"].read_text())
    for cell in report["cells"][1:]:
        cell["kept"] = {"shape": 1.0}
    path.write_text(json.dumps(report))
    assert "fire" in summary([load_report(path)])
    report["cells"] = []
    path.write_text(json.dumps(report))
    refused(load_report, path)
    path.write_text(sound["report"].read_text().replace('"rv"', '"\\u001b[2J"'))
    refused(load_report, path)


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", DEEP, b"[]", b"{}", b'{"key": 1}', b"x" * (9 << 20), b'{"key": "d", "verdicts": "x"}'],
    ids=["no UTF-8", "deep", "list", "empty", "key", "long", "text"],
)
def test_lines_of_a_journal_that_are_not_sound_are_left_out(
    line: bytes, sound: Sound, tmp_path: Path
) -> None:
    (tmp_path / "0.readings.jsonl").write_bytes(sound["journal"].read_bytes() + line)
    journal = Journal(tmp_path)
    assert len(journal) == 3
    found = journal.find("a")
    assert found is not None
    journal.add("e", found)
    assert len(Journal(tmp_path)) == 4, "what is added after a broken line is lost with it"
