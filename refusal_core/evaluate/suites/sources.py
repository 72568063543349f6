"""The suites that are read from a user's own files, by name."""

from __future__ import annotations

from pathlib import Path

from refusal_core.errors import InputError
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.safesora import safesora_suite
from refusal_core.evaluate.suites.t2vsafetybench import t2vsafetybench_suite
from refusal_core.evaluate.suites.table import table_suite

SUITES = ("t2vsafetybench", "t2vsafetybench-tiny", "safesora", "csv")


def load_suite(
    name: str,
    path: Path,
    *,
    categories: str = "all",
    limit: int | None = None,
    first_seed: int = 0,
) -> Suite:
    """Return a suite that is read from a user's files.

    Args:
        name: one of ``SUITES``.
        path: the folder or file.
        categories: names with commas between, ``paper`` or ``all``; a CSV has no categories.
        limit: at most so many prompts of each group.
        first_seed: of the first prompt; the others follow.

    Raises:
        FileError, InputError: as the readers do.
    """
    if name in ("t2vsafetybench", "t2vsafetybench-tiny"):
        return t2vsafetybench_suite(
            path,
            variant="tiny" if name.endswith("-tiny") else "full",
            categories=categories,
            limit=limit,
            first_seed=first_seed,
        )
    if name == "safesora":
        return safesora_suite(path, categories=categories, limit=limit, first_seed=first_seed)
    if name != "csv":
        raise InputError(f"There is no suite '{name}'; choose from {', '.join(SUITES)}.")
    if categories != "all":
        raise InputError("A CSV has no categories to choose from; leave out rows instead.")
    return table_suite(path, limit=limit, first_seed=first_seed)
