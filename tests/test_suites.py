"""Suites from a user's files: the same prompts and seeds every time, one sentence for whatever is wrong."""

from __future__ import annotations

import gzip
import json
import resource
import time
from pathlib import Path

import pytest

from refusal_core.errors import FileError, InputError, RefusalError
from refusal_core.evaluate.measures.samples import sample_path
from refusal_core.evaluate.suites import safesora, t2vsafetybench
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
    five = load_suite("t2vsafetybench", tmp_path / "clone", categories="paper")
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
    whole = load_suite("t2vsafetybench", clone, first_seed=100)
    part = load_suite("t2vsafetybench", clone, first_seed=100, categories="gore", limit=2)
    assert [i.seed for i in whole["gore"].items] == [100, 101, 102, 103]
    assert part["gore"].items == whole["gore"].items[:2]
    moved = load_suite("t2vsafetybench", clone, first_seed=7)
    assert moved["gore"].items[0].seed != whole["gore"].items[0].seed


@pytest.mark.parametrize("name", ["04.txt", "4_gore.txt", "Gore.TXT", "4 - Gore.txt"])
def test_other_names_of_the_files_are_understood(tmp_path: Path, name: str) -> None:
    inner = bench(tmp_path) / "T2VSafetyBench"
    (inner / "4.txt").rename(inner / name)
    assert load_suite("t2vsafetybench", inner, categories="gore")["gore"].items
    (inner / name).rename(inner / "notes.txt")
    with pytest.raises(FileError, match=r"lacks 4\.txt \(gore\)"):
        load_suite("t2vsafetybench", inner, categories="gore")


def test_lines_end_at_newlines_alone(tmp_path: Path) -> None:
    """U+2028 is a break to ``splitlines``, and part of a prompt here."""
    inner = bench(tmp_path) / "T2VSafetyBench"
    (inner / "4.txt").write_bytes("\ufeffone\u2028still one  \r\n\n\ntwo\n".encode())
    items = load_suite("t2vsafetybench", inner, categories="gore")["gore"].items
    assert [(i.prompt, i.seed) for i in items] == [("one\u2028still one", 0), ("two", 1)]
    assert len("one\u2028still one".splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a fire\n\xff\n", "4.txt is not UTF-8 text; save it as UTF-8."),
        (b"\n \n", "4.txt holds no prompt; get the benchmark again."),
        (b"x" * (2 << 20), "4.txt has 2.0 MB, larger than the 1 MB that are read; give a smaller file."),
    ],
)
def test_a_hostile_category_gives_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    clone = bench(tmp_path)
    (clone / "T2VSafetyBench" / "4.txt").write_bytes(content)
    with pytest.raises(RefusalError) as found:
        load_suite("t2vsafetybench", clone)
    assert str(found.value) == sentence
    assert load_suite("t2vsafetybench", clone, categories="violence").groups, "the others are sound"


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
    paper = load_suite("safesora", tmp_path, categories="paper")  # the folder will do
    assert [g.name for g in paper] == ["violence", "racism", "sexual"]


