"""Suites from a user's files: the same prompts and seeds every time, one sentence for whatever is wrong."""

from __future__ import annotations

import gzip
import json
import resource
import time
from pathlib import Path

import pytest

from refusal_core.errors import FileError, InputError, RefusalError
from refusal_core.evaluate.suites import safesora, t2vsafetybench
from refusal_core.evaluate.suites.files import Selection
from refusal_core.evaluate.suites.records import MAX_BYTES
from refusal_core.evaluate.suites.sources import load_suite


def bench(root: Path, full: int = 3, tiny: int = 1) -> Path:
    """Write a folder of the benchmark's form with prompts of our own."""
    inner = root / "clone" / "T2VSafetyBench"
    for folder, count in ((inner, full), (inner / "Tiny-T2VSafetyBench", tiny)):
        folder.mkdir(parents=True)
        for number in range(1, 15):
            lines = [f"a {folder.name} prompt {place} of class {number}" for place in range(count)]
            (folder / f"{number}.txt").write_text("\n".join(lines))
    (root / "clone" / "definition.txt").write_text("not a category\n")
    return root / "clone"


def prompt_file(folder: Path, entries: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / safesora.FILE
    path.write_bytes(gzip.compress(json.dumps(entries).encode()))
    return path


def entry(text: str, *labels: str, neutral: bool = False) -> dict[str, object]:
    kind = "safety_neutral" if neutral else "safety_critical"
    named = {label: label in labels for label in safesora.LABELS}
    return {"prompt_id": "x", "prompt_text": text, "prompt_type": kind, "prompt_labels": named}


# --- T2VSafetyBench ----------------------------------------------------------------------------------


def test_every_category_is_a_group_and_the_paper_s_five_a_subset(tmp_path: Path) -> None:
    suite = load_suite("t2vsafetybench", bench(tmp_path))
    assert [g.name for g in suite] == list(t2vsafetybench.CATEGORIES)
    assert all(len(g.items) == 3 and g.aspect == g.name for g in suite)
    five = load_suite("t2vsafetybench", tmp_path / "clone", Selection(categories="paper"))
    assert {g.name for g in five} == set(t2vsafetybench.PAPER) and len(five.groups) == 5
    assert five["gore"].items[0].prompt == "a T2VSafetyBench prompt 0 of class 4"
    assert five["gore"].items[0].labels == ("gore",)


def test_tiny_is_another_folder_and_never_taken_for_full(tmp_path: Path) -> None:
    clone = bench(tmp_path)
    tiny = load_suite("t2vsafetybench-tiny", clone)
    assert [len(g.items) for g in tiny] == [1] * 14
    assert "Tiny" in tiny["gore"].items[0].prompt
    inside = clone / "T2VSafetyBench" / "Tiny-T2VSafetyBench"
    assert load_suite("t2vsafetybench-tiny", inside) == tiny
    with pytest.raises(FileError, match=r"holds no full T2VSafetyBench"):
        load_suite("t2vsafetybench", inside)


def test_a_prompt_keeps_its_seed_whatever_else_is_chosen(tmp_path: Path) -> None:
    clone = bench(tmp_path, full=4)
    whole = load_suite("t2vsafetybench", clone, Selection(first_seed=100))
    part = load_suite("t2vsafetybench", clone, Selection(first_seed=100, categories="gore", limit=2))
    assert [i.seed for i in whole["gore"].items] == [100, 101, 102, 103]
    assert part["gore"].items == whole["gore"].items[:2]
    moved = load_suite("t2vsafetybench", clone, Selection(first_seed=7))
    assert moved["gore"].items[0].seed != whole["gore"].items[0].seed


@pytest.mark.parametrize("name", ["04.txt", "4_gore.txt", "Gore.TXT", "4 - Gore.txt"])
def test_other_names_of_the_files_are_understood(tmp_path: Path, name: str) -> None:
    inner = bench(tmp_path) / "T2VSafetyBench"
    (inner / "4.txt").rename(inner / name)
    assert load_suite("t2vsafetybench", inner, Selection(categories="gore"))["gore"].items
    (inner / name).rename(inner / "notes.txt")
    with pytest.raises(FileError, match=r"lacks 4\.txt \(gore\)"):
        load_suite("t2vsafetybench", inner, Selection(categories="gore"))


def test_lines_end_at_newlines_alone(tmp_path: Path) -> None:
    """U+2028 is a break to ``splitlines``, and part of a prompt here."""
    inner = bench(tmp_path) / "T2VSafetyBench"
    (inner / "4.txt").write_bytes("\ufeffone\u2028still one  \r\n\n\ntwo\n".encode())
    items = load_suite("t2vsafetybench", inner, Selection(categories="gore"))["gore"].items
    assert [(i.prompt, i.seed) for i in items] == [("one\u2028still one", 0), ("two", 1)]
    assert len("one\u2028still one".splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\n \n", "4.txt holds no prompt; give a file with prompts."),
        (b"x" * (17 << 20), "4.txt has 17.0 MB, larger than the 16 MB that are read; give a smaller file."),
    ],
)
def test_a_hostile_category_gives_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    clone = bench(tmp_path)
    (clone / "T2VSafetyBench" / "4.txt").write_bytes(content)
    with pytest.raises(RefusalError) as found:
        load_suite("t2vsafetybench", clone, Selection(categories="gore"))
    assert str(found.value) == sentence
    with pytest.raises(RefusalError, match=r"4\.txt"):
        load_suite("t2vsafetybench", clone, Selection(strict=True))
    suite = load_suite("t2vsafetybench", clone)
    assert len(suite.groups) == 13 and suite.notes == (sentence,), "the others are sound"


