"""A suite of one's own: a CSV with the columns prompt and, where wanted, seed, group and aspect."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.suites.files import MAX_ITEMS, Selection, clean_name, made_item, read_text
from refusal_core.evaluate.suites.items import Group, Item, Suite

COLUMNS = ("prompt", "seed", "group", "aspect")
GROUP, ASPECT = "prompts", "unsafe content"  # where the file names none
ORDINARY = "neutral"  # the group whose videos should stay as the original's
MAX_BYTES = 16 << 20
MAX_GROUPS = 500
FORMULA = "=+-@"  # what spreadsheets run when they open a table that quotes the prompt


def table_suite(path: Path, selection: Selection) -> Suite:
    """Return the groups of a CSV file (UTF-8, commas between), in the order of their first rows.

    The first row names the columns. Without ``seed`` a prompt's place among the rows counts; without
    ``group`` all are in one; without ``aspect`` the judge looks for what the group is called, or for unsafe
    content where it is not called anything. The group ``neutral`` holds ordinary prompts.

    Raises:
        FileError: missing, too large, not UTF-8, or no table.
        InputError: a row is not usable; the sentence says which.
    """
    if selection.categories != "all":
        raise InputError("A CSV has no categories to choose from; leave out rows instead.")
    rows = _rows(read_text(path, MAX_BYTES), path.name)
    items: dict[str, list[Item]] = {}
    aspects: dict[str, str] = {}
    for place, (where, row) in enumerate(rows):
        group = clean_name(row.get("group") or GROUP, f"{where}: the group")
        aspect = clean_name(row.get("aspect") or _default_aspect(row), f"{where}: the aspect")
        if aspects.setdefault(group, aspect) != aspect:
            other = f"'{aspects[group]}' above and '{aspect}' here"
            raise InputError(f"{where}: group '{group}' is judged for {other}; make it two groups.")
        if len(aspects) > MAX_GROUPS:
            raise InputError(f"{where}: {path.name} has over {MAX_GROUPS} groups; make fewer.")
        items.setdefault(group, []).append(_item(row, where, selection.first_seed + place))
    groups = [
        Group(name, tuple(prompts[: selection.limit]), aspects[name], ordinary=name == ORDINARY)
        for name, prompts in items.items()
    ]
    return Suite(path.name, tuple(groups))


def _default_aspect(row: dict[str, str]) -> str:
    group = row.get("group") or GROUP
    return ASPECT if group in (GROUP, ORDINARY) else group


def _item(row: dict[str, str], where: str, seed: int) -> Item:
    prompt = row["prompt"].strip()
    if prompt[:1] and prompt[0] in FORMULA:
        raise InputError(f"{where}: a prompt must not start with '{prompt[0]}'; spreadsheets run such cells.")
    written = row.get("seed", "").strip()
    if written and not re.fullmatch(r"[0-9]{1,20}", written):
        raise InputError(f"{where}: seed '{written[:40]}' must be a whole number.")
    return made_item(prompt, int(written) if written else seed, where)


def _rows(text: str, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row stands and its cells by column; empty rows are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: list[str] | None = None
    count = 0
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{name}, line {reader.line_num}"
            if head is None:
                head = _head(row, name)
                continue
            if len(row) != len(head):
                raise InputError(f"{where} has {len(row)} cells, not {len(head)}; quote prompts with commas.")
            count += 1
            if count > MAX_ITEMS:
                raise FileError(f"{name} has over {MAX_ITEMS} rows; make it shorter.")
            yield where, dict(zip(head, row, strict=True))
    except csv.Error as e:
        raise FileError(f"{name}, line {reader.line_num} is no row of a CSV ({e}); correct it.") from e
    if not count:
        raise FileError(f"{name} holds no prompt; write the column names first, then a row for each.")


def _head(row: Sequence[str], name: str) -> list[str]:
    head = [cell.strip().lower() for cell in row]
    if "prompt" not in head:
        raise FileError(f"{name} has no column 'prompt'; its first row must name the columns, with commas.")
    if unknown := [column for column in head if column not in COLUMNS]:
        raise FileError(f"{name}: column '{unknown[0][:40]}' is not known; there are {', '.join(COLUMNS)}.")
    if len(set(head)) < len(head):
        raise FileError(f"{name} names a column twice; keep one of them.")
    return head
