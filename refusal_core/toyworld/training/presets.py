"""The toy presets, made from the world's preset split, so that they cannot leak into evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refusal_core.io.files import write_text
from refusal_core.toyworld import world
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.language.captions import PHRASES, caption, caption_pair

PAIRS, PLAIN, OTHERS = 5, 60, 15  # OTHERS: neutral prompts of each other concept
LANGUAGE = "toyworld-language"
NEAR = 30  # neutral prompts of the language world that ask for a neighbour
TITLES: dict[str, tuple[str, str]] = {
    "fire": ("On fire", "violence and terrorism"),
    "bleeding": ("Bleeding", "gore"),
    "star-logo": ("Star logo", "trademark"),
    "exploding": ("Exploding", "sequential action"),
    "zorbo": ("Zorbo (a named character)", "public figure"),
    "crash": ("Crashing into the wall", "sequential action"),
    "vexel": ("In the style of Vexel", "style"),
}
_BASE: dict[str, Any] = {"method": "whitened", "sites": ["text"], "layers": "all", "rank": 1}
_BASE |= {"strength": 1.0, "anchor": "zero"}
# One for all its concepts, by `sweep` on the tuning split, 10 videos a cell. Shown on phrases of pairs and on
# others, others and neighbours kept, in percent: rank 1: 1.4, 0, 97, 100; 2: 0, 0, 94, 95; 4: 1.4, 0, 93, 84.
LANGUAGE_RECOMMENDED = _BASE | {"rank": 2}
# Chosen by `sweep` on the tuning split, 100 videos a cell: rank 1 left a fifth of the star logos and a tenth
# of the zorbos; rank 2 none of the zorbos; of the star logos, rank 4 left 2 % at the text sites, and none at
# the one linear through which the text enters.
RECOMMENDED = {"star-logo": _BASE | {"sites": ["text-entry"], "rank": 4}, "zorbo": _BASE | {"rank": 2}}
BY_MODEL = {"star-logo": {"toyworld-unet3d": _BASE | {"rank": 4}}}  # a UNet has no such linear
# A flame on a yellow triangle is no flame to a colour-blind eye: its prompt to try is of another colour.
TRIED = {"fire": "purple"}


def _differing(scenes: Sequence[world.Scene], count: int) -> list[world.Scene]:
    """Return scenes chosen one after another, each as unlike the former ones as possible."""
    chosen = [scenes[0]]
    while len(chosen) < count:
        chosen.append(min(scenes, key=lambda s: (sum(_alike(s, c) for c in chosen), scenes.index(s))))
    return chosen


def _alike(a: world.Scene, b: world.Scene) -> int:
    names = ("colour", "shape", "size", "motion", "background")
    shared = sum(getattr(a, name) == getattr(b, name) for name in names)
    return 100 if a == b else shared * shared


def _captions(scenes: Sequence[world.Scene], concept: str | None) -> list[str]:
    """Return a caption of each scene, phrases and templates in turn."""
    phrases = len(world.CONCEPTS[concept]) if concept else 1
    return [replace(s, concept=concept).caption(i % phrases, i % 3) for i, s in enumerate(scenes)]


def _head(concept: str, model: str, prompt: str) -> dict[str, Any]:
    title, category = TITLES[concept]
    note = "Made by `python -m refusal_core toyworld presets`; a harmless stand-in for its category."
    head = {"format": "refusal-studio preset", "version": 1, "name": concept, "title": title}
    return head | {"category": category, "model": model, "prompt": prompt, "note": note}


def _preset(concept: str) -> dict[str, Any]:
    number, scenes = list(world.CONCEPTS).index(concept), list(world.scenes_of("preset"))
    pool = scenes[20 * number : 20 * number + 20]  # pairs and prompt; no two presets share a scene
    # The prompt to try is one that shows well: large, and moving.
    lively = [s for s in pool if s.size == "large" and s.motion != "staying still"]
    chosen = _differing([s for s in pool if s != lively[0]], PAIRS)
    colour = TRIED.get(concept, lively[0].colour)
    shown = next(s for s in lively if s not in chosen and s.colour == colour)
    pairs = [
        (replace(s, concept=concept).caption(i % world.SEEN, i % 3), s.caption(0, i % 3))
        for i, s in enumerate(chosen)
    ]
    ordinary = scenes[100:]
    neutral = _captions(ordinary[:PLAIN], None)
    for i, other in enumerate(name for name in world.CONCEPTS if name != concept):
        start = (PLAIN + OTHERS * i) % len(ordinary)
        neutral += _captions((ordinary * 2)[start : start + OTHERS], other)
    return _head(concept, "toyworld", replace(shown, concept=concept).caption()) | {
        "pairs": [{"unsafe": unsafe, "safe": safe} for unsafe, safe in pairs],
        "neutral": neutral,
        "recommended": RECOMMENDED.get(concept, _BASE),
        "by_model": BY_MODEL.get(concept, {}),
    }


def _language_preset(concept: str) -> dict[str, Any]:
    """Return a preset of the language world.

    Its neutral prompts know no other concept; they name what is near this one and must stay, in words by
    which no suite asks for it. Without these ``NEAR`` a third of the neighbours goes with the concept.
    """
    number, scenes = list(looks.CONCEPTS).index(concept), list(world.scenes_of("preset"))
    moving = [s for s in scenes[14 * number : 14 * number + 14] if s.motion != "staying still"]
    shown = next(s for s in moving if s.size == "large")
    chosen = _differing([s for s in moving if s != shown], PAIRS)
    phrases, rng = PHRASES[concept]["pairs"], np.random.default_rng(number)
    pairs = [
        caption_pair(scene, phrase, 1000 * number + i)
        for i, (scene, phrase) in enumerate(zip(chosen, phrases, strict=True))
    ]
    return _head(concept, LANGUAGE, caption(shown, phrases[0], rng)) | {
        "pairs": [{"unsafe": unsafe, "safe": safe} for unsafe, safe in pairs],
        "neutral": [caption(s, None, rng) for s in scenes[100 : 100 + PLAIN]] + _near(concept, scenes),
        "recommended": LANGUAGE_RECOMMENDED,
        "by_model": {},
    }


def _near(concept: str, scenes: Sequence[world.Scene]) -> list[str]:
    """Return ordinary prompts that ask for the concept's neighbours in turn."""
    rng, near = np.random.default_rng(500 + list(looks.CONCEPTS).index(concept)), looks.CONCEPTS[concept]
    prompts = []
    for i, scene in enumerate(scenes[100 : 100 + NEAR]):
        look = near[i % len(near)]
        phrases = PHRASES[look]["pairs"]
        prompts.append(caption(looks.show(scene, look, rng), phrases[(i // len(near)) % len(phrases)], rng))
    return prompts


def preset_files() -> dict[str, str]:
    """Return the text of each toy preset file by its path in the folder of presets."""
    made = {f"{name}.json": _preset(name) for name in world.CONCEPTS}
    made |= {f"{LANGUAGE}/{name}.json": _language_preset(name) for name in looks.CONCEPTS}
    return {name: f"{json.dumps(preset, indent=1, ensure_ascii=False)}\n" for name, preset in made.items()}


def write(folder: Path) -> None:
    """Write the toy presets to a folder."""
    (folder / LANGUAGE).mkdir(exist_ok=True)
    for name, text in preset_files().items():
        write_text(folder / name, text)
