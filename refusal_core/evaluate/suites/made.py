"""The suites made from the scenes of a bundled model's world, by name."""

from __future__ import annotations

from typing import Protocol

from refusal_core.evaluate.suites.adversarial import adversarial_suite
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.language import language_suite
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.models.load import world_of
from refusal_core.toyworld import world


class MakeSuite(Protocol):
    """Makes a suite of a concept, so many videos a group, from one split of the scenes."""

    def __call__(self, concept: str, videos: int, split: world.Split = "evaluation") -> Suite:
        """Return the suite."""


MADE: dict[str, MakeSuite] = {
    "toyworld": toyworld_suite,
    "language": language_suite,
    "adversarial": adversarial_suite,
}


def made_suite(name: str, model: str) -> MakeSuite:
    """Return what makes a suite; ``toyworld`` is that of the model's own world."""
    return MADE[world_of(model) if name == "toyworld" else name]
