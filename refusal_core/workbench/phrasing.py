"""A concept from one phrase: pairs and ordinary prompts in plain English, by rule, the same each time.

Knows no tensors and asks no model: what a phrase means is not looked up, its kind says how it is used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from refusal_core.concepts import Concept, Preset, PromptPair, load_neutral
from refusal_core.errors import InputError
from refusal_core.io.reading import clean_line, shown
from refusal_core.models.load import BUNDLED, world_of
from refusal_core.settings import PhraseKind
from refusal_core.toyworld import world
from refusal_core.toyworld.language import captions

Words = tuple[str, str]  # of a scene: who or what, and where

PAIRS, PLAIN, ALIKE = 5, 20, 10  # prompts of each sort; ALIKE: ordinary ones that say something of the kind
MOST = 80  # characters of a phrase
# Of one phrase one direction: on the language world's tuning split, four videos a cell, ranks 1, 2 and 4 all
# erased fire, vexel and zorbo, and left 10, 7 and 5 of the 11 neighbours that were drawn before.
SETTINGS = {"rank": 1}

THINGS: tuple[Words, ...] = (
    ("a house", "by a lake at night"),
    ("a car", "on a country road"),
    ("a tree", "on a grassy hill"),
    ("a boat", "in a small harbour"),
    ("a chair", "in an empty room"),
    ("a red barn", "in a field of wheat"),
)
PEOPLE: tuple[Words, ...] = (
    ("a young woman", "in a café"),
    ("an old man", "on a park bench"),
    ("a girl", "in a garden"),
    ("a man in a grey suit", "at a bus stop"),
    ("a nurse", "in a bright corridor"),
    ("a farmer", "beside a wooden gate"),
)
# How a phrase of each kind is said, in turn; the safe side is the same without it.
SAID: dict[PhraseKind, tuple[str, ...]] = {
    "state": ("{thing} {phrase} {place}", "{thing} {place}, {phrase}"),
    "action": ("{thing} {phrase} {place}", "{thing} {place}, {phrase}"),
    "object": (
        "{thing} with {phrase} {place}",
        "{thing} {place}, with {phrase}",
        "{thing} bearing {phrase} {place}",
        "{thing} {place}, showing {phrase}",
    ),
    "person": (
        "{thing} called {phrase} {place}",
        "{thing} {place}, who is {phrase}",
        "{thing} named {phrase} {place}",
    ),
    "style": (
        "{thing} {place}, in the style of {phrase}",
        "{thing} in {phrase} style {place}",
        "{thing} in the style of {phrase} {place}",
        "{thing} {place}, as {phrase} would draw it",
        "{thing} {place}, in {phrase} style",
    ),
}
# A real person takes the place of someone, more often than being said of someone.
OF_PEOPLE = ("{phrase} {place}", "a portrait of {phrase} {place}", "{phrase} talking to a friend {place}")
# What must pass although it stands where the phrase stands.
ORDINARY: dict[PhraseKind, tuple[str, ...]] = {
    "state": ("covered in snow", "wet with rain", "painted green", "full of flowers", "wrapped in a blanket"),
    "action": ("turning slowly", "standing still", "waiting", "leaning to one side", "resting"),
    "object": ("a blue bag", "a paper kite", "an umbrella", "a round badge", "a bunch of flowers"),
    "person": ("Anna", "Peter", "Maria", "old Tom", "Doctor Lee"),
    "style": ("Monet", "Hokusai", "Rembrandt", "Klimt", "Turner"),
}


def phrase_preset(phrase: str, kind: PhraseKind, model: str) -> Preset:
    """Return a phrase as a preset: five pairs, about thirty ordinary prompts, and a prompt to try.

    Args:
        phrase: as it is said within a sentence, such as ``on fire``; of a style or a person the name alone
            will do.
        kind: what it is; decides where in a sentence it stands.
        model: in whose world the scenes are: everyday ones but for the bundled models.

    Raises:
        InputError: the phrase is empty, too long, or has a word that the model does not know.
    """
    text = clean_line(phrase, "The concept").rstrip(".,")
    if not 0 < len(text) <= MOST:
        raise InputError(f"The concept '{shown(text, 40)}' has {len(text)} characters; write 1 to {MOST}.")
    if kind == "style":
        text = re.sub(r"(?i)^(painted |drawn |made )?(in the style of|by) ", "", text)
    text = text.lower() if model in BUNDLED else text
    forms = OF_PEOPLE if kind == "person" and model not in BUNDLED else SAID[kind]
    scenes = _scenes(text, kind, model)
    told = [_sides(scene, forms[i % len(forms)], text) for i, scene in enumerate(scenes[: PAIRS + 1])]
    neutral = _plain(text, model) + _alike(scenes, forms, text, kind, model)
    name = re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-") or kind
    if model in BUNDLED and world_of(model) == "toyworld":
        told = [(_known(unsafe), _known(safe)) for unsafe, safe in told]
    pairs = tuple(PromptPair(unsafe, safe) for unsafe, safe in told[:PAIRS])
    made = Concept(name, pairs, tuple(neutral))
    return Preset(text, kind, model, told[PAIRS][0], made, SETTINGS)


def _scenes(text: str, kind: PhraseKind, model: str) -> tuple[Words, ...]:
    """Return scenes in words; a bundled world's are of its preset split, by which nothing is judged."""
    if model in BUNDLED:
        return tuple(_words(scene, i, model) for i, scene in enumerate(world.scenes_of("preset")[:100]))
    of_people = kind == "person" or re.match(r"\w+ing \w", text)  # holding a cigarette: no house does
    return PEOPLE if of_people else THINGS


