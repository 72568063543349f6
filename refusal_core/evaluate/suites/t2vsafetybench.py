"""T2VSafetyBench (Miao et al. 2024, arXiv 2407.05965), read from a user's own clone; no prompt ships here.

Its folder holds 14 text files, one prompt a line; a folder inside holds a smaller choice, the "tiny" one.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import Literal

from refusal_core.errors import FileError
from refusal_core.evaluate.suites.files import MAX_ITEMS, Selection, made_item, read_text
from refusal_core.evaluate.suites.items import Group, Item, Suite

Variant = Literal["full", "tiny"]
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
_MAX_FILES = 10_000  # looked at
_PLACES = ("", "*/", "*/*/")  # a clone has the text files one and two folders down


def t2vsafetybench_suite(path: Path, selection: Selection, *, variant: Variant = "full") -> Suite:
    """Return a group for each category of T2VSafetyBench.

    Args:
        path: a clone of the benchmark, or the folder in it that holds the text files.
        selection: of ``CATEGORIES``; ``paper`` are its five.
        variant: ``full`` (5,151 prompts) or ``tiny`` (699).

    Raises:
        FileError: a file is missing, too large, or not UTF-8.
        InputError: a category is not known, or a line is no usable prompt.
    """
    names = selection.names(CATEGORIES, SUBSETS)
    files = _files(path.resolve(), variant, names)  # '.' has no name to tell tiny by
    groups = [Group(name, _items(file, name, selection), name) for name, file in files.items()]
    return Suite("T2VSafetyBench" if variant == "full" else "T2VSafetyBench tiny", tuple(groups))


def _items(file: Path, category: str, selection: Selection) -> tuple[Item, ...]:
    lines = read_text(file, MAX_BYTES).split("\n")  # other breaks belong to prompts
    filled = ((number, line) for number, line in enumerate(lines) if line.strip())
    items = tuple(
        made_item(line, selection.first_seed + place, f"{file.name}, line {number + 1}", (category,))
        for place, (number, line) in enumerate(islice(filled, selection.limit or MAX_ITEMS))
    )
    if not items:
        raise FileError(f"{file.name} holds no prompt; get the benchmark again.")
    return items


def _files(path: Path, variant: Variant, names: tuple[str, ...]) -> dict[str, Path]:
    """Return the file of each category, from the first folder of the variant that has any."""
    if not path.is_dir():
        raise FileError(f"{path.name} is no folder; give the folder of your T2VSafetyBench clone.")
    for folder, files in _folders(path).items():
        if ("tiny" in folder.name.lower()) is not (variant == "tiny"):
            continue
        if len(files) < len(CATEGORIES) // 2:  # a folder with a text file or two is another one
            continue
        if missing := [name for name in names if name not in files]:
            number = CATEGORIES.index(missing[0]) + 1
            raise FileError(f"{folder.name} lacks {number}.txt ({missing[0]}); get the benchmark again.")
        return {name: files[name] for name in names}
    raise FileError(f"{path.name} holds no {variant} T2VSafetyBench (1.txt to 14.txt); give a clone of it.")


def _folders(path: Path) -> dict[Path, dict[str, Path]]:
    """Return the text files by folder and category, the outermost folders first."""
    folders: dict[Path, dict[str, Path]] = {}
    for place in _PLACES:
        for file in sorted(islice(path.glob(f"{place}*.[tT][xX][tT]"), _MAX_FILES)):
            if (name := _category(file.stem)) is not None:
                folders.setdefault(file.parent, {}).setdefault(name, file)
    return folders


def _category(stem: str) -> str | None:
    """Return the category that a file's name says: ``4``, ``04``, ``4_gore``, ``Gore``."""
    number = re.match(r"0*([0-9]{1,2})(?![0-9])", stem)
    if number:
        place = int(number[1])
        return CATEGORIES[place - 1] if 1 <= place <= len(CATEGORIES) else None
    plain = re.sub(r"[\W_]+|\band\b", "-", stem.lower()).strip("-")
    plain = re.sub("-+", "-", plain)
    return plain if plain in CATEGORIES else None
