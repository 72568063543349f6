"""Files of prompts as they are published: small twins of each form, in our own words, with awkward rows."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import strangers
from test_cli import run

from refusal_core.cli.evaluate import _print
from refusal_core.concepts import load_preset
from refusal_core.errors import FileError, InputError, RefusalError
from refusal_core.evaluate.evaluation import Evaluation, Source
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.judging import Judging
from refusal_core.evaluate.measures.samples import sample_path
from refusal_core.evaluate.reports.report import load_report
from refusal_core.evaluate.reports.tables import as_markdown
from refusal_core.evaluate.run import evaluate, fitted
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.setup import Setup
from refusal_core.evaluate.suites.files import MAX_SEED, Selection
from refusal_core.evaluate.suites.sources import load_suite
from refusal_core.models.model import Model
from refusal_core.models.words import reading


def written(folder: Path, text: str | bytes, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes, name: str = "mine.csv") -> list[tuple[str, int]]:
    """Return the prompts and seeds of a file, whatever its groups."""
    suite = load_suite("file", written(folder, text, name))
    return sorted(((i.prompt, i.seed) for g in suite for i in g.items), key=lambda found: found[1])


# --- tables as others publish them ---------------------------------------------------------------------

I2P = """,prompt,categories,hard,nudity_percentage,lexica_url,sd_seed,sd_guidance_scale,sd_model
0,a calm lake,"hate, harassment",0,0.0,https://x,2445190844,7,v1
1,=1+1 red circles,self-harm,1,12.5,https://x,9223372036854775807,7,v1
2,"- a list, of things",violence/gore,0,0.0,https://x,42.0,7,v1
3,@someone on a hill,violence/gore,0,0.0,https://x,7,7,v1
"""


def test_a_table_of_another_paper_is_read_with_its_seeds_and_categories(tmp_path: Path) -> None:
    suite = load_suite("file", written(tmp_path, I2P))
    assert {g.name: [(i.prompt, i.seed, i.where) for i in g.items] for g in suite} == {
        "hate, harassment": [("a calm lake", 2445190844, "line 2")],
        "self-harm": [("=1+1 red circles", MAX_SEED, "line 3")],
        "violence/gore": [("- a list, of things", 42, "line 4"), ("@someone on a hill", 7, "line 5")],
    }
    assert [g.aspect for g in suite] == [g.name for g in suite]
    assert suite.notes == (
        "mine.csv: prompts are column 'prompt'; not used: one without a name, hard, nudity_percentage,"
        " lexica_url, sd_guidance_scale, sd_model",
    )
    assert load_suite("csv", tmp_path / "mine.csv") == suite, "its older name"


@pytest.mark.parametrize(
    "head",
    [
        ",type,{},evaluation_seed",
        "case_number,{},evaluation_seed,class",
        "source,file_name,{},seed",
        "id,{},Evaluation Seed,image",
    ],
)
@pytest.mark.parametrize(
    "column",
    ["prompt", "Prompt", "text", "adv_prompt", "adv prompt", "sensitive prompt", "PROMPT-TEXT", "caption"],
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_columns_are_known_by_their_usual_names(
    tmp_path: Path, head: str, column: str, separator: str
) -> None:
    columns = head.format(column).split(",")
    places = {"seed": "5.0", "type": "erased", "class": "3"}
    cells = [next((v for k, v in places.items() if k in name.lower()), "0") for name in columns]
    cells[columns.index(column)] = "a red circle"
    text = "\r\n".join([separator.join(columns), separator.join(cells), ""])
    assert read(tmp_path, text) == [("a red circle", 5)]


def test_of_several_columns_of_prompts_one_is_chosen_and_said(tmp_path: Path) -> None:
    path = written(tmp_path, "target_prompt,adv_prompt,sanitized_adv_prompt\na,b,c\n")
    suite = load_suite("file", path)
    assert [i.prompt for i in suite["prompts"].items] == ["b"]
    assert "prompts are column 'adv_prompt'; not used: target_prompt, sanitized_adv_prompt" in suite.notes[0]
    chosen = load_suite("file", path, Selection(column="Target prompt"))
    assert [i.prompt for i in chosen["prompts"].items] == ["a"]
    with pytest.raises(FileError, match=r"first row must name the columns, and is 'target_prompt,"):
        load_suite("file", path, Selection(column="words"))


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfprompt;seed\r\n\xc3\xa9;5\r\n",
        "prompt,seed\r\né,5\r\n".encode("utf-16"),
        "prompt,seed\né,5\n".encode("utf-16-be").join([b"\xfe\xff", b""]),
        "sep=;\nprompt;seed\né;5\n".encode(),
        "\n\nprompt\tseed\n\né\t5\n\t\n".encode(),
        "prompt,seed\ré,5\r".encode(),
        "prompt,seed,,\né,5,,\n".encode(),
        gzip.compress("prompt,seed\né,5".encode(), mtime=0),
    ],
    ids=["mark", "utf-16", "utf-16-be", "sep", "tabs", "old mac", "empty columns", "packed"],
)
def test_what_spreadsheets_make_of_a_table_is_read(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == [("é", 5)]


def test_a_quoted_prompt_may_hold_breaks_and_separators(tmp_path: Path) -> None:
    text = 'prompt,group\n"one;\ntwo, ""three""",g\nfour,g\n'
    suite = load_suite("file", written(tmp_path, text))
    assert [(i.prompt, i.where) for i in suite["g"].items] == [
        ('one;\ntwo, "three"', "line 2"),
        ("four", "line 4"),
    ]


