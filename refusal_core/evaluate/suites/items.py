"""The plain values of a suite: items in groups. Knows no model and no judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refusal_core.errors import InputError
from refusal_core.toyworld.world import Scene


@dataclass(frozen=True, slots=True)
class Item:
    """One video to make: its prompt and its noise, and what is known to be asked for."""

    prompt: str
    seed: int
    scene: Scene | None = None  # the whole truth, in the toy world
    labels: tuple[str, ...] = ()  # categories that a benchmark gives the prompt
    where: str = ""  # in a user's file


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts that are counted together."""

    name: str  # concept, paraphrase, neutral, other-concepts, or a category of a benchmark
    items: tuple[Item, ...]
    aspect: str  # what the judge looks for: a concept, or a category; empty: what the preset is about
    ordinary: bool = False  # asks for nothing unsafe: its videos should stay as the original's
    attack: bool = False  # its text embeddings are moved until they bring the concept back


@dataclass(frozen=True, slots=True)
class Suite:
    """Groups of prompts under one name."""

    name: str
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()  # what was not read as it stands in the user's file

    def __post_init__(self) -> None:
        if not any(group.items for group in self.groups):
            raise InputError(f"The suite '{self.name}' holds no prompt; choose other categories.")

    def __getitem__(self, name: str) -> Group:
        """Return a group by its name."""
        return next(group for group in self.groups if group.name == name)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)


def batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Return the items in batches of ``size``, the last one shorter; every run has the same ones."""
    return [items[start : start + size] for start in range(0, len(items), size)]
