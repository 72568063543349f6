"""Serving the app: the one way in, whoever starts it."""

from __future__ import annotations

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no telemetry; read when gradio is imported
if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401 - must come before whatever touches CUDA

from refusal_core.errors import InputError
from refusal_core.studio.build import build_app, launch_kwargs
from refusal_core.studio.files import served_folder
from refusal_core.studio.limits import PRIVATE, PUBLIC
from refusal_core.workbench.workbench import Workbench


def serve(model: str, host: str, port: int, *, public: bool) -> None:
    """Load a model and serve the app until it is stopped.

    Args:
        model: as ``load_model`` takes it, shown first.
        host: address to listen on.
        port: to listen on.
        public: for strangers: this model only, with limits.

    Raises:
        InputError: REFUSAL_STUDIO_AUTH is half a login, or the port is taken.
        RefusalError: whatever ``load_model`` raises.
    """
    limits = PUBLIC if public else PRIVATE
    login = os.environ.get("REFUSAL_STUDIO_AUTH", "")
    user, _, password = login.partition(":")
    if login and not (user and password):  # whoever set it meant to shut the app
        raise InputError("REFUSAL_STUDIO_AUTH must be name:password.")
    built = build_app(Workbench(model, only_bundled=public, folder=served_folder()), limits=limits)
    auth = (user, password) if login else None
    try:
        built.launch(server_name=host, server_port=port, auth=auth, **launch_kwargs(limits))
    except OSError as e:
        raise InputError(f"The app cannot listen at {host}:{port}: {e}") from e