# --- JSON and text -------------------------------------------------------------------------------------

TWO = [("a fire", 0), ("a lake", 1)]
TEXTS = ["a fire", "a lake"]
OBJECTS = [{"prompt_text": text, "id": f"p{n}"} for n, text in enumerate(TEXTS)]
FORMS: dict[str, tuple[str, str]] = {
    "list of texts": ("x.json", json.dumps(TEXTS)),
    "list of objects": ("x.json", json.dumps(OBJECTS)),
    "list in an object": ("x.json", json.dumps({"version": 1, "data": OBJECTS})),
    "list beside others": ("x.json", json.dumps({"tags": ["a", "b"], "items": OBJECTS})),
    "list of prompts by name": ("x.json", json.dumps({"tags": ["a"], "prompts": TEXTS})),
    "list two objects down": ("x.json", json.dumps({"x": {"test": TEXTS}})),
    "columns": ("x.json", json.dumps({"prompt": TEXTS, "id": [7, 8]})),
    "columns of pandas": (
        "x.json",
        json.dumps({"text": {"0": "a fire", "1": "a lake"}, "n": {"0": 1, "1": 2}}),
    ),
    "objects by name": ("x.json", json.dumps({"p1": {"prompt": "a fire"}, "p2": {"prompt": "a lake"}})),
    "JSON lines": ("x.jsonl", "\n".join(json.dumps(entry) for entry in OBJECTS) + "\n\n"),
    "JSON lines called JSON": ("x.json", "\r\n".join(json.dumps(entry) for entry in OBJECTS)),
    "text": ("x.txt", "\ufeffa fire\r\n \r\na lake"),
    "text of no known kind": ("prompts", "a fire\na lake\n"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_of_a_list_is_read(tmp_path: Path, form: str, packed: bool) -> None:
    name, text = FORMS[form]
    content = gzip.compress(text.encode()) if packed else text.encode()
    assert read(tmp_path, content, f"{name}.gz" if packed else name) == TWO


def test_a_list_for_each_group_is_a_group_each(tmp_path: Path) -> None:
    lists = {
        "boats": [{"prompt": "a boat"}],
        "hills / lakes": [{"prompt": "a lake", "seed": 9}, {"prompt": "a hill"}],
    }
    suite = load_suite("file", written(tmp_path, json.dumps(lists), "x.json"))
    assert {g.name: [(i.prompt, i.seed) for i in g.items] for g in suite} == {
        "boats": [("a boat", 0)],
        "hills / lakes": [("a lake", 9), ("a hill", 2)],
    }


def test_every_line_of_a_text_is_a_prompt(tmp_path: Path) -> None:
    """No sign at a line's start makes a comment of it: '#1 fan' is what somebody asks for."""
    lines = ["# 1 fan", "a, b; c", '"quoted', "one\u2028still one", "=1+1", "  spaced  ", "{not JSON"]
    found = [prompt for prompt, _ in read(tmp_path, "\n".join(lines), "x.txt")]
    assert found == [line.strip() for line in lines]


STRANGE = [
    "a\x1b[2Jb",
    "\u06cc\u200c\u0647",
    "\u202eabc\u202c",
    "\U0001f468\u200d\U0001f469",
    "a\x00b",
    "y" * 900,
]


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.jsonl", "x.txt"])
def test_prompts_are_plain_data_of_any_script(tmp_path: Path, name: str) -> None:
    text = {
        "x.csv": "prompt\n" + "\n".join(STRANGE),
        "x.json": json.dumps(STRANGE),
        "x.jsonl": "\n".join(json.dumps({"prompt": p}, ensure_ascii=False) for p in STRANGE),
        "x.txt": "\n".join(STRANGE),
    }[name]
    assert [prompt for prompt, _ in read(tmp_path, text, name)] == STRANGE


# --- rows that cannot be used --------------------------------------------------------------------------

BAD = """prompt,seed
a fire,1
,2
a lake,-1
a hill,1.5
a boat,nan
a tree,9223372036854775808
a cat,٣
a dog, and more,3
"an "odd" quote",4
a bird,

"never closed,5
a star,6
"""


def test_bad_rows_are_left_out_counted_and_named_together(tmp_path: Path) -> None:
    path = written(tmp_path, BAD)
    suite = load_suite("file", path)
    assert [(i.prompt, i.seed) for i in suite["prompts"].items] == [
        ("a fire", 1),
        ("a bird", 9),
        ("a star", 6),
    ]
    none = f"is no whole number from 0 to {MAX_SEED}"
    assert suite.notes == (
        "mine.csv: 9 of 12 rows were left out: line 3 (the prompt is empty); "
        f"line 4 (seed '-1' {none}); line 5 (seed '1.5' {none}); line 6 (seed 'nan' {none}); "
        f"line 7 (seed '9223372036854775808' {none}); line 8 (seed '٣' {none}); "
        "line 9 (3 cells, not 2: quote what holds separators); "
        "line 10 (no row of a table: ',' expected after '\"'); "
        "line 13 (no row of a table: unexpected end of data)",
    )
    with pytest.raises(InputError, match=r"9 of 12 rows cannot be used; correct them, or leave out"):
        load_suite("file", path, Selection(strict=True))


def test_bad_entries_of_json_are_left_out_and_named(tmp_path: Path) -> None:
    entries = [
        {"prompt": "a fire", "seed": 7.0},
        7,
        {"prompt": ["a"]},
        {"prompt": None},
        {"seed": 1},
        "a lake",
    ]
    suite = load_suite("file", written(tmp_path, json.dumps(entries), "x.json"))
    assert [(i.prompt, i.seed) for i in suite["prompts"].items] == [("a fire", 7), ("a lake", 5)]
    assert suite.notes == (
        "x.json: 4 of 6 rows were left out: entry 2 (neither text nor an object); "
        "entry 3 (the prompt must be text, not list); entry 4 (the prompt is empty); "
        "entry 5 (the prompt is empty)",
    )
    lines = '{"prompt": "a fire"}\n{"prompt": "a la\n{"prompt": "a hill", "seed": true}\n'
    suite = load_suite("file", written(tmp_path, lines, "x.jsonl"))
    assert [i.prompt for i in suite["prompts"].items] == ["a fire"]
    assert "line 2 (neither text nor an object); line 3 (seed 'True' is no" in suite.notes[0]


NOTHING = "1 of 1 rows cannot be used, and nothing else was chosen"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "mine.csv holds no prompt; give a file with prompts."),
        ("prompt\n\n", "mine.csv holds no prompt; give a file with prompts."),
        (
            "a fire\n",
            "mine.csv has no column of prompts: its first row must name the columns, and is 'a fire'; say"
            " which with --prompt-column.",
        ),
        (
            "prompt,seed\n,1\n",
            f"mine.csv: {NOTHING}: line 2 (the prompt is empty).",
        ),
        (
            b"prompt\n\xff\n",
            f"mine.csv: {NOTHING}: line 2 (the prompt is not sound Unicode text).",
        ),
    ],
)
def test_a_file_without_a_usable_row_gives_one_sentence(
    tmp_path: Path, text: str | bytes, sentence: str
) -> None:
    with pytest.raises(RefusalError) as found:
        load_suite("file", written(tmp_path, text))
    assert str(found.value) == sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "x.json is not valid JSON; get the file again."),
        ("[]", "x.json holds no prompt; give a file with prompts."),
        ('{"a": 1}', "x.json holds no list of prompts; give a list of texts or objects."),
        ('{"a":' * 50 + "1" + "}" * 50, "x.json holds no list of prompts; give a list of texts or objects."),
        (
            '[{"words": "a"}, {"words": "b", "n": 1}]',
            "x.json has no column of prompts among words, n; say which with --prompt-column.",
        ),
    ],
)
def test_json_without_prompts_is_refused_in_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    with pytest.raises(FileError) as found:
        load_suite("file", written(tmp_path, content, "x.json"))
    assert str(found.value) == sentence


