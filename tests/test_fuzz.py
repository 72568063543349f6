"""Files from strangers: whatever is in them, they load or give one sentence, in bounded time and memory."""

from __future__ import annotations

import json
import os
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strangers import LOADERS, MEGABYTES, SECONDS, Gauge, joined, sound_files, split, texts, watched, within

import refusal_core as rc
from refusal_core.errors import RefusalError
from refusal_core.io.files import HEADER_KEY
from refusal_core.io.reading import plain
from refusal_core.io.video import _recipe
from refusal_core.models.model import Model

pytestmark = pytest.mark.security

# All 10,000 with REFUSAL_FUZZ=10000; each run draws the same cases. Half of them are changed bytes, half
# are sound JSON with one hostile value. What became of them is printed as a table at the end.
CASES = int(os.environ.get("REFUSAL_FUZZ", "1200"))
JSON_KINDS = ("edit", "activations", "shard", "preset", "pairs", "report", "journal", "prompts", "safesora")
BY_ROW = ("journal", "recipe", "table", "prompts", "safesora")  # of these only what is broken is left out
WORDS = (b"F32", b"shape", b"data_offsets", b"unsafe", b"safe", b"concept", b"version", b"schema", b"kind")
OTHERS = (b"F64", b"U8", b"../../etc/passwd", b"__class__", b"\xe2\x80\xae", b"\\u0000", b"", b"{", b'"')
STARTS = (b"PK\x03\x04", b"\x80\x04\x95", b"<svg xmlns='x'/>", b"", b"\x00" * 64, b"#EXTM3U\n")


@dataclass
class Tally:
    """How the cases of one kind of file fared."""

    # failed: neither loaded nor refused, but a traceback, or more time or reach than allowed
    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # s of the processor
    megabytes: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        slowest, most = max(self.slowest, other.slowest), max(self.megabytes, other.megabytes)
        return Tally(self.counts + other.counts, slowest, most)

    def row(self, name: str) -> str:
        """Return a row of the table."""
        loaded, refused, failed = (self.counts[outcome] for outcome in ("loaded", "refused", "failed"))
        figures = f"{self.slowest:11.2f}{self.megabytes:9.0f}"
        return f"{name:12}{self.counts.total():7}{loaded:8}{refused:9}{failed:12}{figures}"


HEAD = f"{'file':12}{'cases':>7}{'loaded':>8}{'refused':>9}{'tracebacks':>12}{'slowest s':>11}{'most MB':>9}"
FARED: dict[str, Tally] = {}


@contextmanager
def noted(kind: str) -> Iterator[Tally]:
    """Yield a tally for cases of a kind; it is shown in the table, also where a case fails the test."""
    tally, gauge = Tally(), Gauge()
    try:
        yield tally
    finally:
        tally.megabytes = gauge.most()
        FARED[kind] = FARED.get(kind, Tally()) + tally
    assert tally.megabytes < MEGABYTES


class Table:
    """Prints how the cases of each kind of file fared, after all tests."""

    @staticmethod
    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
        rows = [tally.row(kind) for kind, tally in FARED.items()]
        for line in ("", HEAD, *rows, sum(FARED.values(), Tally()).row("all")):
            terminalreporter.write_line(line)


@pytest.fixture(scope="module", autouse=True)
def _table(request: pytest.FixtureRequest) -> None:
    request.config.pluginmanager.register(Table())


@pytest.fixture(scope="module")
def sound(tiny: Model, fire: rc.Concept, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return sound_files(tiny, fire, tmp_path_factory.mktemp("sound"))


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


def mutate_recipe(content: bytes, rng: random.Random) -> bytes:
    """Change the recipe inside a sound video, its length kept: the container stays sound."""
    start = content.index(b'{"format"')
    stop = content.index(b"}", start) + 1
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 20)):
        changed[rng.randrange(start, stop)] = (
            rng.choice(b'{}[]",:0Ne\\ \x00\xff') if rng.random() < 0.7 else 0x80
        )
    return bytes(changed)


def attempt(load: Callable[[Path], object], target: Path, tally: Tally) -> None:
    """Load one case and note how it fared; everything but loading and one sentence is a failure."""
    start, fared = time.process_time(), "failed"
    try:
        with watched(target.parent) as touched:
            sentence = _sentence(load, target)
        assert touched == []
        fared = "refused" if sentence else "loaded"
    finally:
        tally.counts[fared] += 1
        tally.slowest = max(tally.slowest, time.process_time() - start)


def _sentence(load: Callable[[Path], object], target: Path) -> str:
    """Load one case; return the sentence it is refused with, empty where it is loaded."""
    try:
        with within(SECONDS):
            found = load(target)
    except RefusalError as e:
        text = str(e)
        assert text.isprintable() and text.endswith((".", "..")) and str(target.parent) not in text, text
        return text
    if target.suffix != ".mp4":  # a recipe is data: who shows it shows it escaped
        assert all(plain(text) == text for text in texts(found))
    return ""


