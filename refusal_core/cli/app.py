"""``app`` starts the studio."""

from __future__ import annotations

import os
from dataclasses import dataclass

from refusal_core.cli.options import MODEL
from refusal_core.settings import Knob

ON_SPACE = bool(os.environ.get("SPACE_ID"))


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How the app is served."""

    model: str = MODEL.at("toyworld-language")
    host: str = Knob("Address to listen on.").at("0.0.0.0" if ON_SPACE else "127.0.0.1")
    port: int = Knob("Port to listen on.", 0, 65535).at(7860)
    public: bool = Knob("For strangers: this model only, with limits.").at(ON_SPACE)


def app(options: ServeOptions) -> None:
    """Start the app; then open the address it prints."""
    from refusal_core.studio.serve import serve

    serve(options.model, options.host, options.port, public=options.public)
