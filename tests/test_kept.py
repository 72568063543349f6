"""Neutral prompts are read once: kept on disk under all that decides their rows, and never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import refusal_core as rc
from refusal_core import capturing, cli
from refusal_core.errors import Cancelled
from refusal_core.hooks import watch_calls
from refusal_core.io.places import cache_folder
from refusal_core.models.model import Model, wrap_pipeline
from refusal_core.models.tiny import build
from refusal_core.progress import silent
from refusal_core.reading import kept
from refusal_core.reading.kept import blocks, narrow, sampled_hash, spared_seconds
from refusal_core.settings import CaptureSettings

ROOT = Path(__file__).parents[1]
BOTH_SIDES = CaptureSettings(kinds=("text-entry", "text", "cross-attention"), timesteps=2)


@pytest.fixture
def keeping(tiny: Model) -> Model:
    """The tiny model as one that was loaded by its name: what it reads is kept."""
    return replace(tiny, loading=rc.LoadSettings())


@contextmanager
def counted(model: Model) -> Iterator[list[int]]:
    """Count the prompts that enter the denoiser, call by call."""
    calls: list[int] = []
    with watch_calls(model.denoisers, lambda _module, arguments: calls.append(len(arguments["timestep"]))):
        yield calls


def passes(model: Model, concept: rc.Concept, settings: CaptureSettings = BOTH_SIDES) -> int:
    """Return how many prompts enter the denoiser in a capture."""
    with counted(model) as calls:
        rc.capture(model, concept, settings)
    return sum(calls)


def files() -> list[Path]:
    return sorted(cache_folder().glob("*"))


def other(concept: rc.Concept) -> rc.Concept:
    """Another concept with the same neutral prompts."""
    pairs = [rc.PromptPair(pair.unsafe.replace("fire", "smoke"), pair.safe) for pair in concept.pairs]
    return rc.Concept("smoke", tuple(pairs), concept.neutral)


def same(a: rc.Activations, b: rc.Activations) -> bool:
    """Return whether two captures hold equal rows, and share them among the same sites."""
    pairs = [(a.sites[site], b.sites[site]) for site in a.sites]
    shared = [len({id(s) for s in seen.sites.values()}) for seen in (a, b)]
    return shared[0] == shared[1] and all(
        torch.equal(x.unsafe, y.unsafe) and torch.equal(x.safe, y.safe) and torch.equal(x.neutral, y.neutral)
        for x, y in pairs
    )


SECOND = """
import json, sys
import refusal_core as rc
from refusal_core.hooks import watch_calls
calls, model, pairs = [], rc.load_model("toyworld"), rc.load_concept("zorbo").pairs
with watch_calls(model.denoisers, lambda _module, arguments: calls.append(len(arguments["timestep"]))):
    rc.capture(model, rc.Concept("zorbo", pairs))
    alone = sum(calls)
    seen = rc.capture(model, rc.Concept("zorbo", pairs, rc.load_concept("fire").neutral))