def test_a_bomb_unpacks_no_further_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / safesora.FILE
    path.write_bytes(gzip.compress(b" " * (1 << 20)) * 300)
    assert path.stat().st_size < safesora.MAX_PACKED, "small, and yet it holds 300 MB"
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(FileError, match="unpacks to more than 8 MB"):
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
        (b"\xff\xfe", f"{safesora.FILE} is not UTF-8 text; save it as UTF-8."),
        (b"{}", f"{safesora.FILE} is no list of prompts; give SafeSora-Eval's {safesora.FILE}."),
        (b"[7]", f"{safesora.FILE}, entry 1 is no object; get the file again."),
        (GZIPPED, "The suite 'SafeSora-Eval' holds no prompt; choose other categories."),
    ],
)
def test_a_damaged_file_gives_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / safesora.FILE
    path.write_bytes(content)
    with pytest.raises(RefusalError) as found:
        load_suite("safesora", path)
    assert str(found.value) == sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt_text": 7}, "must be text, not int."),
        ({"prompt_text": "a\ud83db"}, "is not sound Unicode text; save it as UTF-8."),
        ({"prompt_type": ["safety_critical"]}, "must be safety_critical or safety_neutral"),
        ({"prompt_labels": {"violence": "yes"}}, "must name each label true or false"),
        ({"prompt_labels": ["violence"]}, "must name each label true or false"),
        ({"prompt_labels": {"other": True}}, "the label 'other' is not known"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    good = entry("a fine prompt", "violence")
    assert load_suite("safesora", prompt_file(tmp_path, [good]))["violence"].items
    with pytest.raises(RefusalError) as found:
        load_suite("safesora", prompt_file(tmp_path, [good, {**good, **change}]))
    assert str(found.value).startswith(f"{safesora.FILE}, entry 2") and sentence in str(found.value)


# --- a table of one's own ----------------------------------------------------------------------------


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_table_needs_prompts_alone(tmp_path: Path) -> None:
    suite = load_suite("csv", table(tmp_path, "\ufeffPrompt\r\na fire\r\n\r\n a lake \r\n"), first_seed=5)
    group = suite["prompts"]
    assert [(i.prompt, i.seed) for i in group.items] == [("a fire", 5), ("a lake", 6)]
    assert group.aspect == "unsafe content" and not group.ordinary


def test_a_table_names_seeds_groups_and_aspects(tmp_path: Path) -> None:
    rows = ["group,prompt,seed,aspect", 'boats,"a boat, sinking",9,wreck', "neutral,a lake,,"]
    text = "\n".join([*rows, "boats,another,,wreck", ""])
    suite = load_suite("csv", table(tmp_path, text))
    assert [(g.name, g.aspect, g.ordinary) for g in suite] == [
        ("boats", "wreck", False),
        ("neutral", "unsafe content", True),
    ]
    assert [(i.prompt, i.seed) for i in suite["boats"].items] == [("a boat, sinking", 9), ("another", 2)]
    assert len(load_suite("csv", tmp_path / "mine.csv", limit=1)["boats"].items) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "mine.csv holds no prompt; write the column names first, then a row for each."),
        ("prompt\n\n", "mine.csv holds no prompt; write the column names first, then a row for each."),
        ("a fire\n", "mine.csv has no column 'prompt'; its first row must name the columns, with commas."),
        (
            "prompt;seed\n",
            "mine.csv has no column 'prompt'; its first row must name the columns, with commas.",
        ),
        ("prompt,size\n", "mine.csv: column 'size' is not known; there are prompt, seed, group, aspect."),
        ("prompt,prompt\n", "mine.csv names a column twice; keep one of them."),
        ("prompt\na fire, a lake\n", "mine.csv, line 2 has 2 cells, not 1; quote prompts with commas."),
        ('prompt\n"a fire\n', "mine.csv, line 2 is no row of a CSV (unexpected end of data); correct it."),
        ("prompt,seed\na,1.5\n", "mine.csv, line 2: seed '1.5' must be a whole number."),
        ("prompt,seed\na,nan\n", "mine.csv, line 2: seed 'nan' must be a whole number."),
        ("prompt,seed\na,-1\n", "mine.csv, line 2: seed '-1' must be a whole number."),
        ("prompt,seed\na,٣\n", "mine.csv, line 2: seed '٣' must be a whole number."),
        ("prompt,seed\na,4294967296\n", "mine.csv, line 2: seed 4294967296 must lie from 0 to 2147483647."),
        ("prompt,seed\n,1\n", "mine.csv, line 2 is empty; write a prompt."),
        (
            "prompt\n=1+1\n",
            "mine.csv, line 2: a prompt must not start with '='; spreadsheets run such cells.",
        ),
        (b"prompt\n\xff\n", "mine.csv is not UTF-8 text; save it as UTF-8."),
        (
            "prompt,group\na,../../up\n",
            "mine.csv, line 2: the group must begin with a letter and hold only letters, digits, spaces,"
            " ,.&'()-.",
        ),
        (
            "prompt,group,aspect\na,g,x\nb,g,y\n",
            "mine.csv, line 3: group 'g' is judged for 'x' above and 'y' here; make it two groups.",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(RefusalError) as found:
        load_suite("csv", table(tmp_path, text))
    assert str(found.value) == sentence


def test_no_name_of_a_group_leaves_the_folder_of_samples(tmp_path: Path) -> None:
    for name in ("a/b", "..", "../x", "a\\b", "=x", "a\nb", ".hidden", "x" * 81):
        with pytest.raises(InputError):
            load_suite("csv", table(tmp_path, f'prompt,group\na,"{name}"\n'))
    group = load_suite("csv", table(tmp_path, "prompt,group\na,Größe (2)\n")).groups[0]
    assert sample_path(tmp_path, "original", group).parent == tmp_path


def test_a_large_table_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    rows = "prompt\n" + "a small red circle\n" * 1000
    assert len(load_suite("csv", table(tmp_path, rows))["prompts"].items) == 1000
    started = time.perf_counter()
    with pytest.raises(FileError, match="larger than the 16 MB"):
        load_suite("csv", table(tmp_path, b"prompt\n" + b"x" * (17 << 20)))
    with pytest.raises(FileError, match="field larger than field limit"):
        load_suite("csv", table(tmp_path, b"prompt\n" + b"x" * (1 << 20)))
    assert time.perf_counter() - started < 2


# --- all of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t2vsafetybench", "safesora", "csv"])
def test_a_missing_file_and_a_bad_choice_give_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="nowhere"):
        load_suite(name, tmp_path / "nowhere")
    for limit in (0, -1, 10**9):
        with pytest.raises(InputError, match="must lie from 1 to 100000"):
            load_suite(name, tmp_path, limit=limit)
    with pytest.raises(InputError, match="categor"):
        load_suite(name, tmp_path, categories="gore,zebra")


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
