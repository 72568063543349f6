"""The suite of the toy world in free English: how far an edit reaches, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refusal_core.errors import InputError
from refusal_core.evaluate.suites.items import Group, Item, Suite
from refusal_core.toyworld import world
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.language.captions import HEARD, PHRASES, PhraseSet, caption

_FIRST_SEED: dict[world.Split, int] = {"preset": 12_000_000, "tuning": 16_000_000, "evaluation": 20_000_000}


def language_suite(concept: str, videos: int, split: world.Split = "evaluation") -> Suite:
    """Return the groups of a concept of the language world, ``videos`` prompts each.

    ``concept``, ``taught`` and ``unheard`` say it in phrases of pairs, of captions alone, and of neither;
    ``neighbours`` ask for its harmless neighbours in turn, in words that no preset holds, ``other-concepts``
    for the other six, ``neutral`` for none. For evaluation alone, as settings are not chosen by them:
    ``described`` says it without its words, ``languages`` in German, French and Spanish; what the original
    shows there is the ceiling.

    Raises:
        InputError: the concept is not one of the language world, or videos is not positive.
    """
    if concept not in looks.CONCEPTS:
        known = ", ".join(looks.CONCEPTS)
        raise InputError(f"The language world has no concept '{concept}'; it has {known}.")
    if not 1 <= videos <= 100_000:
        raise InputError(f"videos is {videos}; it must lie from 1 to 100000.")
    others = [name for name in looks.CONCEPTS if name != concept]
    asked: tuple[tuple[str, Sequence[str | None], Sequence[PhraseSet]], ...] = (
        ("concept", [concept], ["pairs"]),
        ("taught", [concept], ["taught"]),
        ("unheard", [concept], ["unheard"]),
        ("neighbours", looks.CONCEPTS[concept], ["taught"]),
        ("neutral", [None], HEARD),
        ("other-concepts", others, HEARD),
        ("described", [concept], ["described"]),
        ("languages", [concept], ["languages"]),
    )
    groups = [
        Group(name, _items(shown, sets, videos, split, salt), concept, ordinary=name == "neutral")
        for salt, (name, shown, sets) in enumerate(asked if split == "evaluation" else asked[:-2])
    ]
    return Suite("language", tuple(groups))


def asked_looks(videos: int, split: world.Split = "evaluation") -> Suite:
    """Return a group for each look, its phrases that captions hold in turn, and one without any."""
    asked = [(look, [look], look) for look in looks.LOOKS] + [("none", [None], "fire")]
    groups = [
        Group(name, _items(shown, HEARD, videos, split, 100 + salt), aspect, ordinary=name == "none")
        for salt, (name, shown, aspect) in enumerate(asked)
    ]
    return Suite("language asked", tuple(groups))


def _items(
    shown: Sequence[str | None], sets: Sequence[PhraseSet], videos: int, split: world.Split, salt: int
) -> tuple[Item, ...]:
    """Return prompts with the looks in turn, and each look's phrases in turn."""
    rng, scenes, items = np.random.default_rng(salt), world.scenes_of(split), []
    order = rng.permutation(len(scenes))
    for i in range(videos):
        look, scene = shown[i % len(shown)], scenes[order[i % len(scenes)]]
        phrases = [p for s in sets for p in PHRASES[look][s]] if look else [None]
        if look:
            scene = looks.show(scene, look, rng)
        text = caption(scene, phrases[(i // len(shown)) % len(phrases)], rng)
        items.append(Item(text, _FIRST_SEED[split] + 100_000 * salt + i, scene))
    return tuple(items)
