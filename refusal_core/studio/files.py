"""Where the served files lie: a folder of this run, so that none is copied and all of them go."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "refusal-studio-files-"
ABANDONED = 24 * 3600.0  # seconds: a run that was killed could not clear up after itself


def served_folder() -> Path:
    """Make a folder for this run's files and name it to Gradio; delete those of runs that were killed."""
    _clear_abandoned(Path(tempfile.gettempdir()))
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.mkdtemp(prefix=PREFIX))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def _clear_abandoned(place: Path) -> None:
    user = os.getuid() if hasattr(os, "getuid") else None
    for folder in place.glob(f"{PREFIX}*"):
        try:
            facts = folder.lstat()
        except OSError:
            continue
        if (user is None or facts.st_uid == user) and time.time() - facts.st_mtime > ABANDONED:
            shutil.rmtree(folder, ignore_errors=True)
