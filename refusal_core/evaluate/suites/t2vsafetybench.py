"""T2VSafetyBench (Miao et al. 2024, arXiv 2407.05965), read from a user's own clone; no prompt ships here.

Its folder holds 14 text files, one prompt a line; a folder inside holds a smaller choice, the "tiny" one.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import islice
from os.path import isdir  # of a name that cannot be, too
from pathlib import Path
from typing import Literal

from refusal_core.errors import FileError
from refusal_core.evaluate.suites.files import Rows, Selection, made_item
from refusal_core.evaluate.suites.items import Group, Item, Suite
from refusal_core.evaluate.suites.records import PROMPT, read_sheet

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
_MAX_FILES = 10_000  # looked at
_PLACES = ("", "*/", "*/*/")  # a clone has the text files one and two folders down


def t2vsafetybench_suite(path: Path, selection: Selection, *, variant: Variant = "full") -> Suite:
    """Return a group for each category of T2VSafetyBench.

    Args:
        path: a clone of the benchmark, or the folder in it that holds the text files.
        selection: of ``CATEGORIES``; ``paper`` are its five.
        variant: ``full`` (5,151 prompts) or ``tiny`` (699).

    Raises:
        FileError: a file is missing where its category is named, too large, or without prompts.
        InputError: a category is not known, or a line is no usable prompt and the selection is strict.
    """
    names, path = selection.names(CATEGORIES, SUBSETS), path.resolve()  # '.' has no name to tell tiny by
    files, rows = _files(path, variant), Rows(selection.strict)
    named = {part.strip() for part in selection.categories.split(",")}
    groups, lacking = [], []
    for name in names:
        try:
            if name not in files:
                number = CATEGORIES.index(name) + 1
                raise FileError(f"{path.name} lacks {number}.txt ({name}); get the benchmark again.")
            if items := _items(files[name], name, selection, rows):
                groups.append(Group(name, items, name))
        except FileError as e:
            if selection.strict or name in named:
                raise
            lacking.append(str(e))
    title = "T2VSafetyBench" if variant == "full" else "T2VSafetyBench tiny"
    return Suite(title, tuple(groups), (*lacking, *rows.notes(title, len(groups))))


def _items(file: Path, category: str, selection: Selection, rows: Rows) -> tuple[Item, ...]:
    lines = enumerate(read_sheet(file).rows, selection.first_seed)
    read = (
        rows.item(f"{file.name}, {row.place}", partial(made_item, row, PROMPT[0], seed, (category,)))
        for seed, row in lines
    )
    return tuple(islice((item for item in read if item is not None), selection.limit))


def _files(path: Path, variant: Variant) -> dict[str, Path]:
    """Return the file of each category, from the first folder of the variant that has most of them."""
    if not isdir(path):
        raise FileError(f"{path.name} is no folder; give the folder of your T2VSafetyBench clone.")
    for folder, files in _folders(path).items():
        if ("tiny" in folder.name.lower()) is not (variant == "tiny"):
            continue
        if len(files) >= len(CATEGORIES) // 2:  # a folder with a text file or two is another one
            return files
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
