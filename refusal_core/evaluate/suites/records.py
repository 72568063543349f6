"""Published prompt files as rows of cells: tables, JSON, JSON lines and plain text, packed or not.

What cannot be read of a file is a row with the reason, so that one bad row never loses the others.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from refusal_core.errors import FileError
from refusal_core.io.reading import parse_json, read_ordinary, shown

MAX_BYTES = 16 << 20  # of a file, and of what it unpacks to
MAX_ROWS = 100_000
SEPARATORS = ",;\t|"
DEEPEST = 5  # objects around the list of a JSON file
PROMPT = (  # what files call their prompts, the first that a file has counts
    "prompt",
    "prompts",
    "adv_prompt",
    "adversarial_prompt",
    "sensitive_prompt",
    "prompt_text",
    "text_prompt",
    "prompt_en",
    "text",
    "caption",
    "captions",
)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file, by the names of its columns, or why there is none."""

    place: str  # in the file: "line 4", "entry 2"
    cells: Mapping[str, object]
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a file holds; empty lines are left out."""

    name: str
    columns: tuple[str, ...]  # as the file writes them
    rows: tuple[Row, ...]

    def column(self, known: Sequence[str]) -> str | None:
        """Return the file's name for a column, the first of the known ones that it has."""
        return picked(self.columns, known)


def cell(row: Row, column: str | None) -> object:
    """Return what a row holds in a column, None where it has none."""
    return None if column is None else row.cells.get(column)


def picked(columns: Iterable[str], known: Sequence[str]) -> str | None:
    """Return the first of the known columns that is there, as it is written there."""
    there: dict[str, str] = {}
    for column in columns:
        there.setdefault(plain_name(column), column)
    return next((there[name] for name in map(plain_name, known) if name in there), None)


def plain_name(column: str) -> str:
    """Return a column's name in small letters, with one sign for spaces, dashes and underscores."""
    return re.sub(r"[\W_]+", "_", column.strip().lower()).strip("_") or column.strip()


def read_sheet(path: Path, prompts: Sequence[str] = PROMPT) -> Sheet:
    """Return the rows of a file, of the kind that its name says (``.gz`` behind it is unpacked).

    A table is ``.csv`` or ``.tsv``: its first row names the columns, between commas, semicolons, tabs or
    bars. ``.json`` holds a list of prompts or of objects, or an object with such a list, or with one for
    each group; ``.jsonl`` one object a line. All others are text: each line that is not empty is a prompt.

    Args:
        path: of the file.
        prompts: what its column of prompts may be called.

    Raises:
        FileError: missing, too large, damaged, or without prompts.
    """
    content = read_ordinary(path, MAX_BYTES)
    if content.startswith(b"\x1f\x8b"):
        content = _unpacked(content, path.name)
    text = as_text(content)
    kind = next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")
    if kind in (".csv", ".tsv"):
        sheet = _table(text, path.name, prompts)
    elif kind in (".json", ".jsonl", ".ndjson"):
        sheet = _objects(text, path.name, prompts)
    else:
        lines = text.split("\n")  # other breaks belong to prompts
        filled = (Row(f"line {n}", {PROMPT[0]: line}) for n, line in enumerate(lines, 1) if line.strip())
        sheet = _sheet(path.name, PROMPT[:1], filled)
    if not sheet.rows:
        raise FileError(f"{path.name} holds no prompt; give a file with prompts.")
    return sheet


def as_text(content: bytes) -> str:
    """Return bytes as text: UTF-8, or what a mark of the byte order says; what is neither spoils its row."""
    if content.startswith(_UTF16):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "surrogateescape")


