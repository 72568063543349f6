"""Reading suites from files of strangers: size limits, UTF-8, and one sentence where something is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.suites.items import Item
from refusal_core.io.reading import clean_prompt

MAX_ITEMS = 100_000  # of a file
MAX_SEED = 2**31 - 1
# Names become parts of file names and cells of tables: no separators, nothing a spreadsheet would run.
_NAME = re.compile(r"\w[\w ,.&'()-]{0,79}")


def read_bytes(path: Path, limit: int) -> bytes:
    """Return what a file holds.

    Raises:
        FileError: missing, not readable, or larger than ``limit`` bytes.
    """
    try:
        if not path.is_file():
            raise FileError(f"{path.name} does not exist; check the name.")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as e:
        raise FileError(f"{path.name} cannot be read ({e.strerror or e}); check the permissions.") from e
    if len(content) > limit:
        raise FileError(f"{path.name} is larger than {limit >> 20} MB; a file of prompts is not.")
    return content


def as_text(content: bytes, name: str) -> str:
    """Return bytes as text; a mark of the byte order at the start is left out.

    Raises:
        FileError: they are not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise FileError(f"{name} is not UTF-8 text; save it as UTF-8.") from e


def made_item(prompt: object, seed: int, where: str, labels: tuple[str, ...] = ()) -> Item:
    """Return an item of a cleaned prompt.

    Raises:
        InputError: the prompt is empty, too long, or holds control characters, or the seed is too large.
    """
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"{where}: seed {seed} must lie from 0 to {MAX_SEED}.")
    return Item(clean_prompt(prompt, where), seed, labels=labels)


def clean_name(text: str, where: str) -> str:
    """Return the name of a group or an aspect without surrounding space.

    Raises:
        InputError: it is empty, too long, or holds characters that a file name must not.
    """
    name = text.strip()
    if not _NAME.fullmatch(name):
        raise InputError(f"{where} must begin with a letter and hold only letters, digits, spaces, ,.&'()-.")
    return name


def chosen(categories: str, known: Sequence[str], subsets: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the categories that are named, in the order of ``known``.

    Args:
        categories: names with commas between; ``all``, or the name of a subset, stand for several.
        known: every category.
        subsets: names that stand for several.

    Raises:
        InputError: a name is not known.
    """
    wanted: set[str] = set()
    for name in (part.strip() for part in categories.split(",")):
        found = known if name == "all" else subsets.get(name, (name,))
        if unknown := [n for n in found if n not in known]:
            choices = ", ".join(["all", *subsets, *known])
            raise InputError(f"There is no category '{unknown[0][:80]}'; choose from {choices}.")
        wanted.update(found)
    return tuple(name for name in known if name in wanted)


def check_limit(limit: int | None) -> None:
    """Raise InputError where the limit of prompts a group is not positive."""
    if limit is not None and not 1 <= limit <= MAX_ITEMS:
        raise InputError(f"The limit of prompts a group is {limit}; it must lie from 1 to {MAX_ITEMS}.")
