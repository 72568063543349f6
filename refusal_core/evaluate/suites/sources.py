"""The suites that are read from a user's own files, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from refusal_core.errors import InputError
from refusal_core.evaluate.suites.files import Selection
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.prompt_file import prompt_file_suite
from refusal_core.evaluate.suites.safesora import safesora_suite
from refusal_core.evaluate.suites.t2vsafetybench import t2vsafetybench_suite

_READERS: dict[str, Callable[[Path, Selection], Suite]] = {
    "t2vsafetybench": t2vsafetybench_suite,
    "t2vsafetybench-tiny": partial(t2vsafetybench_suite, variant="tiny"),
    "safesora": safesora_suite,
    "file": prompt_file_suite,
    "csv": prompt_file_suite,
}
SUITES = tuple(_READERS)


def load_suite(name: str, path: Path, selection: Selection | None = None) -> Suite:
    """Return a suite, one of ``SUITES``, that is read from a user's folder or file; see ``Selection``.

    Raises:
        FileError, InputError: as the readers do.
    """
    if name not in _READERS:
        raise InputError(f"There is no suite '{name}'; choose from {', '.join(SUITES)}.")
    return _READERS[name](Path(path), selection or Selection())
