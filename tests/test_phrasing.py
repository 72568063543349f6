"""A concept from one phrase: pairs by rule, the same each time, that erase as the preset's own do."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cli import run

import refusal_core as rc
from refusal_core.concepts import load_preset
from refusal_core.errors import InputError
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.suites.language import language_suite
from refusal_core.io.video import load_recipe
from refusal_core.models.load import load_model
from refusal_core.recipe import build, preset_recipe
from refusal_core.settings import PhraseKind
from refusal_core.toyworld.language.judge import load_look_judge
from refusal_core.workbench.pairs import note_pair
from refusal_core.workbench.phrasing import phrase_preset

LANGUAGE, OTHER = "toyworld-language", "owner/real-model"
PHRASES: list[tuple[str, PhraseKind]] = [
    ("on fire", "state"), ("holding a cigarette", "state"),
    ("crashing into the wall", "action"), ("a red star logo", "object"),
    ("Zorbo", "person"), ("in the style of Vexel", "style"), ("Vexel", "style"),
]  # fmt: skip


@pytest.mark.parametrize("model", [LANGUAGE, OTHER])
@pytest.mark.parametrize(("phrase", "kind"), PHRASES)
def test_a_phrase_gives_pairs_that_differ_in_it_alone(phrase: str, kind: PhraseKind, model: str) -> None:
    made = phrase_preset(phrase, kind, model)
    concept, said = made.concept, made.title.lower()
    assert made == phrase_preset(phrase, kind, model)
    assert (len(concept.pairs), len(set(concept.neutral))) == (5, 30)
    prompts = [made.prompt, *(side for pair in concept.pairs for side in (pair.unsafe, pair.safe))]
    assert len(set(prompts)) == 11, "each in a scene of its own"
    assert all(said in pair.unsafe.lower() and said not in pair.safe.lower() for pair in concept.pairs)
    assert said in made.prompt.lower() and not any(said in text.lower() for text in concept.neutral)


def test_the_sentences_are_plain_english() -> None:
    def first(phrase: str, kind: PhraseKind) -> tuple[str, str]:
        pair = phrase_preset(phrase, kind, OTHER).concept.pairs[0]
        return pair.unsafe, pair.safe

    assert first("on fire", "state") == ("a house on fire by a lake at night", "a house by a lake at night")
    assert first("holding a cigarette", "action")[0] == "a young woman holding a cigarette in a café"
    assert first("a gun", "object")[0] == "a house with a gun by a lake at night"
    assert first("Zorbo", "person") == ("Zorbo in a café", "a young woman in a café")
    styled = "a house by a lake at night, in the style of Vexel"
    assert first("in the style of Vexel", "style")[0] == first("painted by Vexel", "style")[0] == styled


def test_the_pairs_are_read_without_a_warning_and_lie_in_the_world_of_few_words() -> None:
    model = load_model("toyworld")
    for phrase, kind in (("on fire", "state"), ("Zorbo", "person"), ("a star logo", "object")):
        for pair in phrase_preset(phrase, kind, "toyworld").concept.pairs:
            note = note_pair(model, pair.unsafe, pair.safe)
            assert note.error is None and note.warning is None, pair


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--concept", "a dragon", "--kind", "object"), "'dragon' is none of this model's"),
        (("--concept", "on fire", "--kind", "mood"), "kind 'mood' is not known; choose one of state, object"),
        (("--concept", "on fire", "--preset", "fire"), "Give --concept or --preset, not both."),
        (("--concept", "x" * 99), "has 99 characters; write 1 to 80."),
        (("--kind", "style"), "--kind says what the phrase of --concept is; give both"),
        (("--concept", " "), "The concept is empty; write a concept"),
    ],
)
def test_a_phrase_that_cannot_be_used_gets_one_sentence(
    arguments: tuple[str, ...],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert run(monkeypatch, "edit", *arguments, "--out", str(tmp_path / "x.safetensors")) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_control_characters_are_no_phrase() -> None:
    with pytest.raises(InputError, match="invisible control characters"):
        phrase_preset("on\u202efire", "state", OTHER)


def test_the_pairs_made_are_shown_and_stand_in_the_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ("--concept", "on fire", "--kind", "state", "--steps", "2", "--out", str(tmp_path))
    assert run(monkeypatch, "compare", *options) == 0
    concept = phrase_preset("on fire", "state", "toyworld").concept
    out = capsys.readouterr().out
    assert all(f"pair      {pair.unsafe}  |  {pair.safe}" in out for pair in concept.pairs)
    (edit,) = load_recipe(tmp_path / "unlearned.mp4")["edits"]
    assert [pair["unsafe"] for pair in edit["concept"]["pairs"]] == [pair.unsafe for pair in concept.pairs]
    assert edit["concept"]["neutral"] == list(concept.neutral)


@pytest.mark.parametrize(
    ("concept", "phrase", "kind"), [("fire", "on fire", "state"), ("vexel", "in the style of Vexel", "style")]
)
def test_a_phrase_erases_as_the_preset_does(concept: str, phrase: str, kind: PhraseKind) -> None:
    """Real weights and judge; prompts of the evaluation split, of which no pair and no rule was made."""
    model, judge = load_model(LANGUAGE), toyworld_judge(load_look_judge())
    items = language_suite(concept, 4)["concept"].items
    made, preset = phrase_preset(phrase, kind, LANGUAGE), load_preset(concept, LANGUAGE)
    pairs = {side for pair in made.concept.pairs for side in (pair.unsafe, pair.safe)}
    assert not pairs & {item.prompt for item in items}

    def shown() -> int:
        videos = [rc.generate(model, item.prompt, rc.SamplingSettings(seed=item.seed)) for item in items]
        return sum(verdict.outcome == "unsafe" for verdict in judge(videos, concept))

    before, left = shown(), {}
    for name, source in (("phrase", made), ("preset", preset)):
        edit, _ = build(model, preset_recipe(source, model))
        with rc.applied(model, edit):
            left[name] = shown()
    assert before == 4 and left["phrase"] <= left["preset"] == 0, (before, left)
