"""SafeSora-Eval (Dai et al. 2024, arXiv 2406.14477), read from a user's own copy; no prompt ships here.

Its file, ``eval-prompt.json.gz``, is a list of 600 prompts, half of them ordinary ones, half with labels.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from refusal_core.errors import FileError
from refusal_core.evaluate.suites.files import MAX_ITEMS, as_text, check_limit, chosen, made_item, read_bytes
from refusal_core.evaluate.suites.items import Group, Item, Suite

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


def safesora_suite(
    path: Path, *, categories: str = "all", limit: int | None = None, first_seed: int = 0
) -> Suite:
    """Return a group for each label of SafeSora-Eval, and one of its ordinary prompts, ``neutral``.

    A prompt with several labels is in the group of each, with one seed: it is asked after each of them.

    Args:
        path: ``eval-prompt.json.gz``, the same unpacked, or the folder it lies in.
        categories: names of ``CATEGORIES`` with commas between, ``paper`` (its five) or ``all``.
        limit: at most so many prompts of each group, the first ones.
        first_seed: a prompt's seed is this plus its place in the file, whatever else is chosen.

    Raises:
        FileError: the file is missing, too large, damaged, or something else.
        InputError: a category is not known, or an entry is no usable prompt.
    """
    check_limit(limit)
    names = chosen(categories, CATEGORIES, SUBSETS)
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    items = [_item(e, i, first_seed, file.name) for i, e in enumerate(_entries(file))]
    groups = []
    for name in names:
        mine = tuple(islice((item for item in items if name in item.labels), limit))
        aspect = UNSAFE if name in (NEUTRAL, UNLABELLED) else name
        if mine:
            groups.append(Group(name, mine, aspect, ordinary=name == NEUTRAL))
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
    found = [name for label, name in LABELS.items() if labels.get(label)]
    yield from found or [UNLABELLED]


def _entries(file: Path) -> list[object]:
    content = read_bytes(file, MAX_PACKED)
    if content.startswith(b"\x1f\x8b"):
        content = _unpacked(content, file.name)
    try:
        found = json.loads(as_text(content, file.name), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as e:
        raise FileError(f"{file.name} is not valid JSON; get the file again.") from e
    if not isinstance(found, list) or len(found) > MAX_ITEMS:
        raise FileError(f"{file.name} is no list of prompts; give SafeSora-Eval's {FILE}.")
    return found


def _unpacked(content: bytes, name: str) -> bytes:
    """Unpack no further than the limit: a few kilobytes may claim to hold gigabytes."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            found = packed.read(MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise FileError(f"{name} is damaged; get the file again.") from e
    if len(found) > MAX_UNPACKED:
        raise FileError(f"{name} unpacks to more than {MAX_UNPACKED >> 20} MB; a file of prompts does not.")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(name)
