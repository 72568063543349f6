"""T2VSafetyBench (Miao et al. 2024, arXiv 2407.05965), read from a user's own clone; no prompt ships here.

Its folder holds 14 text files, one prompt a line; a folder inside holds a smaller choice, the "tiny" one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.suites.files import MAX_ITEMS, as_text, check_limit, chosen, made_item, read_bytes
from refusal_core.evaluate.suites.items import Group, Item, Suite

Variant = Literal["full", "tiny"]
VARIANTS: tuple[Variant, ...] = ("full", "tiny")
CATEGORIES = (  # in the order of the files, 1.txt to 14.txt
    "pornography",
    "borderline-pornography",
    "violence",
    "gore",
    "disturbing-content",
    "public-figures",
    "discrimination",
    "political-sensitivity",
    "copyright-trademark",
    "illegal-activities",
    "misinformation",
    "sequential-action-risk",
    "dynamic-variation-risk",
    "coherent-contextual-risk",
)
PAPER = ("pornography", "gore", "public-figures", "copyright-trademark", "sequential-action-risk")
SUBSETS = {"paper": PAPER}
MAX_BYTES = 1 << 20  # of a category; those published have under 100 kB
_MAX_ENTRIES = 1000  # of a folder, files and folders
_MAX_FOLDERS, _MAX_DEPTH = 500, 2  # looked into: a clone has the text files one and two folders down


def t2vsafetybench_suite(
    path: Path,
    *,
    variant: Variant = "full",
    categories: str = "all",
    limit: int | None = None,
    first_seed: int = 0,
) -> Suite:
    """Return a group for each category of T2VSafetyBench.

    Args:
        path: a clone of the benchmark, or the folder in it that holds the text files.
        variant: ``full`` (5,151 prompts) or ``tiny`` (699).
        categories: names of ``CATEGORIES`` with commas between, ``paper`` (its five) or ``all``.
        limit: at most so many prompts of each category, the first ones.
        first_seed: a prompt's seed is this plus its place in the file, whatever else is chosen.

    Raises:
        FileError: a file is missing, too large, or not UTF-8.
        InputError: a category is not known, or a line is no usable prompt.
    """
    check_limit(limit)
    if variant not in VARIANTS:
        raise InputError(f"There is no variant '{variant}'; choose full or tiny.")
    names = chosen(categories, CATEGORIES, SUBSETS)
    files = _files(Path(path).resolve(), variant, names)  # '.' has no name to tell tiny by
    groups = [Group(name, _items(file, name, limit, first_seed), name) for name, file in files.items()]
    return Suite("T2VSafetyBench" if variant == "full" else "T2VSafetyBench tiny", tuple(groups))


def _items(file: Path, category: str, limit: int | None, first_seed: int) -> tuple[Item, ...]:
    lines = as_text(read_bytes(file, MAX_BYTES), file.name).split("\n")  # other breaks belong to prompts
    filled = ((number, line) for number, line in enumerate(lines) if line.strip())
    items = tuple(
        made_item(line, first_seed + place, f"{file.name}, line {number + 1}", (category,))
        for place, (number, line) in enumerate(islice(filled, limit or MAX_ITEMS))
    )
    if not items:
        raise FileError(f"{file.name} holds no prompt; get the benchmark again.")
    return items


def _files(path: Path, variant: Variant, names: tuple[str, ...]) -> dict[str, Path]:
    """Return the file of each category, from the first folder of the variant that has any."""
    if not path.is_dir():
        raise FileError(f"{path.name} is no folder; give the folder of your T2VSafetyBench clone.")
    for folder in islice(_folders(path, _MAX_DEPTH), _MAX_FOLDERS):
        if ("tiny" in folder.name.lower()) is not (variant == "tiny"):
            continue
        found = _categories(folder)
        if len(found) < len(CATEGORIES) // 2:  # a folder with a text file or two is another one
            continue
        if missing := [name for name in names if name not in found]:
            number = CATEGORIES.index(missing[0]) + 1
            raise FileError(f"{folder.name} lacks {number}.txt ({missing[0]}); get the benchmark again.")
        return {name: found[name] for name in names}
    raise FileError(f"{path.name} holds no {variant} T2VSafetyBench (1.txt to 14.txt); give a clone of it.")


def _folders(path: Path, depth: int) -> Iterator[Path]:
    yield path
    if depth:
        for folder in sorted(entry for entry in _entries(path) if entry.is_dir()):
            if not folder.name.startswith(".") and not folder.is_symlink():
                yield from _folders(folder, depth - 1)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(islice(folder.iterdir(), _MAX_ENTRIES))
    except OSError as e:
        raise FileError(f"{folder.name} cannot be read ({e.strerror or e}); check the permissions.") from e


def _categories(folder: Path) -> dict[str, Path]:
    """Return the text files of a folder by category: ``4.txt``, ``04.txt``, ``4_gore.txt``, ``Gore.txt``."""
    found: dict[str, Path] = {}
    for file in sorted(entry for entry in _entries(folder) if entry.suffix.lower() == ".txt"):
        name = _category(file.stem)
        if name is not None:
            found.setdefault(name, file)
    return found


def _category(stem: str) -> str | None:
    number = re.match(r"0*([0-9]{1,2})(?![0-9])", stem)
    if number:
        place = int(number[1])
        return CATEGORIES[place - 1] if 1 <= place <= len(CATEGORIES) else None
    plain = re.sub(r"[\W_]+|\band\b", "-", stem.lower()).strip("-")
    plain = re.sub("-+", "-", plain)
    return plain if plain in CATEGORIES else None
