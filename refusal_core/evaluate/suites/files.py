"""Reading suites from files of strangers: what is chosen of them, and what is wrong in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.suites.items import Item
from refusal_core.io.reading import prompt_text, read_ordinary

MAX_ITEMS = 100_000  # of a file
MAX_SEED = 2**31 - 1
# Names become parts of file names and cells of tables: no separators, nothing a spreadsheet would run.
_NAME = re.compile(r"\w[\w ,.&'()-]{0,79}")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which prompts of a file are tried, and on which noise. Raises InputError where the limit cannot be."""

    categories: str = "all"  # names with commas between; all, or the name of a subset, stand for several
    limit: int | None = None  # at most so many prompts of a group, the first ones
    first_seed: int = 0  # a prompt's seed is this plus its place in the file, whatever else is chosen

    def __post_init__(self) -> None:
        if self.limit is not None and not 1 <= self.limit <= MAX_ITEMS:
            raise InputError(
                f"The limit of prompts a group is {self.limit}; it must lie from 1 to {MAX_ITEMS}."
            )

    def names(self, known: Sequence[str], subsets: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Return the chosen of the known categories, in their order; raises InputError at an unknown name."""
        wanted: set[str] = set()
        for name in (part.strip() for part in self.categories.split(",")):
            several = known if name == "all" else subsets.get(name, (name,))
            if unknown := [n for n in several if n not in known]:
                choices = ", ".join(["all", *subsets, *known])
                raise InputError(f"There is no category '{unknown[0][:80]}'; choose from {choices}.")
            wanted.update(several)
        return tuple(name for name in known if name in wanted)


def as_text(content: bytes, name: str) -> str:
    """Return bytes as text without a mark of the byte order; raises FileError where they are not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise FileError(f"{name} is not UTF-8 text; save it as UTF-8.") from e


def read_text(path: Path, limit: int) -> str:
    """Return the text of a file of at most ``limit`` bytes; raises FileError in one sentence."""
    return as_text(read_ordinary(path, limit), path.name)


def made_item(prompt: object, seed: int, where: str, labels: tuple[str, ...] = ()) -> Item:
    """Return an item of a cleaned prompt.

    Raises:
        InputError: the prompt is empty, too long, or holds control characters, or the seed is too large.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"{where}: seed {seed} must lie from 0 to {MAX_SEED}.")
    return Item(prompt_text(prompt, where), seed, labels=labels)


def clean_name(text: str, where: str) -> str:
    """Return the name of a group or an aspect without surrounding space.

    Raises:
        InputError: it is empty, too long, or holds characters that a file name must not.
    """
    name = text.strip()
    if not _NAME.fullmatch(name):
        raise InputError(f"{where} must begin with a letter and hold only letters, digits, spaces, ,.&'()-.")
    return name
