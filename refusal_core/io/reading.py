"""Opening files of strangers: ordinary ones, no larger than they may be. Knows no tensors."""

from __future__ import annotations

import json
import math
import os
import stat
import unicodedata
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import AfterValidator, Field

from refusal_core.errors import FileError, InputError

MEGABYTE = 1 << 20
METADATA = "__metadata__"  # what a safetensors header calls its own texts, beside its tensors
MAX_TEXT = 500  # characters
INVISIBLE = ("Cc", "Cf", "Cs")  # control characters, marks of direction, halves of pairs


def bundled(folder: str) -> Path:
    """Return a folder that comes with the program: in the package where it is installed, else beside it."""
    package = Path(__file__).resolve().parents[1]
    return package / folder if (package / folder).is_dir() else package.parent / folder


def open_ordinary(path: Path, limit: int) -> BinaryIO:
    """Open a file to read, following links that lead to an ordinary one.

    A pipe would be waited on for ever, a device read for ever.

    Args:
        path: of a file.
        limit: largest size in bytes.

    Raises:
        FileError: missing, no ordinary file, larger than ``limit``, or not readable.
    """
    path = Path(path)
    try:
        _expect_ordinary(os.stat(path), path)
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError) as e:
        raise FileError(f"{path.name} does not exist; check the name.") from e
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or e
        raise FileError(f"{path.name} cannot be read ({why}); check the name and the permissions.") from e
    file = os.fdopen(handle, "rb")
    try:
        found = os.fstat(handle)  # what was opened, not what lay there a moment before
        _expect_ordinary(found, path)
        if found.st_size > limit:
            size = f"{found.st_size / MEGABYTE:.1f} MB, larger than the {limit / MEGABYTE:g} MB"
            raise FileError(f"{path.name} has {size} that are read; give a smaller file.")
    except BaseException:
        file.close()
        raise
    return file


def _expect_ordinary(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no ordinary file"
        raise FileError(f"{path.name} is {kind}; give a file.")


def read_ordinary(path: Path, limit: int) -> bytes:
    """Return what an ordinary file holds; raises FileError as ``open_ordinary`` does."""
    try:
        with open_ordinary(path, limit) as file:
            content = file.read(limit + 1)
    except OSError as e:
        raise FileError(f"{Path(path).name} cannot be read ({e.strerror or e}); check the disk.") from e
    if len(content) > limit:
        raise FileError(f"{Path(path).name} grows while it is read; give a file that is done.")
    return content


def read_text(path: Path, limit: int) -> str:
    """Return the UTF-8 text of a file of at most ``limit`` bytes; raises FileError in one sentence."""
    try:
        return read_ordinary(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise FileError(f"{path.name} is not UTF-8 text; save it as UTF-8.") from e


def parse_json(content: str | bytes) -> object:
    """Return JSON without NaN and infinity.

    Raises:
        ValueError: it is no such JSON, or nested too deeply.
    """
    text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e


def tensor_header(file: BinaryIO, limit: int) -> tuple[dict[str, Any], int, int]:
    """Return the header of an open safetensors file, where its tensors start, and the file's size.

    Nothing in it is checked but that it is JSON with names, no longer than ``limit`` bytes and the file.

    Raises:
        ValueError: there is no such header.
        OSError: the file cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(limit, size - 8):
        raise ValueError("length")
    header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("no names")
    return header, 8 + length, size


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def plain(text: str) -> str:
    """Return a text that shows what it says; raises ValueError where it holds invisible characters."""
    if any(unicodedata.category(c) in INVISIBLE for c in text):
        raise ValueError("holds invisible control characters")
    return text


def prompt_text(text: object, where: str) -> str:
    """Return a prompt as it is, without surrounding space: joiners, line breaks and any direction are text.

    Raises:
        InputError: no text, empty, or with half of a character, which no text encoder takes.
    """
    if not isinstance(text, str):
        raise InputError(f"{where} must be text, not {type(text).__name__}.")
    stripped = text.strip()
    if not stripped:
        raise InputError(f"{where} is empty; write a prompt.")
    if any("\ud800" <= c <= "\udfff" for c in stripped):  # bytes that are no UTF-8 are read as such, too
        raise InputError(f"{where} is not sound Unicode text; save it as UTF-8.")
    return stripped


def shown(text: str, most: int = MAX_TEXT) -> str:
    """Return the beginning of a text for a sentence: what would be invisible is escaped."""
    start = text[:most] + ("..." if len(text) > most else "")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in start)


def clean_line(text: object, where: str) -> str:
    """Return a name or a question without surrounding space, or raise InputError with one sentence.

    Control characters and invisible direction marks are refused: they show one thing and say another.
    """
    line = prompt_text(text, where)
    if len(line) > MAX_TEXT:
        raise InputError(f"{where} has {len(line)} characters; shorten it to {MAX_TEXT}.")
    if any(unicodedata.category(c) in INVISIBLE for c in line):
        raise InputError(f"{where} holds invisible control characters; type it again by hand.")
    return line


def expect_plain(content: object) -> None:
    """Raise ValueError where a text or a name anywhere in plain data holds invisible characters."""
    left = [content]
    while left:
        part = left.pop()
        if isinstance(part, str):
            plain(part)
        elif isinstance(part, dict):
            left.extend(part)
            left.extend(part.values())
        elif isinstance(part, (list, tuple)):
            left.extend(part)


def _prompt(text: str) -> str:
    try:
        return prompt_text(text, "The prompt")
    except InputError as e:
        raise ValueError(str(e)) from e


Plain = Annotated[str, Field(max_length=2000), AfterValidator(plain)]
Prompt = Annotated[str, AfterValidator(_prompt)]