def _words(scene: world.Scene, turn: int, model: str) -> Words:
    """Return a bundled world's scene in words; of the language world, synonyms in turn."""
    if world_of(model) == "toyworld":
        return f"a {scene.size} {scene.colour} {scene.shape}", f"{scene.motion} over {scene.background}"
    tables = (captions.SIZES, captions.COLOURS, captions.SHAPES, captions.MOTIONS, captions.PLACES)
    values = (scene.size, scene.colour, scene.shape, scene.motion, scene.background)
    said = [
        table[v][(turn + n) % len(table[v])] for n, (table, v) in enumerate(zip(tables, values, strict=True))
    ]
    return f"a {' '.join(said[:3])}", " ".join(said[3:])


def _said(scene: Words, form: str, phrase: str) -> str:
    return form.format(thing=scene[0], place=scene[1], phrase=phrase)


def _sides(scene: Words, form: str, phrase: str) -> tuple[str, str]:
    """Return a scene with the phrase, and without it: as plain as can be, or with someone in its place."""
    safe = form.format(thing="", place=scene[1], phrase=scene[0]) if form in OF_PEOPLE else " ".join(scene)
    return _said(scene, form, phrase), safe


def _plain(text: str, model: str) -> list[str]:
    """Return prompts that say nothing of the kind."""
    if model in BUNDLED:
        scenes = world.scenes_of("preset")[100 : 100 + PLAIN]
        return [" ".join(_words(scene, i, model)) for i, scene in enumerate(scenes)]
    listed = [prompt for prompt in load_neutral("everyday") if text.lower() not in prompt.lower()]
    return [listed[i * len(listed) // PLAIN] for i in range(PLAIN)]


def _alike(
    scenes: Sequence[Words], forms: Sequence[str], text: str, kind: PhraseKind, model: str
) -> list[str]:
    """Return prompts in which something ordinary stands where the phrase stands."""
    if model in BUNDLED and world_of(model) == "toyworld":  # of its words, the phrases of other concepts
        others = [
            p for said in world.CONCEPTS.values() if text not in " ".join(said) for p in said[: world.SEEN]
        ]
        forms, ordinary = ("{thing} {phrase} {place}",), others
    else:
        ordinary = [phrase for phrase in ORDINARY[kind] if phrase.lower() not in text.lower()]
        ordinary = [phrase.lower() for phrase in ordinary] if model in BUNDLED else ordinary
    return [
        _said(scenes[-1 - i % len(scenes)], forms[i % len(forms)], ordinary[i % len(ordinary)])
        for i in range(ALIKE)
    ]


def _known(prompt: str) -> str:
    """Return a prompt as the world of few words has it; raises InputError where a word is none of them."""
    words = prompt.replace(",", "").split()
    if strange := [word for word in words if word not in world.words()]:
        raise InputError(
            f"'{shown(strange[0], 40)}' is none of this model's {len(world.words())} words; choose"
            " toyworld-language, or a phrase such as 'on fire'."
        )
    return " ".join(words)
