"""``python -m refusal_core``."""

from refusal_core.cli import main

if __name__ == "__main__":
    main()