rc.save_edit(rc.make_edit(rc.estimate(seen)), sys.argv[1])
print(json.dumps([alone, sum(calls) - alone]))
"""


def test_another_concept_in_another_process_costs_its_pairs_alone(toy: Model, tmp_path: Path) -> None:
    fire, out = rc.load_concept("fire"), tmp_path / "edit.safetensors"
    rc.capture(toy, fire)
    done = subprocess.run(
        [sys.executable, "-c", SECOND, str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    alone, with_neutral = json.loads(done.stdout.splitlines()[-1])
    assert with_neutral == alone
    off = replace(toy, loading=rc.LoadSettings(cache=False))
    with counted(off) as calls:
        anew = rc.capture(off, rc.Concept("zorbo", rc.load_concept("zorbo").pairs, fire.neutral))
    assert sum(calls) > alone + 200, "the control: without what is kept all are read"
    for site, change in rc.make_edit(rc.estimate(anew)).sites.items():
        other_process = rc.load_edit(out).sites[site]
        assert torch.equal(change.remove, other_process.remove)
        assert torch.equal(change.detect, other_process.detect)


def test_rows_from_the_files_are_those_that_are_read_bit_for_bit(
    keeping: Model, tiny: Model, fire: rc.Concept
) -> None:
    first, again = (rc.capture(keeping, fire, BOTH_SIDES) for _ in range(2))
    assert len(files()) == 2, "one file of each side"
    anew = rc.capture(tiny, fire, BOTH_SIDES)
    assert same(first, anew) and same(again, anew)


def test_what_is_read_of_neutral_prompts_serves_every_change_of_a_pair(
    keeping: Model, fire: rc.Concept
) -> None:
    whole = passes(keeping, fire)
    pairs_alone = passes(keeping, replace(fire, neutral=()))
    assert passes(keeping, other(fire)) == pairs_alone < whole
    changed = replace(fire, pairs=fire.pairs[:2])
    assert passes(keeping, changed) < pairs_alone
    assert passes(keeping, replace(fire, neutral=fire.neutral[1:])) > pairs_alone, "other prompts"


def test_fewer_sites_are_found_in_what_was_read_of_more(keeping: Model, fire: rc.Concept) -> None:
    few = replace(BOTH_SIDES, kinds=("cross-attention",), layers=(1,))
    more = replace(few, layers=(1, 2))
    pairs_alone = passes(keeping, replace(fire, neutral=()), few)
    assert passes(keeping, fire, more) > pairs_alone
    assert passes(keeping, fire, few) == pairs_alone
    assert list(rc.capture(keeping, fire, few).sites) == [
        site for site in keeping.sites if site.kind == "cross-attention" and site.block == 1
    ]
    last = replace(few, layers=(3,))
    assert passes(keeping, fire, last) > passes(keeping, replace(fire, neutral=()), last), "one that is not"


DECIDING: dict[str, Callable[[Model], Model]] = {
    "weights": lambda m: _with_weight(m, "transformer"),
    "text encoder": lambda m: _with_weight(m, "text_encoder"),
    "defaults": lambda m: replace(m, defaults=replace(m.defaults, height=32)),
}


def _with_weight(model: Model, part: str) -> Model:
    torch.manual_seed(0)
    pipeline = build("wan")
    with torch.no_grad():
        list(getattr(pipeline, part).parameters())[-1].add_(0.25)
    return replace(wrap_pipeline(pipeline, "wan"), defaults=model.defaults, loading=model.loading)


@pytest.mark.parametrize("what", DECIDING)
def test_all_that_decides_the_rows_is_in_the_key(what: str) -> None:
    plain = replace(wrap_pipeline(build("wan"), "wan"), loading=rc.LoadSettings())
    again = replace(wrap_pipeline(build("wan"), "wan"), loading=rc.LoadSettings())
    keys = [kept.reading_key(m, ["a cat"], {}) for m in (plain, again, DECIDING[what](plain))]
    assert keys[0] == keys[1] is not None and keys[2] not in keys[:2]


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"timesteps": 3}, {"pool": "frame"}, {"frames": 9}, {"neutral_rows": 100}],
    ids=lambda change: next(iter(change)),
)
def test_settings_of_the_video_side_are_in_its_key_and_not_in_the_text_s(
    keeping: Model, fire: rc.Concept, change: dict[str, object]
) -> None:
    rc.capture(keeping, fire, BOTH_SIDES)
    before = set(files())
    rc.capture(keeping, fire, replace(BOTH_SIDES, **change))
    assert len(set(files()) - before) == 1, "the video's side is read anew, the text's is not"


def test_an_edited_model_is_not_taken_for_the_one_that_was_read(keeping: Model, fire: rc.Concept) -> None:
    seen = rc.capture(keeping, fire, BOTH_SIDES)
    with rc.applied(keeping, rc.make_edit(rc.estimate(seen))):
        edited = rc.capture(keeping, fire, BOTH_SIDES)
    assert not same(seen, edited)
    assert same(seen, rc.capture(keeping, fire, BOTH_SIDES))


def test_nothing_is_kept_where_it_is_switched_off(keeping: Model, tiny: Model, fire: rc.Concept) -> None:
    off = replace(keeping, loading=rc.LoadSettings(cache=False))
    assert passes(off, fire) == passes(off, fire) == passes(tiny, fire)
    assert files() == []


def test_a_file_that_is_there_is_never_replaced(keeping: Model, fire: rc.Concept) -> None:
    """Of two that read at once the second leaves the first one's: over a network it may be mapped."""
    reading = capturing.neutral_readings(keeping, fire.neutral, keeping.sites[:1], CaptureSettings())[0]
    with torch.inference_mode():
        rows, _ = reading.rows(silent)
    (path,) = files()
    before = path.stat().st_ino
    assert kept._Store(reading).keep(path, rows, 1.0)
    assert path.stat().st_ino == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty"])
