"""Where what is kept lies on this machine. Makes no folder."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

SPACES_DISK = Path("/data")  # where a Space has storage that outlives it


def _named() -> Path | None:
    """Return the folder that REFUSAL_STUDIO_DATA names, or that of a Space's disk."""
    if named := os.environ.get("REFUSAL_STUDIO_DATA"):
        return Path(named)
    if os.environ.get("SPACE_ID") and os.access(SPACES_DISK, os.W_OK):
        return SPACES_DISK / "refusal-studio"
    return None


def data_folder() -> Path:
    """Return where runs are kept: REFUSAL_STUDIO_DATA, a Space's disk, or a folder for temporary files."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return _named() or Path(tempfile.gettempdir()) / f"refusal-studio-{user}"


def cache_folder() -> Path:
    """Return where activations are kept: REFUSAL_STUDIO_DATA, a Space's disk, or the user's cache folder."""
    usual = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local")}
    cache = os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, "~/.cache")
    return (_named() or Path(cache).expanduser() / "refusal-studio") / "activations"