# --- groups and aspects --------------------------------------------------------------------------------


def test_a_table_names_seeds_groups_and_aspects(tmp_path: Path) -> None:
    rows = ["group,prompt,seed,aspect", 'boats,"a boat, sinking",9,wreck', "neutral,a lake,,"]
    text = "\n".join([*rows, "boats,another,,wreck", "boats,a third,,fire", ""])
    suite = load_suite("file", written(tmp_path, text))
    assert [(g.name, g.aspect, g.ordinary) for g in suite] == [
        ("boats: wreck", "wreck", False),
        ("neutral", "", True),
        ("boats: fire", "fire", False),
    ]
    first = suite["boats: wreck"].items
    assert [(i.prompt, i.seed) for i in first] == [("a boat, sinking", 9), ("another", 2)]
    limited = load_suite("file", tmp_path / "mine.csv", Selection(limit=1, first_seed=5))
    assert [[i.seed for i in g.items] for g in limited] == [[9], [6], [8]]


@pytest.mark.parametrize(
    ("preset", "judge", "aspect"),
    [
        ("fire", "toyworld", "fire"),
        ("fire", "vlm", "fire"),
        ("real-nudity", "nudity", "nudity"),
        ("real-public-figure", "vlm", "public-figures"),
        ("fire,zorbo", "toyworld", "any"),
        ("real-gore,real-nudity", "vlm", "unsafe content"),
    ],
)
def test_where_a_file_names_no_concept_the_preset_s_is_asked_for(
    tmp_path: Path, preset: str, judge: str, aspect: str
) -> None:
    source = Source("file", written(tmp_path, "prompt,class\na,3\nb,boat\n"))
    whole = Evaluation(
        presets=preset, source=source, judging=Judging(judge), together="," in preset, methods="original"
    )
    ((_, suite),) = whole.runs()
    assert {g.name: g.aspect for g in suite} == {"3": aspect, "boat": "boat"}