def test_a_damaged_file_is_made_again_with_a_note(keeping: Model, fire: rc.Concept, damage: str) -> None:
    settings = CaptureSettings()
    first = rc.capture(keeping, fire, settings)
    (path,) = files()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.unlink()  # who writes into a mapped file kills whoever reads it: nobody does
    path.write_bytes({"cut": content[:-9], "flipped": content, "other": b"{}" * 40, "empty": b""}[damage])
    again = rc.capture(keeping, fire, settings)
    assert again.notes == ("Activations kept of neutral prompts were damaged: they are read again.",)
    assert same(first, again)
    assert rc.estimate(again).notes[0] == again.notes[0], "whoever makes the edit reads it"
    assert rc.capture(keeping, fire, settings).notes == ()


def test_a_full_disk_is_a_note(keeping: Model, fire: rc.Concept, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("refusal_core.io.files.save_file", full)
        seen = rc.capture(keeping, fire, BOTH_SIDES)
    assert len(seen.notes) == 1 and "No space left on device" in seen.notes[0]
    assert seen.notes[0].startswith("Activations of neutral prompts are not kept (")
    assert same(seen, rc.capture(keeping, fire, BOTH_SIDES))


def test_a_folder_that_cannot_be_made_is_a_note(
    keeping: Model, fire: rc.Concept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REFUSAL_STUDIO_DATA", str(tmp_path / "file"))
    assert "are not kept" in rc.capture(keeping, fire).notes[0]


def test_a_reading_that_was_stopped_goes_on_where_it_was(
    keeping: Model, tiny: Model, fire: rc.Concept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refusal_core.models.recording.SMALL_BATCH", 4)
    monkeypatch.setattr(kept, "BLOCK", 4)
    settings = replace(BOTH_SIDES, kinds=("cross-attention",))

    def stop(_fraction: float, sentence: str) -> None:
        if "neutral prompts, 8 of 12" in sentence:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        rc.capture(keeping, fire, settings, progress=stop)
    assert len(files()) == 1, "the block that ran whole; the other's last sentence came before it was kept"
    whole, pairs_alone = passes(tiny, fire, settings), passes(tiny, replace(fire, neutral=()), settings)
    each = (whole - pairs_alone) // 3
    assert passes(keeping, fire, settings) == whole - each
    assert len(files()) == 1, "the blocks' files go when the whole is there"
    assert same(rc.capture(keeping, fire, settings), rc.capture(tiny, fire, settings))


def test_blocks_are_whole_batches(keeping: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert blocks(keeping, 70) == [range(32), range(32, 64), range(64, 70)]
    monkeypatch.setattr("refusal_core.models.recording.SMALL_BATCH", 1)
    assert blocks(keeping, 40) == [range(16), range(16, 32), range(32, 40)]


def test_over_the_limit_what_was_used_longest_ago_goes(
    keeping: Model, fire: rc.Concept, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CaptureSettings()
    concepts = [replace(fire, neutral=fire.neutral[i : i + 10]) for i in range(3)]
    made = []
    for age, concept in zip((300, 200), concepts, strict=False):
        rc.capture(keeping, concept, text)
        (path,) = set(files()) - set(made)
        made.append(path)
        os.utime(path, (time.time() - age,) * 2)
    rc.capture(keeping, concepts[0], text)  # the older one is used again
    monkeypatch.setattr(kept, "MOST_BYTES", sum(path.stat().st_size for path in made) + 100)
    rc.capture(keeping, concepts[2], text)
    assert made[0] in files() and made[1] not in files() and len(files()) == 2


def test_what_a_killed_process_left_goes_after_a_day(keeping: Model, fire: rc.Concept) -> None:
    cache_folder().mkdir(parents=True)
    left = [cache_folder() / f".{name}.safetensors.0123456789ab.tmp" for name in ("old", "new")]
    for path, age in zip(left, (2 * kept.ABANDONED, 60), strict=True):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    rc.capture(keeping, fire)
    assert [path.exists() for path in left] == [False, True]


def test_two_at_once_write_what_is_equal(keeping: Model, fire: rc.Concept, monkeypatch) -> None:
    """A second process that wrote the file, or deleted it, in between does no harm."""
    real, seen = kept._load, []

    def gone(path: Path) -> object:
        path.unlink()
        return real(path)

    rc.capture(keeping, fire)
    monkeypatch.setattr(kept, "_load", gone)
    seen.append(rc.capture(keeping, fire))
    assert seen[0].notes == (), "it was pruned, not damaged"
    monkeypatch.undo()


def test_memory_is_that_of_the_file(keeping: Model, fire: rc.Concept) -> None:
    """Rows are mapped: as the file goes on being there for whoever has it open, it may be deleted."""
    seen = rc.capture(keeping, fire)
    before = {site: samples.neutral.clone() for site, samples in seen.sites.items()}
    assert kept.clear_files() > 0 and files() == []
    assert all(torch.equal(samples.neutral, before[site]) for site, samples in seen.sites.items())


def test_rows_are_narrowed_only_where_nothing_is_lost() -> None:
    rows = torch.randn(4, 8)
    half = rows.bfloat16().float()
    assert narrow(rows) is rows
    assert narrow(half).dtype == torch.bfloat16 and torch.equal(narrow(half).float(), half)
    assert narrow(rows.half().float()).dtype == torch.float16
    assert torch.equal(torch.cat([rows, narrow(half)]), torch.cat([rows, half])), "and mix with wider ones"


def test_what_a_file_saved_counts_as_cost(keeping: Model, fire: rc.Concept) -> None:
    start = spared_seconds()
    rc.capture(keeping, fire)
    assert spared_seconds() == start
    rc.capture(keeping, fire)
    assert spared_seconds() > start


def test_weights_out_of_reach_are_never_taken_for_known() -> None:
    pipeline = build("wan")
    assert sampled_hash(pipeline) is not None
    pipeline.transformer.to("meta")
    assert sampled_hash(pipeline) is None


def test_the_folder_is_told_measured_and_emptied(
    keeping: Model, fire: rc.Concept, capsys: pytest.CaptureFixture[str]
) -> None:
    rc.capture(keeping, fire)
    for arguments in (["models", "cache"], ["models", "cache", "--clear"], ["models", "cache"]):
        with suppress(SystemExit):
            cli.main(arguments)
    first, second, deleted, after = capsys.readouterr().out.splitlines()
    assert first == second and first.startswith(f"{cache_folder()}: ") and ": 0.0 MB" not in first
    assert deleted.startswith("deleted: ") and ": 0.0 MB" in after
    assert files() == []


@pytest.mark.parametrize(
    ("platform", "environment", "place"),
    [
        ("linux", {"REFUSAL_STUDIO_DATA": "/mine", "XDG_CACHE_HOME": "/cache"}, "/mine/activations"),
        ("linux", {"XDG_CACHE_HOME": "/cache"}, "/cache/refusal-studio/activations"),
        ("linux", {"HOME": "/home/me"}, "/home/me/.cache/refusal-studio/activations"),
        ("darwin", {"HOME": "/Users/me"}, "/Users/me/Library/Caches/refusal-studio/activations"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/refusal-studio/activations"),
    ],
    ids=["named", "cache", "home", "mac", "windows"],
)
def test_the_folder_is_the_one_named_or_in_the_user_s_cache(
    platform: str, environment: dict[str, str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("REFUSAL_STUDIO_DATA", "XDG_CACHE_HOME", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(place)
