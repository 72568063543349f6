"""Presets and pairs: what is bundled is sound, what is not sound gets one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refusal_core.concepts import (
    PRESETS,
    Concept,
    PromptPair,
    list_presets,
    load_neutral,
    load_pairs,
    load_preset,
    neutral_prompts,
)
from refusal_core.errors import FileError, InputError, RefusalError
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.recipe import Recipe, changed
from refusal_core.settings import parse_layers
from refusal_core.toyworld import world
from refusal_core.toyworld.training.presets import preset_files


def valid() -> dict[str, Any]:
    return json.loads((PRESETS / "fire.json").read_text(encoding="utf-8"))


def write(folder: Path, content: object) -> Path:
    path = folder / "mine.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_presets_are_bundled_five_for_the_toy_world_and_nine_for_real_models() -> None:
    presets = list_presets()
    assert len(presets) == 5 + 9
    assert len(list_presets("any")) == 9
    assert {p.concept.name for p in list_presets("toyworld")} == set(world.CONCEPTS)
    real = [p for p in presets if p.model != "toyworld"]
    assert len({p.category for p in real}) == 9
    for preset in real:
        assert len(preset.concept.neutral) == len(set(preset.concept.neutral)) >= 200


def test_the_toy_presets_are_what_the_world_makes() -> None:
    for name, text in preset_files().items():
        assert (PRESETS / name).read_text(encoding="utf-8") == text, name


@pytest.mark.parametrize("concept", list(world.CONCEPTS))
def test_presets_share_nothing_with_the_prompts_that_judge_or_tune_them(concept: str) -> None:
    preset = load_preset(concept)
    pairs = {text for p in preset.concept.pairs for text in (p.unsafe, p.safe)}
    used = pairs | set(preset.concept.neutral) | {preset.prompt}
    for split in ("tuning", "evaluation"):
        suite = toyworld_suite(concept, 600, split)
        assert not used & {item.prompt for group in suite for item in group.items}
    unseen = world.CONCEPTS[concept][world.SEEN :]
    assert not [t for t in used for phrase in unseen if phrase in t]
    assert any(phrase in t for t in pairs for phrase in world.CONCEPTS[concept][: world.SEEN])
    others = [phrase for name in world.CONCEPTS if name != concept for phrase in world.CONCEPTS[name]]
    assert all(any(phrase in t for t in preset.concept.neutral) for phrase in others)


@pytest.mark.parametrize(
    ("unsafe", "safe", "sentence"),
    [
        ("", "a cat", "The unsafe prompt is empty; write a prompt."),
        ("a cat", "  ", "The safe prompt is empty; write a prompt."),
        ("A cat", "a cat", "Unsafe and safe prompt are the same ('a cat'); they must differ."),
        ("a\u202eb", "A\u202eb", r"Unsafe and safe prompt are the same ('A\u202eb'); they must differ."),
        ("a\ud83db", "a", "The unsafe prompt is not sound Unicode text; save it as UTF-8."),
        (None, "a", "The unsafe prompt must be text, not NoneType."),
    ],
)
def test_a_bad_pair_gets_one_sentence(unsafe: Any, safe: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        PromptPair(unsafe, safe)
    assert str(caught.value) == sentence


def test_one_pair_is_not_enough() -> None:
    with pytest.raises(InputError, match="Add at least 2 prompt pairs; 'x' has 1"):
        Concept("x", (PromptPair("a b", "a"),))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"surprise": 1}, "mine.json: surprise: extra inputs are not permitted"),
        ({"version": 2}, "mine.json: version: input should be 1"),
        ({"format": "other"}, "mine.json: format: input should be 'refusal-studio preset'"),
        ({"pairs": []}, "mine.json: pairs: list should have at least 2 items"),
        (
            {"pairs": [{"unsafe": "a", "safe": "a"}] * 2},
            "mine.json, pair 1: Unsafe and safe prompt are the same",
        ),
        ({"neutral": "../../etc/passwd"}, "mine.json: neutral"),
        (
            {"neutral": "nothing-here"},
            "no list of neutral prompts 'nothing-here'; choose one of everyday.",
        ),
        ({"recommended": {"neutral": "everyday"}}, "mine.json: recommended.neutral: extra inputs"),
        ({"name": "A/B"}, "mine.json: name: string should match pattern"),
        (
            {"recommended": {"rank": 0}},
            "mine.json: recommended.rank: input should be greater than or equal to 1",
        ),
    ],
)
def test_a_bad_preset_gets_one_sentence_with_its_place(
    tmp_path: Path, change: dict[str, Any], part: str
) -> None:
    with pytest.raises(RefusalError) as caught:
        load_preset(write(tmp_path, valid() | change))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_preset(write(tmp_path, valid())).concept.name == "fire"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not valid JSON"),
        ('{"version": NaN}', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('"' + "x" * (1 << 20) + '"', "larger than the 1 MB that are read"),
        ("\udcff", "cannot be read as text"),
    ],
)
def test_a_file_that_is_no_preset_gets_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RefusalError, match=sentence):
        load_preset(path)
    with pytest.raises(RefusalError, match=sentence):
        load_pairs(path)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="There is no preset 'war'; choose one of bleeding, exploding, fire"):
        load_preset("war")


def test_own_pairs_are_read(tmp_path: Path) -> None:
    rows = [{"unsafe": "a b", "safe": "a"}, {"unsafe": "c b", "safe": "c"}]
    assert load_pairs(write(tmp_path, {"pairs": rows})) == (PromptPair("a b", "a"), PromptPair("c b", "c"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


# Reading the tables of Unicode the first time may take seconds on a busy machine.
@settings(derandomize=True, max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(valid())), json_values, max_size=3))
def test_whatever_stands_in_a_preset_it_loads_or_gets_one_sentence(change: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            load_preset(write(Path(folder), valid() | change))
        except RefusalError as e:
            assert "\n" not in str(e)
            assert str(folder) not in str(e)


@pytest.mark.parametrize(
    ("text", "layers"),
    [(None, None), ("all", None), ("0-7", tuple(range(8))), ("1,3-4", (1, 3, 4)), (" 2 , 2", (2,))],
)
def test_layers_are_read_as_people_write_them(text: str | None, layers: tuple[int, ...] | None) -> None:
    assert parse_layers(text, 8) == layers


def test_neutral_prompts_are_the_concept_s_or_a_list_s_and_as_many_as_are_asked_for() -> None:
    pairs = (PromptPair("a red cat", "a cat"), PromptPair("a red dog", "a dog"))
    concept = Concept("red", pairs, tuple(f"prompt {i}" for i in range(10)))
    assert neutral_prompts(concept, None, None) == concept.neutral
    assert neutral_prompts(concept, None, 4) == ("prompt 0", "prompt 2", "prompt 5", "prompt 7")
    assert neutral_prompts(concept, None, 10) == neutral_prompts(concept, None, 99) == concept.neutral
    assert neutral_prompts(concept, None, 0) == ()
    everyday = neutral_prompts(concept, "everyday", None)
    assert everyday == load_neutral("everyday") and len(set(neutral_prompts(concept, "everyday", 50))) == 50


@pytest.mark.parametrize("name", ["nothing", "../neutral/everyday", "/etc/passwd", "held-out"])
def test_a_list_that_no_edit_may_be_made_from_is_refused_before_anything_runs(name: str) -> None:
    recipe = Recipe(load_preset("fire").concept)
    with pytest.raises(InputError, match=r"no list of neutral prompts|measures what else"):
        changed(recipe, {"neutral": name})
    assert changed(recipe, {"neutral": "everyday"}).capture.neutral == "everyday"


def test_a_list_of_one_s_own_is_json_or_one_prompt_a_line(tmp_path: Path) -> None:
    text, plain = tmp_path / "mine.txt", tmp_path / "mine.json"
    text.write_text("a cat on a chair\n\n  a dog  \n", encoding="utf-8")
    head = {"format": "refusal-studio neutral prompts", "version": 1, "name": "mine"}
    plain.write_text(json.dumps({**head, "prompts": ["a cat on a chair", "a dog"]}), encoding="utf-8")
    assert load_neutral(text) == load_neutral(plain) == ("a cat on a chair", "a dog")
    text.write_text("\n", encoding="utf-8")
    with pytest.raises(FileError, match=r"mine.txt: the file: list should have at least 1 item"):
        load_neutral(text)