def test_a_file_that_nobody_would_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The suite toyworld reads no file; give --suite file with --source"):
        Source(path=written(tmp_path, "prompt\na fire\n"))


def test_every_preset_asks_for_something_that_a_question_is_on() -> None:
    from refusal_core.concepts import PRESETS
    from refusal_core.evaluate.judges.aspects import QUESTIONS, category_aspect

    presets = [load_preset(path) for path in PRESETS.glob("*.json")]
    asked = {category_aspect(p.concept.name, p.category) for p in presets}
    assert len(presets) > 10 and asked - {*QUESTIONS} == {"nudity"}


def test_no_name_of_a_group_leaves_the_folder_of_samples(tmp_path: Path) -> None:
    names = ["a/b", "a:b", "..", "../x", "a\\b", "=x", "a\nb", ".hidden", "x" * 81, "Größe (2)", "\u202ea"]
    rows = "".join(f'a,"{name}"\n' for name in names)
    suite = load_suite("file", written(tmp_path, "prompt,group\n" + rows))
    paths = [sample_path(tmp_path, "original", group) for group in suite]
    assert all(path.parent == tmp_path and path.name[0] not in ".-" for path in paths), paths
    assert len(set(paths)) == len(names)
    assert all(group.name.isprintable() and len(group.name) <= 83 for group in suite)


def test_a_bar_in_a_name_keeps_the_columns_of_a_table() -> None:
    import pandas as pd

    assert as_markdown(pd.DataFrame([["a|b"]], columns=["x"])).splitlines()[-1] == r"| a\|b |"


def test_a_file_of_too_many_groups_leaves_out_the_rest(tmp_path: Path) -> None:
    rows = "".join(f"a,g{n}\n" for n in range(502))
    suite = load_suite("file", written(tmp_path, "prompt,group\n" + rows))
    assert (
        len(suite.groups) == 500
        and "2 of 502 rows were left out: line 502 (over 500 groups)" in suite.notes[0]
    )


# --- before the first video ----------------------------------------------------------------------------


def test_a_prompt_that_made_the_edit_is_left_out_and_named(tmp_path: Path) -> None:
    taught = load_preset("fire").concept.pairs[0].unsafe
    path = written(tmp_path, f"prompt\n{taught}\na red circle on fire\n")
    source = Source("file", path)
    ((_, suite),) = Evaluation(source=source, methods="original").runs()
    assert [i.prompt for i in suite["prompts"].items] == ["a red circle on fire"]
    why = "1 prompts made the edit, cannot judge it too, and are left out: line 2"
    assert suite.notes == (why,)
    with pytest.raises(InputError, match="was used to make the edit"):
        Evaluation(source=replace(source, strict=True), methods="original")
    with pytest.raises(InputError, match=r"No prompt of mine\.csv is left to try: 1 prompts made the edit"):
        Evaluation(source=Source("file", written(tmp_path, f"prompt\n{taught}\n")), methods="original")


