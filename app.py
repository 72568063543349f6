"""Start the studio: ``python app.py [--model NAME] [--host ADDRESS] [--port NUMBER] [--public]``.

Then open the address it prints. The same as ``refusal-studio app``; a Space starts this file.
"""

from __future__ import annotations

import sys

from refusal_core.cli import main as run


def main() -> None:
    """Start the app with this file's options."""
    run(["app", *sys.argv[1:]])


if __name__ == "__main__":
    main()
