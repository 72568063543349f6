"""The judge of the language world: reads which of the looks a clip shows, and its attributes."""

from __future__ import annotations

from refusal_core.models.load import ASSETS
from refusal_core.toyworld.judge import ATTRIBUTES, NO_CONCEPT, ToyJudge, load_judge
from refusal_core.toyworld.language import looks

LOOK_ATTRIBUTES: dict[str, tuple[str, ...]] = ATTRIBUTES | {"concept": (NO_CONCEPT, *looks.LOOKS)}
FILE = ASSETS / "toyworld-judge" / "language.safetensors"


def load_look_judge() -> ToyJudge:
    """Load the shipped judge; what it calls a concept is a concept, a neighbour, or none.

    Raises:
        FileError: the file is missing or is not a judge of these looks.
    """
    return load_judge(FILE, LOOK_ATTRIBUTES)
