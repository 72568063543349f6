"""Every error that is meant for a person: one sentence with what happened and what to do."""

from __future__ import annotations

import re

LONGEST = 2000  # characters
_BREAK = re.compile(r"[\t-\r\x85\u2028\u2029]+")


class RefusalError(Exception):
    """The base: its text is shown to the user as it is, so it is one line that hides nothing.

    Names of files, and what is quoted from them, may hold line breaks, codes for terminals, marks of
    direction and of joining, halves of pairs, and what is no character at all.
    """

    def __init__(self, sentence: str = "") -> None:
        flat = _BREAK.sub(" ", sentence)
        text = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in flat)
        super().__init__(text if len(text) <= LONGEST else text[: LONGEST - 3] + "...")


class InputError(RefusalError):
    """A value that a person gave is not usable."""


class ModelError(RefusalError):
    """The model cannot be loaded, or is of a kind that is not supported."""


class SiteError(RefusalError):
    """A site, layer or kind of site does not exist, or cannot be edited."""


class RankError(RefusalError):
    """No direction is left: the samples hold nothing of the concept."""


class FileError(RefusalError):
    """A file is missing, damaged, too large, or not what it should be."""


class MemoryLimitError(RefusalError):
    """The device has too little memory for what was asked."""


class MissingExtraError(RefusalError):
    """An optional package is not installed; the sentence says how to install it."""


class Cancelled(RefusalError):
    """The user stopped the work."""
