"""What can be said of a pair before anything is run: is it usable, and what differs?"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from refusal_core.concepts import MAX_FILE, PromptPair, load_pairs
from refusal_core.errors import InputError, RefusalError
from refusal_core.evaluate.suites.records import as_text
from refusal_core.io.reading import read_ordinary
from refusal_core.models.calling import check_prompts
from refusal_core.models.model import Model
from refusal_core.recipe import COMPARED
from refusal_core.workbench.values import PairNote

MAX_SHOWN_PAIRS = 20
SEPARATORS = "\t,;|"
MARKS = " ,.;:!?\"'()"
Words = tuple[tuple[str, bool], ...]  # and whether the other side has them not
Row = tuple[str, str] | tuple[str, str, Path | None, Path | None]  # unsafe and safe prompt, and their images


def pairs_of(rows: Sequence[Row]) -> tuple[PromptPair, ...]:
    """Return the rows of a table as pairs; raises InputError with the row that cannot be used."""
    if len(rows) > MAX_SHOWN_PAIRS:
        raise InputError(f"The table has {len(rows)} pairs; {MAX_SHOWN_PAIRS} is its limit.")
    return tuple(_pair(number, *row) for number, row in enumerate(rows, start=1))


def _pair(number: int, unsafe: str, safe: str, *images: Path | None) -> PromptPair:
    try:
        return PromptPair(unsafe, safe, *images)
    except InputError as e:
        raise InputError(f"Row {number}: {e}") from e


def read_pairs(path: Path) -> tuple[PromptPair, ...]:
    """Read pairs from JSON (``load_pairs``), or from a table: ``.csv``, ``.tsv`` or ``.txt``.

    Raises:
        FileError: it cannot be read, or is larger than a file of pairs may be.
        InputError: a row cannot be used; the sentence names file and row.
    """
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return load_pairs(path)
    text = as_text(read_ordinary(path, MAX_FILE))
    pairs = []
    try:
        for number, (unsafe, safe) in enumerate(parse_pasted(text), start=1):
            pairs.append(_pair(number, unsafe, safe))
    except InputError as e:
        raise InputError(f"{path.name}: {e}") from e
    return tuple(pairs)


def note_pair(model: Model, unsafe: str, safe: str) -> PairNote:
    """Return a pair's error or warning, and its words with what the other side has not."""
    left, right, spans = _differences(unsafe, safe)
    try:
        pair = PromptPair(unsafe, safe)
        check_prompts(model, (pair.unsafe, pair.safe))
    except RefusalError as e:
        return PairNote(error=str(e), unsafe=left, safe=right)
    return PairNote(warning=_warning(left, right, spans), unsafe=left, safe=right)


def _differences(unsafe: str, safe: str) -> tuple[Words, Words, int]:
    """Return the first words of both sides, each with whether it differs, and in how many places they do."""
    u, s = (str(text or "").split()[:COMPARED] for text in (unsafe, safe))
    keys = [[word.strip(MARKS).casefold() for word in words] for words in (u, s)]
    left, right, spans = [True] * len(u), [True] * len(s), 0
    for tag, u0, u1, s0, s1 in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        if tag == "equal":
            left[u0:u1], right[s0:s1] = [False] * (u1 - u0), [False] * (s1 - s0)
        else:
            spans += 1
    return tuple(zip(u, left, strict=True)), tuple(zip(s, right, strict=True)), spans


def _warning(unsafe: Words, safe: Words, spans: int) -> str | None:
    shared = sum(not differs for _, differs in unsafe)
    if shared < len(unsafe) / 3:
        return "The two prompts share few words: what differs is more than the concept."
    if spans > 2:
        return f"The prompts differ in {spans} places: only the concept should differ."
    extra = " ".join(word for word, differs in safe if differs)
    added = sum(differs for _, differs in unsafe)
    if extra and len(extra.split()) > added + 2:
        return f"The safe prompt says more ('{extra[:60]}'): that counts as the concept's opposite."
    return None


def parse_pasted(text: str) -> list[list[str]]:
    """Read rows of two prompts, unsafe first, or under a head that names both.

    Between them stands a tab, a comma, a semicolon or a bar: whichever makes two of every row.

    Raises:
        InputError: nothing to read, too much, or a row without two columns.
    """
    if len(text) > MAX_FILE:
        raise InputError("That is too much text for a table of pairs; give fewer rows.")
    usual = "\t" if "\t" in text else ","
    tables = {separator: _rows(text, separator) for separator in (usual, *SEPARATORS)}
    rows = next(
        (rows for rows in tables.values() if rows and all(len(row) == 2 for row in rows)), tables[usual]
    )
    if not rows:
        raise InputError("There is nothing to add; give rows of unsafe and safe prompt.")
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise InputError(
                f"Row {number} has {len(row)} columns; it must have two, separated by a tab or comma."
            )
    return [[unsafe.strip(), safe.strip()] for unsafe, safe in rows]


def _rows(text: str, separator: str) -> list[list[str]]:
    """Return the rows that are not empty; under a head that names both sides, of these two columns."""
    lines = io.StringIO(text.removeprefix("\ufeff"), newline="")
    try:
        read = list(csv.reader(lines, delimiter=separator))
    except csv.Error as e:
        raise InputError("The rows cannot be read; separate the two prompts by a tab.") from e
    rows = [row for row in read if any(cell.strip() for cell in row)]
    head = (
        [cell.strip().lower().replace("_", " ").removesuffix(" prompt") for cell in rows[0]] if rows else []
    )
    if not {"unsafe", "safe"} <= {*head}:
        return rows
    sides = head.index("unsafe"), head.index("safe")
    return [[row[i] if i < len(row) else "" for i in sides] for row in rows[1:]]
