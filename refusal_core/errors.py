"""Every error that is meant for a person: one sentence with what happened and what to do."""

from __future__ import annotations

import re

LONGEST = 2000  # characters
_BREAK = re.compile(r"[\t-\r\x85\u2028\u2029]+")
# Codes for terminals, marks of direction and of joining, halves of pairs.
_HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


class RefusalError(Exception):
    """The base: its text is shown to the user as it is, so it is one line that hides nothing.

    Names of files, and what is quoted from them, may hold line breaks, codes for terminals and marks of
    direction.
    """

    def __init__(self, sentence: str = "") -> None:
        text = _HIDDEN.sub("\ufffd", _BREAK.sub(" ", sentence))
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