@pytest.mark.parametrize("kind", LOADERS)
def test_changed_bytes_load_or_are_refused_in_one_sentence(sound, kind: str, tmp_path: Path) -> None:
    suffix, load = LOADERS[kind]
    content = sound[kind].read_bytes()
    rng, change = random.Random(f"refusal {kind}"), mutate_recipe if kind == "recipe" else mutate
    target = tmp_path / f"case{suffix}"
    load(sound[kind])
    with noted(kind) as tally:
        for _ in range(ceil(CASES / 2 / len(LOADERS))):
            changed = change(content, rng)
            for _ in range(rng.randrange(3)):
                changed = change(changed, rng) if changed and kind != "recipe" else changed
            target.write_bytes(changed)
            attempt(load, target, tally)
    if kind not in BY_ROW:
        most = tally.counts["refused"] > tally.counts["loaded"]
        assert most, "most changes must be noticed, or the loader checks nothing"
    left = {p.name for p in tmp_path.iterdir()}
    assert left <= {target.name, "0.readings.jsonl"}


# --- sound JSON with one hostile value -----------------------------------------------------------------

LONG = "x" * 100_000
HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "../../etc/passwd",
            "/etc/passwd",
            "C:\\x",
            "a\x1b[2J",
            "\u202egpj",
            "a\nb",
            "\ud800",
            "\x00",
            LONG,
        ]
    ),
    st.sampled_from([[], {}, [[]], [None] * 5000, {"__class__": "x"}, {"a": {"b": [1, {"c": None}]}}]),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=10,
    ),
)


def places(content: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside parsed JSON."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        inner = list(content.items())
    elif isinstance(content, list):
        inner = list(enumerate(content))[:4]
    found = [path] if path else []
    for key, value in inner:
        found += places(value, (*path, key))
    return found


def planted(content: Any, path: tuple[Any, ...], value: object, *, add: bool) -> Any:
    """Return a copy with another value at a path, or with one more beside it."""
    changed = json.loads(json.dumps(content))
    home = changed
    for key in path[:-1]:
        home = home[key]
    if add and isinstance(home, dict):
        home["something more"] = value
    elif add:
        home.append(value)
    else:
        home[path[-1]] = value
    return changed


def written(kind: str, content: bytes, data: st.DataObject) -> bytes:
    """Return a file of a kind with one hostile value somewhere in its JSON."""

    def plant(parsed: Any) -> Any:
        path = data.draw(st.sampled_from(places(parsed)))
        return planted(parsed, path, data.draw(HOSTILE), add=data.draw(st.integers(0, 5)) == 0)

    if kind in ("preset", "pairs", "report", "prompts", "safesora"):
        return json.dumps(plant(json.loads(content))).encode()
    if kind == "journal":
        lines = content.splitlines()
        return b"\n".join([*lines[:-1], json.dumps(plant(json.loads(lines[-1]))).encode()])
    header, body = split(content)
    inside = data.draw(st.booleans()) if kind != "shard" else False
    if inside:
        recipe = plant(json.loads(header["__metadata__"][HEADER_KEY]))
        header["__metadata__"][HEADER_KEY] = json.dumps(recipe)
    else:
        header = plant(header)
    return joined(header, body)


@pytest.mark.parametrize("kind", JSON_KINDS)
def test_a_hostile_value_anywhere_loads_or_is_refused_in_one_sentence(
    sound, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    suffix, load = LOADERS[kind]
    content, folder = sound[kind].read_bytes(), tmp_path_factory.mktemp(kind)
    target = folder / f"case{suffix}"

    @settings(
        max_examples=max(20, ceil(CASES / 2 / len(JSON_KINDS))),
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def case(data: st.DataObject) -> None:
        target.write_bytes(written(kind, content, data))
        attempt(load, target, tally)

    load(sound[kind])
    with noted(kind) as tally:
        case()
    assert tally.counts["loaded"] and (tally.counts["refused"] or kind in BY_ROW)


@settings(max_examples=50, derandomize=True, database=None, deadline=None)
@given(st.text() | st.recursive(st.floats() | st.text(), st.lists).map(json.dumps))
def test_any_comment_of_a_video_is_a_recipe_or_none(comment: str) -> None:
    assert isinstance(_recipe(comment), dict)


# --- the gauges themselves -----------------------------------------------------------------------------


def test_the_gauges_notice_time_memory_and_reach(tmp_path: Path) -> None:
    gauge = Gauge()
    np.ones(30_000_000)
    assert gauge.most() > 200
    assert Gauge().most() < 50, "the mark must go back"
    with pytest.raises(AssertionError, match="s of the processor"), within(0.05):
        start = time.process_time()
        while time.process_time() - start < 0.1:
            pass
    with watched(tmp_path) as touched:
        (tmp_path / "mine").write_text("x")
        Path("/etc/hostname").read_text()
    assert touched == ["open /etc/hostname"]


def test_the_cases_find_a_careless_loader(sound, tmp_path: Path) -> None:
    """Reading JSON and taking what one wants from it fails within a few dozen cases."""

    def careless(path: Path) -> object:
        return [pair["unsafe"].strip() for pair in json.loads(path.read_text())["pairs"]]

    rng, target, crashes, tally = random.Random(0), tmp_path / "case.json", 0, Tally()
    for _ in range(50):
        target.write_bytes(mutate(sound["pairs"].read_bytes(), rng))
        try:
            attempt(careless, target, tally)
        except Exception:
            crashes += 1
    assert crashes == tally.counts["failed"] > 10
    assert tally.counts.total() == 50