def test_a_class_that_the_folder_lacks_is_named_and_the_others_are_tried(tmp_path: Path) -> None:
    clone = bench(tmp_path)
    (clone / "T2VSafetyBench" / "12.txt").unlink()
    (clone / "T2VSafetyBench" / "14.txt").unlink()
    suite = load_suite("t2vsafetybench", clone)
    assert len(suite.groups) == 12
    lacking = ("12.txt (sequential-action-risk)", "14.txt (coherent-contextual-risk)")
    assert suite.notes == tuple(f"clone lacks {file}; get the benchmark again." for file in lacking)
    with pytest.raises(FileError, match=r"lacks 12\.txt"):
        load_suite("t2vsafetybench", clone, Selection(categories="gore,sequential-action-risk"))


def test_a_line_that_cannot_be_used_loses_no_other(tmp_path: Path) -> None:
    clone = bench(tmp_path)
    (clone / "T2VSafetyBench" / "4.txt").write_bytes(b"a fire\n\xff\n\na lake\n")
    suite = load_suite("t2vsafetybench", clone)
    assert [(i.prompt, i.seed, i.where) for i in suite["gore"].items] == [
        ("a fire", 0, "4.txt, line 1"),
        ("a lake", 2, "4.txt, line 4"),
    ]
    (note,) = suite.notes
    assert note == (
        "T2VSafetyBench: 1 of 42 rows were left out: 4.txt, line 2 (the prompt is not sound Unicode text)"
    )
    with pytest.raises(InputError, match=r"1 of 42 rows cannot be used; .*4\.txt, line 2"):
        load_suite("t2vsafetybench", clone, Selection(strict=True))


def test_a_jailbreak_reaches_the_model_as_it_is(tmp_path: Path) -> None:
    """The published files are garbled on purpose: control characters, joiners, no end to a line."""
    inner = bench(tmp_path) / "T2VSafetyBench"
    garbled = ["b\x00c\x1b[2J", "d\re\x0bf", "\u202egnp.exe", "\u06cc\u200c\u0647", "y" * 900]
    (inner / "4.txt").write_bytes("\n".join(garbled).encode())
    assert [i.prompt for i in load_suite("t2vsafetybench", inner)["gore"].items] == garbled


# --- SafeSora ----------------------------------------------------------------------------------------


def test_labels_are_groups_and_ordinary_prompts_are_marked(tmp_path: Path) -> None:
    entries = [
        entry("a calm lake", neutral=True),
        entry("two labels", "violence", "racism"),
        entry("one label", "porn"),
        {**entry("none"), "prompt_labels": None},
    ]
    suite = load_suite("safesora", prompt_file(tmp_path, entries))
    assert {g.name: [(i.prompt, i.seed) for i in g.items] for g in suite} == {
        "violence": [("two labels", 1)],
        "racism": [("two labels", 1)],
        "sexual": [("one label", 2)],
        "unlabelled": [("none", 3)],
        "neutral": [("a calm lake", 0)],
    }
    assert [g.name for g in suite if g.ordinary] == ["neutral"]
    assert suite["violence"].items[0].labels == ("violence", "racism")
    paper = load_suite("safesora", tmp_path, Selection(categories="paper"))  # the folder will do
    assert [g.name for g in paper] == ["violence", "racism", "sexual"]


def test_a_bomb_unpacks_no_further_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / safesora.FILE
    path.write_bytes(gzip.compress(b" " * (1 << 20)) * 300)
    assert path.stat().st_size < MAX_BYTES, "small, and yet it holds 300 MB"
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(FileError, match="unpacks to more than 16 MB"):
        load_suite("safesora", path)
    assert time.perf_counter() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "in kB"


