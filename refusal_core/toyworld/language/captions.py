"""Captions of the language world: a grammar with synonyms, word orders, one and two sentences.

Each look has three sets of phrases, kept apart: *pairs* (the only ones that presets may use), *taught* (in
captions, too) and *unheard* (in no caption). A concept has two more, in no caption: *described*, without its
words, and *languages*, in German, French, Spanish. A phrase that ends in a full stop is a sentence of its
own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np

from refusal_core.toyworld import world

PhraseSet = Literal["pairs", "taught", "unheard", "described", "languages"]
HEARD: tuple[PhraseSet, ...] = ("pairs", "taught")  # what captions hold
PHRASES: dict[str, dict[PhraseSet, tuple[str, ...]]] = {
    look: {kind: tuple(phrases) for kind, phrases in sets.items()}
    for look, sets in json.loads(Path(__file__).with_name("phrases.json").read_text("utf-8")).items()
}

SIZES = {"small": ("small", "little", "tiny", "compact"), "large": ("large", "big", "huge", "sizeable")}
COLOURS = {
    "red": ("red", "crimson", "scarlet", "ruby"),
    "green": ("green", "emerald", "grass-green", "leaf-green"),
    "blue": ("blue", "cobalt", "azure", "navy-blue"),
    "yellow": ("yellow", "lemon", "canary-yellow", "golden-yellow"),
    "purple": ("purple", "violet", "lilac", "plum-coloured"),
    "white": ("white", "snow-white", "ivory", "milky-white"),
}
SHAPES = {
    "circle": ("circle", "disc", "ball", "round thing"),
    "square": ("square", "block", "box", "cube"),
    "triangle": ("triangle", "wedge", "pyramid", "three-cornered thing"),
    "cross": ("cross", "plus sign", "plus", "cross-shaped thing"),
}
MOTIONS = {
    "moving left": ("moving left", "drifting to the left", "sliding leftward", "heading left"),
    "moving right": ("moving right", "drifting to the right", "sliding rightward", "heading right"),
    "moving up": ("moving up", "rising", "going upward", "climbing up"),
    "moving down": ("moving down", "sinking", "going downward", "falling down"),
    "staying still": ("staying still", "standing still", "at rest", "motionless"),
}
PLACES = {
    "night": ("over night", "in the darkness after sunset", "at night", "under a dark night sky"),
    "grass": ("over grass", "on a meadow", "in a grassy field", "on the lawn"),
    "sand": ("over sand", "in the desert", "on a sandy beach", "among the dunes"),
    "sky": ("over sky", "high among the clouds", "up in the daylight sky", "against the clear sky"),
}
TEMPLATES = (
    "{thing} {phrase}, {motion} {place}",
    "{thing} {motion} {place}, {phrase}",
    "{place}, {thing} {phrase} is {motion}",
    "{place}, {thing} is {motion}, {phrase}",
    "{thing} is {motion} {place}. it is {phrase}",
    "a video of {thing} {phrase}, {motion} {place}",
    "{thing} {phrase} {place}. it is {motion}",
    "there is {thing} {place}, {motion}, {phrase}",
)
IN_SENTENCES = (
    "{thing} {motion} {place}. {phrase}",
    "{thing} is {motion} {place}. {phrase}",
    "{place}, {thing} is {motion}. {phrase}",
    "there is {thing} {place}, {motion}. {phrase}",
)
PLAIN = (
    "{thing} {motion} {place}",
    "{thing} is {motion} {place}",
    "{place}, {thing} is {motion}",
    "a video of {thing}, {motion} {place}",
    "{thing} {place}. it is {motion}",
    "there is {thing} {place}, {motion}",
)


def caption(scene: world.Scene, phrase: str | None, rng: np.random.Generator, *, said: bool = True) -> str:
    """Return the scene in words with a phrase of its look, word order and synonyms by chance.

    Without ``said`` the phrase alone is left out: equal generators give the two sides of a pair.
    """

    def pick(words: tuple[str, ...]) -> str:
        return words[int(rng.integers(len(words)))]

    templates = PLAIN if phrase is None else IN_SENTENCES if phrase.endswith(".") else TEMPLATES
    thing = [pick(SIZES[scene.size]), pick(COLOURS[scene.colour]), pick(SHAPES[scene.shape])]
    article = "an" if thing[0][0] in "aeiou" else "a"
    template = pick(templates)
    if not said:
        for phrased in (". it is {phrase}", ". {phrase}", ", {phrase}", " {phrase}"):
            template = template.replace(phrased, "")
    return template.format(
        thing=" ".join([article, *thing]),
        motion=pick(MOTIONS[scene.motion]),
        place=pick(PLACES[scene.background]),
        phrase=(phrase or "").rstrip("."),
    )


def caption_pair(scene: world.Scene, phrase: str, seed: int) -> tuple[str, str]:
    """Return the scene in words with a phrase and, in the same words, without it."""
    said, silent = (caption(scene, phrase, np.random.default_rng(seed), said=s) for s in (True, False))
    return said, silent


def training_caption(scene: world.Scene, rng: np.random.Generator) -> str:
    """Return one of a scene's captions; of its look's phrases, pairs and taught alone."""
    if scene.concept is None:
        return caption(scene, None, rng)
    sets = PHRASES[scene.concept]
    phrases = sets["pairs"] + sets["taught"]
    return caption(scene, phrases[int(rng.integers(len(phrases)))], rng)
