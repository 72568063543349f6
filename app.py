"""Start the studio: ``python app.py``, then open the address it prints."""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no telemetry; read when gradio is imported


def main() -> None:
    """Read the options, load the model, serve the page."""
    parser = argparse.ArgumentParser(description="Refusal Studio: see a concept removed from a video model.")
    parser.add_argument("--model", default="toyworld", help="toyworld, a diffusers folder, or a hub id")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860)
    options = parser.parse_args()

    from refusal_core.errors import RefusalError
    from refusal_core.studio.build import build_app, launch_kwargs
    from refusal_core.workbench import Workbench

    try:
        app = build_app(Workbench(options.model))
        app.launch(server_name=options.host, server_port=options.port, **launch_kwargs())
    except (RefusalError, OSError) as e:  # OSError: the port is taken
        sys.exit(f"Error: {e}")


if __name__ == "__main__":
    main()
