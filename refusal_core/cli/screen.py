"""What the commands share on the screen: a progress bar on stderr, and tables that can be files, too."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from refusal_core.progress import Progress

Row = Mapping[str, object]


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a bar with time left on stderr while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda fraction, sentence: bar.update(task, completed=fraction, description=sentence)


def announce(sentence: str) -> None:
    """Say on stderr what is about to be paid; of several processes the first one does."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{sentence}.", file=sys.stderr)


def show_rows(
    rows: Sequence[Row], json: Path | None, name: str, *, hidden: Sequence[str] = (), more: Row | None = None
) -> None:
    """Print rows as a table and, where a file is named, write them as JSON.

    Args:
        rows: of the same keys each. A value that is a mapping gives a column for each of its own keys;
            one of ``ok`` and ``why`` is one cell.
        json: the file, ``{name: rows, **more}``.
        name: of the rows in the file.
        hidden: keys that only the file has.
        more: what only the file says beside the rows.
    """
    from rich.console import Console
    from rich.table import Table

    flat = [_flat({k: v for k, v in row.items() if k not in hidden}) for row in rows]
    table = Table(*dict.fromkeys(key.replace("_", " ") for row in flat for key in row), box=None)
    for row in flat:
        table.add_row(*row.values())
    Console(width=180, highlight=False, markup=False).print(table)
    save_json(json, {name: list(rows), **(more or {})})


def save_json(path: Path | None, content: Row) -> None:
    """Write plain data as JSON where a file is named."""
    if path is not None:
        from refusal_core.io.files import write_json

        write_json(path, dict(content))


def _flat(row: Row) -> dict[str, str]:
    cells: dict[str, str] = {}
    for key, value in row.items():
        inner = value if isinstance(value, Mapping) and not value.keys() >= {"ok", "why"} else {key: value}
        cells |= {name: _cell(one) for name, one in inner.items()}
    return cells


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        mark = "-" if value["ok"] is None else "✓" if value["ok"] else "✗"
        return f"{mark} {value['why']}".strip()
    if isinstance(value, (list, tuple)):
        return "\n".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