def _unpacked(content: bytes, name: str) -> bytes:
    """Unpack no further than the limit: a few kilobytes may claim to hold gigabytes."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            whole = packed.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise FileError(f"{name} is damaged; get the file again.") from e
    if len(whole) > MAX_BYTES:
        raise FileError(f"{name} unpacks to more than {MAX_BYTES >> 20} MB; a file of prompts does not.")
    return whole


def _sheet(name: str, columns: Iterable[str], rows: Iterable[Row]) -> Sheet:
    kept = tuple(islice(rows, MAX_ROWS + 1))
    if len(kept) > MAX_ROWS:
        raise FileError(f"{name} has over {MAX_ROWS} rows; make it shorter.")
    return Sheet(name, tuple(columns), kept)


# --- tables --------------------------------------------------------------------------------------------


def _table(text: str, name: str, prompts: Sequence[str]) -> Sheet:
    lines = list(io.StringIO(text, newline=""))
    if not text.strip():
        return Sheet(name, (), ())
    start = next(i for i, line in enumerate(lines) if line.strip())
    if re.fullmatch(r"sep=.\s*", lines[start]):  # of a spreadsheet, not of the table
        start += 1
    lines = ["\n"] * start + lines[start:]
    heads = ((s, _head(lines[start:], s)) for s in SEPARATORS)
    fitting = [(separator, head) for separator, head in heads if picked(head, prompts) is not None]
    if not fitting:
        first = lines[start] if start < len(lines) else ""
        raise FileError(
            f"{name} has no column of prompts: its first row must name the columns, and is"
            f" '{first.strip()[:60]}';"
            " say which with --prompt-column."
        )
    separator, head = max(fitting, key=lambda found: len(found[1]))
    rows = (_row(place, cells, head) for place, cells in islice(_records(lines, separator), 1, None))
    return _sheet(name, head, rows)


def _head(lines: Sequence[str], separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader(lines, delimiter=separator), [])]
    except csv.Error:
        return []


def _row(place: str, cells: list[str] | str, head: Sequence[str]) -> Row:
    if isinstance(cells, str):
        return Row(place, {}, cells)
    while len(cells) > len(head) and not cells[-1].strip():
        cells.pop()
    if len(cells) > len(head):
        return Row(place, {}, f"{len(cells)} cells, not {len(head)}: quote what holds separators")
    named: dict[str, object] = {}
    for column, cell in zip(head, cells, strict=False):  # empty cells at the end may be left out
        named.setdefault(column, cell)
    return Row(place, named)


def _records(lines: Sequence[str], separator: str) -> Iterator[tuple[str, list[str] | str]]:
    """Yield the place and the cells of each row, or why it is none; after a broken one the next line is."""
    start = 0
    while start < len(lines):
        rest = (lines[i] for i in range(start, len(lines)))
        reader, row = csv.reader(rest, delimiter=separator, strict=True), start
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield f"line {row + 1}", cells
                row = start + reader.line_num
            return
        except csv.Error as e:
            yield f"line {row + 1}", f"no row of a table: {e}"
            start = row + 1


# --- JSON ----------------------------------------------------------------------------------------------

Entry = tuple[str, object, str | None]  # place, content, group


def _objects(text: str, name: str, prompts: Sequence[str]) -> Sheet:
    try:
        entries = _listed(parse_json(text), name, prompts)
    except ValueError as e:
        if (lines := _json_lines(text)) is None:
            raise FileError(f"{name} is not valid JSON; get the file again.") from e
        entries = lines
    rows = [_object(*entry) for entry in islice(entries, MAX_ROWS + 1)]
    columns = dict.fromkeys(column for row in rows for column in row.cells)
    if rows and any(row.cells for row in rows) and picked(columns, prompts) is None:
        found = ", ".join(columns)[:200]
        raise FileError(f"{name} has no column of prompts among {found}; say which with --prompt-column.")
    return _sheet(name, columns, rows)


def _object(place: str, content: object, group: str | None) -> Row:
    if isinstance(content, str):
        content = {PROMPT[0]: content}
    if not isinstance(content, dict):
        return Row(place, {}, "neither text nor an object")
    return Row(place, ({"group": group} if group is not None else {}) | content)


def _json_lines(text: str) -> list[Entry] | None:
    """Return the objects of a file with one a line, None where it is no such file."""
    entries: list[Entry] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                entries.append((f"line {number}", parse_json(line), None))
            except ValueError:
                entries.append((f"line {number}", None, None))
    return entries if any(isinstance(content, (str, dict)) for _, content, _ in entries) else None


def _listed(content: object, name: str, prompts: Sequence[str]) -> list[Entry]:
    """Return the entries of a list, wherever it lies in the JSON of a file."""
    for _ in range(DEEPEST):
        if isinstance(content, list):
            return [(f"entry {n}", entry, None) for n, entry in enumerate(content, 1)]
        if not isinstance(content, dict):
            break
        inner = {k: v for k, v in content.items() if isinstance(v, (list, dict)) and v}
        lists = {k: v for k, v in inner.items() if isinstance(v, list)}
        of_objects = {k: v for k, v in lists.items() if any(isinstance(e, dict) for e in v)}
        if (column := picked(content, prompts)) is not None and column not in of_objects:
            return _by_column(content, column)
        if len(only := of_objects if len(of_objects) == 1 else lists) == 1:
            content = next(iter(only.values()))
        elif lists:  # one for each group
            return [(f"'{shown(k, 40)}' {n}", e, k) for k, v in lists.items() for n, e in enumerate(v, 1)]
        elif inner and all(
            isinstance(v, dict) and isinstance(v.get(picked(v, prompts)), str) for v in inner.values()
        ):
            return [(f"entry '{shown(k, 40)}'", entry, None) for k, entry in inner.items()]
        else:
            content = next(iter(inner.values()), None) if len(inner) == 1 else None
    raise FileError(f"{name} holds no list of prompts; give a list of texts or objects.")


def _by_column(content: Mapping[str, object], column: str) -> list[Entry]:
    """Return the rows of JSON that is written column by column; of one prompt, one row."""
    given = content[column]
    if not isinstance(given, (list, dict)):
        return [("entry 1", content, None)]
    keys = given if isinstance(given, dict) else range(len(given))
    alike = {c: v for c, v in content.items() if isinstance(v, type(given)) and len(v) == len(given)}
    rows = ({c: v.get(k) if isinstance(v, dict) else v[k] for c, v in alike.items()} for k in keys)
    return [(f"entry {n}", row, None) for n, row in enumerate(rows, 1)]