def test_a_prompt_that_is_too_long_loses_no_run(tiny: Model, tmp_path: Path) -> None:
    """The length is in the model's tokens, and known before the first video is made."""
    limit = tiny.defaults.text_length
    words = " ".join(["red", "blue"] * limit)
    suite = load_suite("file", written(tmp_path, f"{words}\na red circle\n", "x.txt"))
    said = f"1 prompts have more than the {limit} tokens that this model reads"
    assert fitted(suite, tiny, "cut").notes == (f"{said} and are cut there: line 1",)
    skipped = fitted(suite, tiny, "skip")
    assert skipped.notes == (f"{said} and are left out: line 1",)
    assert [i.prompt for i in skipped["prompts"].items] == ["a red circle"]
    with pytest.raises(InputError, match=rf"{said}: line 1; shorten them, or choose --long cut or skip"):
        fitted(suite, tiny, "refuse")
    setup = Setup(tiny, Scoring(toyworld_judge(), "toyworld", quality=False))
    whole = replace(suite, groups=tuple(replace(group, aspect="fire") for group in suite))
    report = evaluate(setup, (load_preset("fire"),), whole, ("original", "safree", "negative-prompt"))
    assert [cell.n for cell in report.cells] == [2, 2, 2]
    assert report.notes == (f"{said} and are cut there: line 1",)


def test_an_attack_leaves_no_prompt_out_without_a_word(tiny: Model, tmp_path: Path) -> None:
    """A word behind a prompt that fills the text has no place; the attack says so, and others go on."""
    words = " ".join(["red", "blue"] * tiny.defaults.text_length)
    with pytest.raises(InputError, match="leaves no room for 5 more tokens"):
        reading(tiny, [words], 5, before=False)
    assert reading(tiny, [words], 5, before=True).places[0].sum() == 5


def test_notes_that_all_reports_share_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = strangers.sound_report()
    reports = [replace(report, concept=name, notes=("shared", f"of {name}")) for name in ("fire", "gore")]
    _print(reports, None)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Note: ")]
    assert lines == ["Note: fire, of fire", "Note: gore, of gore", "Note: shared"]
    _print(reports[:1], None)
    assert "Note: fire, shared\nNote: fire, of fire\n" in capsys.readouterr().out


def test_a_run_goes_on_without_a_bad_row_and_judges_for_the_preset(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    """Three kinds of trouble in a file, and one sound row: a figure, a list at the end, exit code 0."""
    words = " ".join(["red"] * 200)
    sound = "a large green cross on fire moving up over sand,77"
    source = written(tmp_path, f"adv prompt;note;sd_seed\n{sound.replace(',', ';;')}\n;;2\n{words};;3\n")
    command = [
        "evaluate",
        "--suite",
        "file",
        "--source",
        str(source),
        "--methods",
        "original",
        "--workers",
        "1",
    ]
    assert run(monkeypatch, *command, "--long", "skip", "--json", str(tmp_path / "r.json")) == 0
    (cell,) = load_report(tmp_path / "r.json").cells
    assert (cell.judged, cell.unsafe.rate) == (1, 1.0), "asked for fire, as the file names nothing"
    said = capsys.readouterr().out
    assert "Note: fire, mine.csv: prompts are column 'adv prompt'; not used: note\n" in said
    assert "Note: fire, mine.csv: 1 of 3 rows were left out: line 3 (the prompt is empty)\n" in said
    assert "tokens that this model reads and are left out: line 4\n" in said
    for rule in (["--strict"], ["--long", "refuse"], ["--prompt-column", "words"]):
        assert run(monkeypatch, *command, *rule) == 2
        assert "line" in capsys.readouterr().err or rule[0] == "--prompt-column"


# --- size ----------------------------------------------------------------------------------------------


def test_a_large_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    rows = "prompt\n" + "a small red circle\n" * 1000
    assert len(read(tmp_path, rows)) == 1000
    started = time.perf_counter()
    with pytest.raises(FileError, match="larger than the 16 MB"):
        load_suite("file", written(tmp_path, b"prompt\n" + b"x" * (17 << 20)))
    with pytest.raises(FileError, match="field larger than field limit"):
        load_suite("file", written(tmp_path, b"prompt\n" + b"x" * (1 << 20)))
    assert time.perf_counter() - started < 2


def test_broken_quotes_cost_no_more_than_reading(tmp_path: Path) -> None:
    started = time.perf_counter()
    text = "prompt\na fire\n" + '"a ""b"" c\n' * 20_000
    assert read(tmp_path, text)[0] == ("a fire", 0)
    assert time.perf_counter() - started < 5
