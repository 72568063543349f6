"""Running work for a session: one job at a time, stoppable between any two steps, errors in one sentence."""

from __future__ import annotations

import html
import logging
import os
import threading
import uuid
from collections import OrderedDict
from typing import Any

import gradio as gr

from refusal_core.errors import Cancelled, RefusalError
from refusal_core.progress import Progress
from refusal_core.studio import texts
from refusal_core.studio.limits import MAX_SESSIONS, PRIVATE, Limits, Rates

logger = logging.getLogger(__name__)
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
GLUE: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
# Without the queue an error would reach no one: what may fail takes it, beside the model's.
QUICK: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 2}
MAX_NAME = 200  # characters of a session's name, which the client chooses


class Stops:
    """One stop flag a session, read between denoising steps, and the rate at which it starts jobs."""

    def __init__(self, limits: Limits = PRIVATE) -> None:
        self._flags: OrderedDict[str, threading.Event] = OrderedDict()
        self._guard = threading.Lock()
        self._rates = Rates(limits)

    def start(self, session: str) -> threading.Event:
        """Return a fresh flag for a session's new job."""
        flag = threading.Event()
        with self._guard:
            self._flags[session] = flag
            self._flags.move_to_end(session)
            while len(self._flags) > MAX_SESSIONS:
                self._flags.popitem(last=False)
        return flag

    def stop(self, session: str) -> None:
        """Raise the flag of a session's running job."""
        if flag := self._flags.get(session):
            flag.set()

    def forget(self, session: str) -> None:
        """Stop what still runs for a session that has gone."""
        self.stop(session)
        with self._guard:
            self._flags.pop(session, None)

    def telling(self, request: gr.Request, progress: gr.Progress | None = None) -> Progress:
        """Start a job and return its progress, which raises ``Cancelled`` once the job is stopped.

        Raises:
            InputError: this session has started too many jobs.
        """
        session = session_of(request)
        self._rates.take(session, address_of(request))
        flag = self.start(session)

        def tell(fraction: float, sentence: str) -> None:
            if flag.is_set():
                raise Cancelled("Stopped.")
            if progress is not None:
                progress(fraction, desc=sentence)

        return tell


def session_of(request: gr.Request) -> str:
    """Return the session of a request; a program without one gets its own each time."""
    return (request.session_hash or uuid.uuid4().hex)[:MAX_NAME]


def address_of(request: gr.Request) -> str:
    """Return where a request comes from; on a Space its proxy says so, last in the list."""
    if os.environ.get("SPACE_ID") and (told := request.headers.get("x-forwarded-for")):
        return told.rpartition(",")[2].strip()
    return request.client.host if request.client else ""


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
