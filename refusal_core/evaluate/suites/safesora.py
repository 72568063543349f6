"""SafeSora-Eval (Dai et al. 2024, arXiv 2406.14477), read from a user's own copy; no prompt ships here.

Its file, ``eval-prompt.json.gz``, is a list of 600 prompts, half of them ordinary ones, half with labels.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from refusal_core.errors import FileError
from refusal_core.evaluate.suites.files import MAX_ITEMS, Selection, as_text, made_item
from refusal_core.evaluate.suites.items import Group, Item, Suite
from refusal_core.io.reading import parse_json, read_ordinary

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
CATEGORIES = (*LABELS.values(), UNLABELLED, NEUTRAL)
PAPER = ("violence", "terrorism", "racism", "sexual", "animal-abuse")
SUBSETS = {"paper": PAPER}
UNSAFE = "unsafe content"  # what is looked for where no label says it
FILE = "eval-prompt.json.gz"
MAX_PACKED, MAX_UNPACKED = 4 << 20, 8 << 20  # bytes; the file has well under 1 MB
CRITICAL, ORDINARY = "safety_critical", "safety_neutral"


def safesora_suite(path: Path, selection: Selection) -> Suite:
    """Return a group for each label of SafeSora-Eval, and one of its ordinary prompts, ``neutral``.

    A prompt with several labels is in the group of each, with one seed: it is asked after each of them.

    Args:
        path: ``eval-prompt.json.gz``, the same unpacked, or the folder it lies in.
        selection: of ``CATEGORIES``; ``paper`` are its five.

    Raises:
        FileError: the file is missing, too large, damaged, or something else.
        InputError: a category is not known, or an entry is no usable prompt.
    """
    names = selection.names(CATEGORIES, SUBSETS)
    file = path / FILE if path.is_dir() else path
    items = [_item(e, i, selection.first_seed, file.name) for i, e in enumerate(_entries(file))]
    groups = []
    for name in names:
        labelled = tuple(islice((item for item in items if name in item.labels), selection.limit))
        aspect = UNSAFE if name in (NEUTRAL, UNLABELLED) else name
        if labelled:
            groups.append(Group(name, labelled, aspect, ordinary=name == NEUTRAL))
    return Suite("SafeSora-Eval", tuple(groups))


def _item(entry: object, place: int, first_seed: int, name: str) -> Item:
    where = f"{name}, entry {place + 1}"
    if not isinstance(entry, dict):
        raise FileError(f"{where} is no object; get the file again.")
    return made_item(entry.get("prompt_text"), first_seed + place, where, tuple(_labels(entry, where)))


def _labels(entry: Mapping[str, Any], where: str) -> Iterator[str]:
    kind = entry.get("prompt_type")
    if kind == ORDINARY:
        yield NEUTRAL
        return
    if kind != CRITICAL:
        raise FileError(f"{where}: prompt_type must be {CRITICAL} or {ORDINARY}; get the file again.")
    labels = entry.get("prompt_labels") or {}
    if not isinstance(labels, dict) or not all(v is None or isinstance(v, bool) for v in labels.values()):
        raise FileError(f"{where}: prompt_labels must name each label true or false; get the file again.")
    if unknown := [label for label, is_set in labels.items() if is_set and label not in LABELS]:
        raise FileError(f"{where}: the label '{unknown[0][:40]}' is not known; get SafeSora-Eval's own file.")
    yield from [name for label, name in LABELS.items() if labels.get(label)] or [UNLABELLED]


def _entries(file: Path) -> list[object]:
    content = read_ordinary(file, MAX_PACKED)
    if content.startswith(b"\x1f\x8b"):
        content = _unpacked(content, file.name)
    text = as_text(content, file.name)
    try:
        entries = parse_json(text)
    except ValueError as e:
        raise FileError(f"{file.name} is not valid JSON; get the file again.") from e
    if not isinstance(entries, list) or len(entries) > MAX_ITEMS:
        raise FileError(f"{file.name} is no list of prompts; give SafeSora-Eval's {FILE}.")
    return entries


def _unpacked(content: bytes, name: str) -> bytes:
    """Unpack no further than the limit: a few kilobytes may claim to hold gigabytes."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            whole = packed.read(MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise FileError(f"{name} is damaged; get the file again.") from e
    if len(whole) > MAX_UNPACKED:
        raise FileError(f"{name} unpacks to more than {MAX_UNPACKED >> 20} MB; a file of prompts does not.")
    return whole
