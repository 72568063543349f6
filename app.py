"""Start the studio: ``python app.py``, then open the address it prints."""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no telemetry; read when gradio is imported
if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401 - must come before whatever touches CUDA


def main() -> None:
    """Read the options, load the model, serve the page."""
    on_space = bool(os.environ.get("SPACE_ID"))
    parser = argparse.ArgumentParser(description="Refusal Studio: see a concept removed from a video model.")
    parser.add_argument(
        "--model", default="toyworld", help="a bundled model, a diffusers folder, or a hub id"
    )
    parser.add_argument("--host", default="0.0.0.0" if on_space else "127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument(
        "--public", action="store_true", default=on_space, help="for strangers: this model only, with limits"
    )
    options = parser.parse_args()

    from refusal_core.errors import RefusalError
    from refusal_core.studio.build import build_app, launch_kwargs
    from refusal_core.studio.files import served_folder
    from refusal_core.studio.limits import PRIVATE, PUBLIC
    from refusal_core.workbench import Workbench

    limits = PUBLIC if options.public else PRIVATE
    login = os.environ.get("REFUSAL_STUDIO_AUTH", "")
    user, _, password = login.partition(":")
    if login and not (user and password):  # whoever set it meant to shut the app
        sys.exit("Error: REFUSAL_STUDIO_AUTH must be name:password.")
    try:
        workbench = Workbench(options.model, only_bundled=options.public, folder=served_folder())
        app = build_app(workbench, limits=limits)
        app.launch(
            server_name=options.host,
            server_port=options.port,
            auth=(user, password) if login else None,
            **launch_kwargs(limits),
        )
    except (RefusalError, OSError) as e:  # OSError: the port is taken
        sys.exit(f"Error: {e}")


if __name__ == "__main__":
    main()
