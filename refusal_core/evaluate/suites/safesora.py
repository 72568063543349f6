"""SafeSora-Eval (Dai et al. 2024, arXiv 2406.14477), read from a user's own copy; no prompt ships here.

Its file, ``eval-prompt.json.gz``, is a list of 600 prompts, half of them ordinary ones, half with labels.
Others ship parts of it as JSON, as a table or as plain text, with the labels as objects, lists or columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from os.path import isdir  # of a name that cannot be, too
from pathlib import Path

from refusal_core.evaluate.suites.files import Rows, Selection, made_item
from refusal_core.evaluate.suites.items import Group, Item, Suite
from refusal_core.evaluate.suites.records import Row, Sheet, cell, plain_name, read_sheet

NEUTRAL, UNLABELLED = "neutral", "unlabelled"
LABELS: dict[str, str] = {  # what the file calls them, and what they are called here
    "violence": "violence",
    "terrorism": "terrorism",
    "racism": "racism",
    "porn": "sexual",
    "animal_abuse": "animal-abuse",
    "hate": "hate",
    "contraband": "contraband",
    "controversial": "controversial",
    "other_discrimination": "other-discrimination",
    "child_abuse": "child-abuse",
    "crime": "crime",
    "other_harmful": "other-harmful",
}
_CALLED = {plain_name(called): name for pair in LABELS.items() for called in pair for name in pair[1:]}
CATEGORIES = (*LABELS.values(), UNLABELLED, NEUTRAL)
PAPER = ("violence", "terrorism", "racism", "sexual", "animal-abuse")
SUBSETS = {"paper": PAPER}
UNSAFE = "unsafe content"  # what is looked for where no label says it
FILE = "eval-prompt.json.gz"
CRITICAL, ORDINARY = "safety_critical", "safety_neutral"
NAMED = ("prompt_labels", "labels", "label", "categories", "category", "class")  # columns of labels
YES, NO = (True, 1, "1", "1.0", "true", "yes"), (None, False, 0, "", "0", "0.0", "false", "no")


def safesora_suite(path: Path, selection: Selection) -> Suite:
    """Return a group for each label of SafeSora-Eval, and one of its ordinary prompts, ``neutral``.

    A prompt with several labels is in the group of each, with one seed: it is asked after each of them.

    Args:
        path: ``eval-prompt.json.gz``, the folder it lies in, or another file of its prompts.
        selection: of ``CATEGORIES``; ``paper`` are its five.

    Raises:
        FileError: the file is missing, too large, damaged, or something else.
        InputError: a category is not known, or an entry is no usable prompt and the selection is strict.
    """
    names = selection.names(CATEGORIES, SUBSETS)
    sheet = read_sheet(path / FILE if isdir(path) else path, selection.prompts)
    rows = Rows(selection.strict)
    numbered = enumerate(sheet.rows, selection.first_seed)
    read = (rows.item(row.place, partial(_item, sheet, row, selection, seed)) for seed, row in numbered)
    items = [item for item in read if item is not None]
    groups = []
    for name in names:
        labelled = tuple(islice((item for item in items if name in item.labels), selection.limit))
        aspect = UNSAFE if name in (NEUTRAL, UNLABELLED) else name
        if labelled:
            groups.append(Group(name, labelled, aspect, ordinary=name == NEUTRAL))
    return Suite("SafeSora-Eval", tuple(groups), rows.notes(sheet.name, len(items)))


def _item(sheet: Sheet, row: Row, selection: Selection, seed: int) -> Item:
    item = made_item(row, selection.prompt_column(sheet), seed)
    return replace(item, labels=tuple(_labels(sheet, row)))


def _labels(sheet: Sheet, row: Row) -> Iterator[str]:
    """Yield what a prompt is labelled as; raises ValueError where that cannot be told."""
    kind = cell(row, sheet.column(("prompt_type",)))
    if kind == ORDINARY:
        yield NEUTRAL
        return
    if kind not in (CRITICAL, None, ""):
        raise ValueError(f"prompt_type must be {CRITICAL} or {ORDINARY}")
    marks = cell(row, sheet.column(NAMED))
    if marks is None:  # the columns may be labels themselves, among others
        marks = {name: value for name, value in row.cells.items() if plain_name(name) in _CALLED}
    if isinstance(marks, str):
        marks = marks.split(",")
    if isinstance(marks, list):
        marks = {str(name): True for name in marks if str(name).strip()}
    if not isinstance(marks, dict):
        raise ValueError("its labels are neither names nor true and false by name")
    wanted = [plain_name(name) for name, mark in marks.items() if _is_set(mark)]
    if unknown := [name for name in wanted if name not in _CALLED]:
        raise ValueError(f"the label '{unknown[0][:40]}' is not known")
    called = {_CALLED[name] for name in wanted}
    yield from [name for name in LABELS.values() if name in called] or [UNLABELLED]


def _is_set(mark: object) -> bool:
    plain = mark.strip().lower() if isinstance(mark, str) else mark
    if isinstance(plain, (list, dict)) or plain not in (*YES, *NO):
        raise ValueError("its labels must be true or false each")
    return plain in YES
