"""``screenshots`` takes pictures of every page of the app, for those who work on its looks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusal_core.cli.screen import progress_bar


def screenshots(out: Annotated[Path, typer.Option("--out", help="The folder to write to.")]) -> None:
    """Serve the app and take pictures of every page, filled, in both widths and themes (development)."""
    # The only command that needs the app: imported here, so that the others do without it.
    from refusal_core.studio.screenshots import take

    with progress_bar("Starting the app") as progress:
        paths = take(out, progress)
    for path in paths:
        print(path)
