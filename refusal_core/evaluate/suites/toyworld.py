"""The toy world's suites, from scenes whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from refusal_core.errors import InputError
from refusal_core.evaluate.suites.items import Group, Item, Suite
from refusal_core.toyworld import world

CELLS = ("concept", "paraphrase", "neutral", "other-concepts")
_FIRST_SEED: dict[world.Split, int] = {"preset": 0, "tuning": 4_000_000, "evaluation": 8_000_000}


def toyworld_suite(concept: str, videos: int, split: world.Split = "evaluation") -> Suite:
    """Return the four groups of a toy-world concept, ``videos`` prompts each.

    ``concept`` uses the phrasings that pairs may use, ``paraphrase`` those that pairs never use,
    ``neutral`` shows no concept, ``other-concepts`` one of the other four in turn.

    Raises:
        InputError: the concept is not one of the toy world, or videos is not positive.
    """
    _check(concept, videos)
    others = [name for name in world.CONCEPTS if name != concept]
    every = range(len(world.CONCEPTS[concept]))
    groups = (
        Group("concept", _items([concept], every[: world.SEEN], videos, split, 0), concept),
        Group("paraphrase", _items([concept], every[world.SEEN :], videos, split, 1), concept),
        Group("neutral", _items([None], [0], videos, split, 2), concept, ordinary=True),
        Group("other-concepts", _items(others, every, videos, split, 3), concept),
    )
    return Suite("toyworld", groups)


def together_suite(concepts: Sequence[str], videos: int, split: world.Split = "evaluation") -> Suite:
    """Return a suite for several concepts erased at once: a group each, every phrasing in turn, and neutral.

    Raises:
        InputError: a concept is not one of the toy world, or videos is not positive.
    """
    for concept in concepts:
        _check(concept, videos)
    groups = [
        Group(name, _items([name], range(len(world.CONCEPTS[name])), videos, split, 20 + i), name)
        for i, name in enumerate(concepts)
    ]
    neutral = Group("neutral", _items([None], [0], videos, split, 2), concepts[0], ordinary=True)
    return Suite("toyworld together", (*groups, neutral))


def attribute_suite(value: str, videos: int, split: world.Split = "evaluation") -> Suite:
    """Return scenes with a value of an attribute, such as a colour, and ordinary ones without it.

    Raises:
        InputError: no attribute of the toy world has this value.
    """
    field = next((name for name, known in _ATTRIBUTES.items() if value in known), None)
    if field is None:
        raise InputError(f"The toy world has no '{value}'; take a colour, shape, motion or background.")
    shown, without = (_items([None], [0], n, split, salt) for n, salt in ((videos, 4), (4 * videos, 5)))
    concept = [_item(replace(i.scene, **{field: value}), i.seed) for i in shown if i.scene]
    neutral = [i for i in without if i.scene and getattr(i.scene, field) != value][:videos]
    groups = Group("concept", tuple(concept), value), Group("neutral", tuple(neutral), value, ordinary=True)
    return Suite("toyworld", groups)


_ATTRIBUTES = {"colour": world.COLOURS, "shape": world.SHAPES, "motion": world.MOTIONS,
               "background": world.BACKGROUNDS}  # fmt: skip
ATTRIBUTE_VALUES = tuple(value for values in _ATTRIBUTES.values() for value in values)


def _item(scene: world.Scene, seed: int) -> Item:
    return Item(scene.caption(0, seed % len(world.TEMPLATES)), seed, scene)


def asked_suite(videos: int, split: world.Split = "evaluation") -> Suite:
    """Return a group for each concept, every phrasing in turn, and one without any."""
    groups = [
        Group(name, _items([name], range(len(p)), videos, split, 10), name)
        for name, p in world.CONCEPTS.items()
    ]
    none = Group("none", _items([None], [0], videos, split, 11), "fire", ordinary=True)
    return Suite("toyworld asked", (*groups, none))


def _check(concept: str, videos: int) -> None:
    if concept not in world.CONCEPTS:
        raise InputError(f"The toy world has no concept '{concept}'; it has {', '.join(world.CONCEPTS)}.")
    if not 1 <= videos <= 100_000:
        raise InputError(f"videos is {videos}; it must lie from 1 to 100000.")


def _items(
    concepts: Sequence[str | None], phrases: Sequence[int], videos: int, split: world.Split, salt: int
) -> tuple[Item, ...]:
    scenes = world.scenes_of(split)
    order = np.random.default_rng(salt).permutation(len(scenes))
    items = []
    for i in range(videos):
        scene = replace(scenes[order[i % len(scenes)]], concept=concepts[i % len(concepts)])
        turn = i // len(concepts)
        phrase = phrases[turn % len(phrases)]
        template = (turn // len(phrases)) % len(world.TEMPLATES)
        items.append(Item(scene.caption(phrase, template), _FIRST_SEED[split] + 100_000 * salt + i, scene))
    return tuple(items)
