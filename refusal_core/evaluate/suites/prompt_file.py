"""A suite of one's own, or of a published file: prompts, with seeds, groups and aspects where it has them."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from refusal_core.errors import InputError
from refusal_core.evaluate.suites.files import Rows, Selection, made_item, name_of, read_seed
from refusal_core.evaluate.suites.items import Group, Item, Suite
from refusal_core.evaluate.suites.records import Row, Sheet, cell, read_sheet

SEED = ("seed", "evaluation_seed", "sd_seed", "eval_seed", "random_seed")
GROUP = ("group", "category", "categories", "class", "concept")
ASPECT = ("aspect",)
PROMPTS = "prompts"  # the group where the file names none
ORDINARY = "neutral"  # the group whose videos should stay as the original's
MAX_GROUPS = 500


def prompt_file_suite(path: Path, selection: Selection) -> Suite:
    """Return the groups of a file that ``read_sheet`` reads, in the order of their first rows.

    Without a column of seeds a prompt's place among the rows counts; without one of groups all are in one.
    Without an aspect the judge looks for what the group is called, or for the preset's concept where it is
    not called anything. The group ``neutral`` holds ordinary prompts. Columns that are not used are noted.

    Raises:
        FileError: as ``read_sheet``, or no row can be used.
        InputError: a row cannot be used, and the selection is strict.
    """
    if selection.categories != "all":
        raise InputError("A file of prompts has no categories to choose from; leave out rows instead.")
    sheet = read_sheet(path, selection.prompts)
    columns = _Columns(
        selection.prompt_column(sheet), *(sheet.column(known) for known in (SEED, GROUP, ASPECT))
    )
    rows, items = Rows(selection.strict), dict[tuple[str, str], list[Item]]()
    for seed, row in enumerate(sheet.rows, selection.first_seed):
        group = name_of(cell(row, columns.group)) or PROMPTS
        key = group, name_of(cell(row, columns.aspect)) or _meant(group)
        full = key not in items and len(items) == MAX_GROUPS
        item = rows.item(row.place, partial(_item, row, columns, seed, full))
        if item is not None:
            items.setdefault(key, []).append(item)
    notes = rows.notes(sheet.name, len(items))
    groups = [
        Group(_title(key, list(items)), tuple(found[: selection.limit]), key[1], ordinary=key[0] == ORDINARY)
        for key, found in items.items()
    ]
    return Suite(sheet.name, tuple(groups), (*_unused(sheet, columns), *notes))


@dataclass(frozen=True, slots=True)
class _Columns:
    """What a sheet calls the columns that are read, None what it has not."""

    prompt: str
    seed: str | None
    group: str | None
    aspect: str | None


def _unused(sheet: Sheet, columns: _Columns) -> tuple[str, ...]:
    """Say which columns are not read, where there are any."""
    names = [name for name in sheet.columns if name not in astuple(columns)]
    if not names:
        return ()
    listed = ", ".join(name_of(name) or "one without a name" for name in names)
    return (f"{sheet.name}: prompts are column '{name_of(columns.prompt)}'; not used: {listed}",)


def _item(row: Row, columns: _Columns, seed: int, full: bool) -> Item:
    if full:
        raise ValueError(f"over {MAX_GROUPS} groups")
    return made_item(row, columns.prompt, read_seed(cell(row, columns.seed), seed))


def _meant(group: str) -> str:
    """Return what a group's name asks for: nothing where it has no letter, as the number of a class."""
    return group if group not in (PROMPTS, ORDINARY) and any(c.isalpha() for c in group) else ""


def _title(key: tuple[str, str], keys: list[tuple[str, str]]) -> str:
    """Return a name for a group; of one that is judged for several aspects, each is a group."""
    alike = [other for other in keys if other[0] == key[0]]
    return key[0] if len(alike) == 1 else f"{key[0]}: {key[1] or 'no aspect'}"