GZIPPED = gzip.compress(b"[]", mtime=0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", f"{safesora.FILE} is not valid JSON; get the file again."),
        (GZIPPED[:-6], f"{safesora.FILE} is damaged; get the file again."),
        (b"\x1f\x8b\x00\x00", f"{safesora.FILE} is damaged; get the file again."),
        (b"[" * 100_000, f"{safesora.FILE} is not valid JSON; get the file again."),
        (b"[NaN]", f"{safesora.FILE} is not valid JSON; get the file again."),
        (b"\xff\xfe", f"{safesora.FILE} is not valid JSON; get the file again."),
        (b"{}", f"{safesora.FILE} holds no list of prompts; give a list of texts or objects."),
        (
            b"[7]",
            f"{safesora.FILE}: 1 of 1 rows cannot be used, and nothing else was chosen: entry 1 (neither"
            " text nor an object).",
        ),
        (GZIPPED, f"{safesora.FILE} holds no prompt; give a file with prompts."),
    ],
)
def test_a_damaged_file_gives_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / safesora.FILE
    path.write_bytes(content)
    with pytest.raises(RefusalError) as found:
        load_suite("safesora", path)
    assert str(found.value) == sentence


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"prompt_text": 7}, "the prompt must be text, not int"),
        ({"prompt_text": "  "}, "the prompt is empty"),
        ({"prompt_text": "a\ud83db"}, "the prompt is not sound Unicode text"),
        ({"prompt_type": "other"}, "prompt_type must be safety_critical or safety_neutral"),
        ({"prompt_type": ["safety_critical"]}, "prompt_type must be safety_critical or safety_neutral"),
        ({"prompt_labels": {"violence": "maybe"}}, "its labels must be true or false each"),
        ({"prompt_labels": {"violence": [True]}}, "its labels must be true or false each"),
        ({"prompt_labels": 7}, "its labels are neither names nor true and false by name"),
        ({"prompt_labels": {"other": True}}, "the label 'other' is not known"),
    ],
)
def test_a_bad_entry_is_left_out_and_named(tmp_path: Path, change: dict[str, object], why: str) -> None:
    good = entry("a fine prompt", "violence")
    path = prompt_file(tmp_path, [good, {**good, **change}])
    suite = load_suite("safesora", path)
    assert [i.prompt for i in suite["violence"].items] == ["a fine prompt"]
    assert suite.notes == (f"{safesora.FILE}: 1 of 2 rows were left out: entry 2 ({why})",)
    with pytest.raises(InputError, match="1 of 2 rows cannot be used"):
        load_suite("safesora", path, Selection(strict=True))


SHIPPED = {
    "a list of labels": ("x.json", json.dumps([{"prompt": "one", "labels": ["violence", "racism"]}])),
    "labels in a text": ("x.csv", 'prompt,category\none,"racism, violence"\n'),
    "a column a label": ("x.csv", "id,prompt_text,violence,racism,porn\n1,one,True,1.0,False\n"),
    "our own names": ("x.jsonl", '{"text": "one", "labels": {"violence": 1, "Racism": true, "sexual": 0}}\n'),
    "inside an object": ("x.json", json.dumps({"data": [entry("one", "violence", "racism")]})),
}


@pytest.mark.parametrize("form", SHIPPED)
def test_its_prompts_are_read_as_others_ship_them(tmp_path: Path, form: str) -> None:
    name, content = SHIPPED[form]
    (tmp_path / name).write_text(content)
    suite = load_suite("safesora", tmp_path / name)
    assert {g.name: [i.prompt for i in g.items] for g in suite} == {"violence": ["one"], "racism": ["one"]}


def test_prompts_without_labels_are_asked_for_unsafe_content(tmp_path: Path) -> None:
    (tmp_path / "safesora.txt").write_text("one\n\ntwo\n")
    (group,) = load_suite("safesora", tmp_path / "safesora.txt")
    assert (group.name, group.aspect, len(group.items)) == ("unlabelled", safesora.UNSAFE, 2)


# --- all of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t2vsafetybench", "safesora", "csv"])
def test_a_missing_file_and_a_bad_choice_give_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="nowhere"):
        load_suite(name, tmp_path / "nowhere")
    for limit in (0, -1, 10**9):
        with pytest.raises(InputError, match="must lie from 1 to 100000"):
            load_suite(name, tmp_path, Selection(limit=limit))
    with pytest.raises(InputError, match="categor"):
        load_suite(name, tmp_path, Selection(categories="gore,zebra"))


def test_an_unknown_suite_is_named() -> None:
    with pytest.raises(InputError, match="no suite 'imagenet'; choose from t2vsafetybench, t2vsafety"):
        load_suite("imagenet", Path("x"))


def test_every_prompt_made_for_the_toy_models_is_one_they_read_whole() -> None:
    from refusal_core.evaluate.suites.adversarial import adversarial_suite
    from refusal_core.toyworld import world
    from refusal_core.toyworld.pipeline import TEXT_LENGTH, build_tokenizer

    tokenizer = build_tokenizer()
    for concept in world.CONCEPTS:
        prompts = [i.prompt for g in adversarial_suite(concept, 300) for i in g.items]
        assert max(len(tokens) for tokens in tokenizer(prompts).input_ids) <= TEXT_LENGTH
