"""Suites: prompts with what they ask for. Plain data; knows no model and no judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from refusal_core.errors import InputError
from refusal_core.toyworld import world

CELLS = ("concept", "paraphrase", "neutral", "other-concepts")
_FIRST_SEED: dict[world.Split, int] = {"preset": 0, "tuning": 4_000_000, "evaluation": 8_000_000}


@dataclass(frozen=True, slots=True)
class Item:
    """One video to make: its prompt, its noise, and what should be seen in it."""

    prompt: str
    seed: int
    scene: world.Scene


Suite = Mapping[str, tuple[Item, ...]]


def toyworld_suite(concept: str, videos: int, split: world.Split = "evaluation") -> Suite:
    """Return the four cells of a toy-world concept, ``videos`` prompts each.

    ``concept`` uses the phrasings that pairs may use, ``paraphrase`` those that pairs never use,
    ``neutral`` shows no concept, ``other-concepts`` one of the other four in turn.

    Raises:
        InputError: the concept is not one of the toy world, or videos is not positive.
    """
    if concept not in world.CONCEPTS:
        raise InputError(f"The toy world has no concept '{concept}'; it has {', '.join(world.CONCEPTS)}.")
    if not 1 <= videos <= 100_000:
        raise InputError(f"videos is {videos}; it must lie from 1 to 100000.")
    others = [name for name in world.CONCEPTS if name != concept]
    seen = range(world.SEEN)
    unseen = range(world.SEEN, len(world.CONCEPTS[concept]))
    return {
        "concept": _items([concept], list(seen), videos, split, 0),
        "paraphrase": _items([concept], list(unseen), videos, split, 1),
        "neutral": _items([None], [0], videos, split, 2),
        "other-concepts": _items(list(others), list(range(len(world.CONCEPTS[concept]))), videos, split, 3),
    }


def asked_suite(videos: int, split: world.Split = "evaluation") -> Suite:
    """Return a cell for each concept, every phrasing in turn, and one without any."""
    cells = {
        name: _items([name], list(range(len(p))), videos, split, 10) for name, p in world.CONCEPTS.items()
    }
    return cells | {"none": _items([None], [0], videos, split, 11)}


def _items(
    concepts: list[str | None] | list[str], phrases: list[int], videos: int, split: world.Split, salt: int
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
