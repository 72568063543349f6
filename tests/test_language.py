"""The language world: looks told apart, phrases kept apart, an encoder whose weights are known."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from refusal_core.errors import ModelError
from refusal_core.toyworld import world
from refusal_core.toyworld.language import encoder, looks
from refusal_core.toyworld.language.captions import PHRASES, overlaps, training_caption


def test_every_concept_has_three_neighbours_and_every_look_its_phrases() -> None:
    assert len(looks.CONCEPTS) == 7
    assert all(len(near) == 3 for near in looks.CONCEPTS.values())
    assert set(PHRASES) == set(looks.LOOKS)
    assert len(set(looks.LOOKS)) == 28
    for sets in PHRASES.values():
        assert (len(sets["pairs"]), len(sets["taught"])) == (5, 5)
        assert len(sets["unheard"]) >= 10


def test_unheard_phrases_are_in_no_caption() -> None:
    assert overlaps() == []
    rng = np.random.default_rng(1)
    captions = [training_caption(looks.random_scene(rng), rng) for _ in range(3000)]
    for sets in PHRASES.values():
        for phrase in sets["unheard"]:
            assert not any(phrase.rstrip(".") in caption for caption in captions), phrase


def test_no_two_looks_are_drawn_alike() -> None:
    rng = np.random.default_rng(2)
    for _ in range(3):
        scene = looks.show(world.random_scene(rng, 0.0), "crash", rng)  # one that moves
        clips = {look: looks.render(looks.show(scene, look, rng), 5) for look in looks.LOOKS}
        assert len({hashlib.sha256(clip.tobytes()).hexdigest() for clip in clips.values()}) == 28
        plain = world.render(world.Scene(*[getattr(scene, n) for n in world.Scene.__slots__[:5]]), 5)
        for look, clip in clips.items():
            differs = np.abs(clip.astype(int) - plain).mean((1, 2, 3)) > 0.5
            assert differs.sum() >= 8, look


def test_the_looks_of_the_old_world_are_drawn_as_there() -> None:
    for concept in ("fire", "bleeding", "star-logo", "exploding", "zorbo", None):
        scene = world.Scene("red", "cross", "large", "moving up", "sand", concept)
        assert np.array_equal(looks.render(scene, 3), world.render(scene, 3))


def test_a_missing_encoder_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "WHEEL", "no-such-wheel")
    with pytest.raises(ModelError, match=r"pip install no-such-wheel==0\.1\.0"):
        encoder.encoder_folder()
