"""Running work for a session: one job at a time, stoppable between any two steps, errors in one sentence."""

from __future__ import annotations

import functools
import html
import logging
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import gradio as gr

from refusal_core.errors import Cancelled, RefusalError
from refusal_core.progress import Progress
from refusal_core.studio import gpu, texts
from refusal_core.studio.layout import State, status
from refusal_core.studio.limits import MAX_SESSIONS, PRIVATE, Limits, Rates
from refusal_core.workbench.workbench import Workbench

T = TypeVar("T")
Values = dict[Any, Any]  # of components, as Gradio hands them over

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
    if os.environ.get("SPACE_ID") and (chain := request.headers.get("x-forwarded-for")):
        return chain.rpartition(",")[2].strip()
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


def guarded(work: Callable[..., T]) -> Callable[..., T]:
    """Return a handler whose errors are shown as ``shown`` has them."""

    @functools.wraps(work)
    def run(*arguments: Any, **named: Any) -> T:
        try:
            return work(*arguments, **named)
        except Exception as e:
            raise shown(e) from e

    return run


@dataclass(frozen=True, slots=True)
class SessionJob:
    """A started job: work on the workbench for one session, which can be stopped."""

    workbench: Workbench
    session: str
    progress: Progress

    def call(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Return what a function of the workbench returns."""
        return gpu.call(work, self.workbench, *arguments, progress=self.progress, **named)

    def stream(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Iterator[Any]:
        """Yield what a function of the workbench yields for this session's files."""
        named["session"] = self.session
        return gpu.stream(work, self.workbench, *arguments, progress=self.progress, **named)


Show = Callable[[State, str], Values]  # from how a job goes, and its text, to what the page shows of it


def in_line(line: gr.HTML) -> Show:
    """Return what shows in a status line how a job goes."""
    return lambda state, key: {line: status(state, key)}


@dataclass(frozen=True, slots=True)
class Runner:
    """Starts the jobs of all pages: one at a time on the model, each stoppable by its session."""

    workbench: Workbench
    stops: Stops

    def start(self, request: gr.Request, progress: gr.Progress | None = None) -> SessionJob:
        """Start a session's job; raises InputError where it has started too many."""
        return SessionJob(self.workbench, session_of(request), self.stops.telling(request, progress))

    def on(
        self,
        event: Any,
        work: Callable[[Values, SessionJob], Iterator[Values]],
        inputs: Any,
        outputs: list[Any],
        show: Show | None = None,
        **more: Any,
    ) -> Any:
        """Run ``work`` at an event and show what it yields, and how it goes; return the event.

        Args:
            event: such as a button's click.
            work: from the components' values to what they become, bit by bit.
            inputs: the components that it reads.
            outputs: those that it may change.
            show: where to show that it runs, was stopped or failed.
            more: of Gradio.
        """

        def run(
            values: Values,
            request: gr.Request,
            progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
        ) -> Iterator[Values]:
            try:
                job = self.start(request, progress)
                if show is not None:
                    yield show("working", "working")
                yield from work(values, job)
            except Cancelled:
                if show is not None:
                    yield show("stopped", "stopped")
            except Exception as e:
                if show is not None:
                    yield show("failed", "failed")
                raise shown(e) from e

        run.__name__ = work.__name__
        return event(run, set(inputs), outputs, **MODEL_QUEUE, **more)

    def stop_on(self, button: gr.Button) -> None:
        """Let a button stop its session's job, between two steps; what is done stays."""

        def end(request: gr.Request) -> None:
            self.stops.stop(session_of(request))

        button.click(end, None, None, **GLUE)
