"""Running work for a session: one job at a time, stoppable between any two steps, errors in one sentence."""

from __future__ import annotations

import html
import logging
import threading
import uuid
from typing import Any

import gradio as gr

from refusal_core.errors import Cancelled, RefusalError
from refusal_core.progress import Progress
from refusal_core.studio import texts
from refusal_core.studio.limits import PRIVATE, Limits, Rates

logger = logging.getLogger(__name__)
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
GLUE: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
# Without the queue an error would reach no one: what may fail takes it, beside the model's.
QUICK: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 2}


class Stops:
    """One stop flag a session, read between denoising steps, and the rate at which it starts jobs."""

    def __init__(self, limits: Limits = PRIVATE) -> None:
        self._flags: dict[str, threading.Event] = {}
        self._rates = Rates(limits)

    def start(self, session: str) -> threading.Event:
        """Return a fresh flag for a session's new job."""
        self._flags[session] = threading.Event()
        return self._flags[session]

    def stop(self, session: str) -> None:
        """Raise the flag of a session's running job."""
        if session in self._flags:
            self._flags[session].set()

    def forget(self, session: str) -> None:
        """Stop what still runs for a session that has gone."""
        self.stop(session)
        self._flags.pop(session, None)

    def telling(self, request: gr.Request, progress: gr.Progress | None = None) -> Progress:
        """Start a job and return its progress, which raises ``Cancelled`` once the job is stopped.

        Raises:
            InputError: this session has started too many jobs.
        """
        self._rates.take(session_of(request))
        flag = self.start(session_of(request))

        def tell(fraction: float, sentence: str) -> None:
            if flag.is_set():
                raise Cancelled("Stopped.")
            if progress is not None:
                progress(fraction, desc=sentence)

        return tell


def session_of(request: gr.Request) -> str:
    """Return the session of a request; a program without one gets its own each time."""
    return request.session_hash or uuid.uuid4().hex


def shown(error: Exception) -> gr.Error:
    """Turn an error into what the user sees: its sentence, or a number to report."""
    if isinstance(error, RefusalError):
        # Gradio shows it as HTML: a prompt inside could load an image from elsewhere.
        sentence = html.escape(str(error), quote=False)
        return gr.Error(sentence, duration=None, print_exception=False)
    number = uuid.uuid4().hex[:8]
    logger.error("report number %s", number, exc_info=error)
    return gr.Error(texts.UNEXPECTED.format(number=number), duration=None, print_exception=False)


def stop_button(button: gr.Button, stops: Stops, job: Any = None, **more: Any) -> None:
    """Let a button stop this session's job, between two steps; what is done stays."""

    def end(request: gr.Request) -> None:
        stops.stop(session_of(request))

    button.click(end, None, None, cancels=[job] if job is not None else None, **GLUE, **more)
