"""Reading suites from files of strangers: what is chosen of them, and which of their rows can be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.suites.items import Item, Suite
from refusal_core.evaluate.suites.records import MAX_ROWS, PROMPT, Row, Sheet, cell
from refusal_core.io.reading import prompt_text, shown

Long = Literal["cut", "skip", "refuse"]  # what becomes of prompts that are longer than the model reads
MAX_SEED = 2**63 - 1
MAX_NAME = 80  # characters of a group or an aspect
MAX_LISTED = 1000  # rows that one note names


@dataclass(frozen=True, slots=True)
class Selection:
    """Which prompts of a file are tried, and on which noise. Raises InputError where the limit cannot be."""

    categories: str = "all"  # names with commas between; all, or the name of a subset, stand for several
    limit: int | None = None  # at most so many prompts of a group, the first ones
    first_seed: int = 0  # a prompt's seed is this plus its place in the file, whatever else is chosen
    column: str | None = None  # what holds the prompts; None: what files usually call it
    strict: bool = False  # refuse a file with a row that cannot be used, in place of leaving the row out

    def __post_init__(self) -> None:
        if self.limit is not None and not 1 <= self.limit <= MAX_ROWS:
            raise InputError(
                f"The limit of prompts a group is {self.limit}; it must lie from 1 to {MAX_ROWS}."
            )

    @property
    def prompts(self) -> tuple[str, ...]:
        """What the column of prompts may be called."""
        return PROMPT if self.column is None else (self.column,)

    def prompt_column(self, sheet: Sheet) -> str:
        """Return what a sheet calls its column of prompts; raises FileError where it has none."""
        column = sheet.column(self.prompts)
        if column is None and any(row.cells for row in sheet.rows):
            raise FileError(f"{sheet.name} has no column '{self.prompts[0][:40]}'; name another, or none.")
        return column or self.prompts[0]

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


@dataclass(slots=True)
class Rows:
    """The rows of a suite's files as they are read: how many, and which cannot be used."""

    strict: bool
    count: int = 0
    left_out: list[str] = field(default_factory=list)  # place and reason

    def item(self, where: str, make: Callable[[], Item]) -> Item | None:
        """Count a row and return its item, None where making it raises InputError or ValueError."""
        self.count += 1
        try:
            return replace(make(), where=where)
        except (InputError, ValueError) as e:
            self.left_out.append(f"{where} ({str(e).split(';')[0].rstrip('.')})")
            return None

    def notes(self, name: str, used: int) -> tuple[str, ...]:
        """Return what a report says of the rows that were left out.

        Raises:
            FileError: none can be used.
            InputError: one cannot, and the reading is strict.
        """
        if not self.left_out:
            return ()
        rows = listed(self.left_out)
        counted = f"{len(self.left_out)} of {self.count} rows"
        if not used:
            raise FileError(f"{name}: {counted} cannot be used, and nothing else was chosen: {rows}.")
        if self.strict:
            raise InputError(
                f"{name}: {counted} cannot be used; correct them, or leave out --strict: {rows}."
            )
        return (f"{name}: {counted} were left out: {rows}",)


def listed(parts: Sequence[str]) -> str:
    """Return what a note names, one after the other."""
    more = [f"and {len(parts) - MAX_LISTED} more"] if len(parts) > MAX_LISTED else []
    return "; ".join([*(shown(part) for part in parts[:MAX_LISTED]), *more])


def without(suite: Suite, unfit: Collection[Item], why: str) -> Suite:
    """Return a suite without some of its prompts, and with a note that counts and names them.

    Raises:
        InputError: no prompt is left.
    """
    if not unfit:
        return suite
    note = counted(unfit, why)
    groups = [replace(g, items=tuple(item for item in g.items if item not in unfit)) for g in suite]
    if not any(group.items for group in groups):
        raise InputError(f"No prompt of {suite.name} is left to try: {note}.")
    return replace(suite, groups=tuple(g for g in groups if g.items), notes=(*suite.notes, note))


def counted(items: Collection[Item], what: str) -> str:
    """Return a note on some prompts: how many, what is with them, and where they stand."""
    return f"{len(items)} prompts {what}: {listed([i.where or shown(i.prompt, 40) for i in items])}"


def made_item(row: Row, column: str, seed: int, labels: tuple[str, ...] = ()) -> Item:
    """Return the item of a row; raises InputError or ValueError where it holds no prompt."""
    if row.trouble:
        raise ValueError(row.trouble)
    prompt = cell(row, column)
    return Item(prompt_text("" if prompt is None else prompt, "the prompt"), seed, labels=labels)


def read_seed(written: object, usual: int) -> int:
    """Return a seed from a number or its text, ``42.0`` as well; the usual one where there is none.

    Raises:
        ValueError: it is no whole number from 0 to ``MAX_SEED``.
    """
    text = "" if written is None else str(written).strip()
    if not text:
        return usual
    if not re.fullmatch(r"[0-9]{1,19}(\.0*)?", text, re.ASCII) or int(text.split(".")[0]) > MAX_SEED:
        raise ValueError(f"seed '{shown(text, 40)}' is no whole number from 0 to {MAX_SEED}")
    return int(text.split(".")[0])


def name_of(text: object) -> str:
    """Return the name of a group or an aspect as it is shown, empty where there is none."""
    if isinstance(text, (list, tuple)):
        text = ", ".join(str(part) for part in text)
    return shown("" if text is None else str(text).strip(), MAX_NAME)
