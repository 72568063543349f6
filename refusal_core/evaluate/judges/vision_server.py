"""Asking a vision-language model behind an OpenAI-compatible server: tries, waits, limits and the cache.

Whatever goes wrong comes back as one sentence on why a question was not answered.
"""

from __future__ import annotations

import base64
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from refusal_core.errors import MissingExtraError
from refusal_core.evaluate.judges.frames import Frames, as_jpeg
from refusal_core.evaluate.judges.query import Query, WrongAnswer, parse_answer
from refusal_core.evaluate.judges.vision_budget import Budget
from refusal_core.evaluate.judges.vision_cache import AnswerCache, query_key
from refusal_core.evaluate.judges.vision_settings import VisionSettings

MIN_SIDE = 28  # pixels; the patch of common models: they refuse or blur what is smaller
ROLE = "You look at frames of one video, in their order, and answer a question about what they show."
_PASSING = (408, 409, 425, 429)  # statuses after which the same request may succeed, beside 5xx
_FINAL = (401, 403, 404)  # statuses that every further request would get too


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Why a question has no answer, in a few words."""

    why: str


class _Failure(Exception):
    """A try that failed: for good where ``wait`` is None, else to be tried again after so many seconds."""

    def __init__(self, why: str, wait: float | None = None, *, backs_off: bool = False) -> None:
        super().__init__(why)
        self.why, self.wait, self.backs_off = why, wait, backs_off


class VisionServer:
    """One server and model, with its budget and cache; may be asked from several threads."""

    def __init__(self, settings: VisionSettings) -> None:
        """Prepare to ask; nothing is sent yet.

        Raises:
            MissingExtraError: the package openai is not installed.
            InputError: the key would travel unencrypted.
            FileError: the cache cannot be used.
        """
        try:
            import openai
        except ImportError as e:
            raise MissingExtraError("The vlm judge needs openai: pip install 'openai>=3,<4'.") from e
        self._openai, self._settings, self._key = openai, settings, settings.key()
        self._cache = AnswerCache(settings.cache)
        self.budget = Budget(settings.max_requests, settings.max_tokens)
        self._final: str | None = None  # why nothing more is asked
        # The tries are ours: each of them counts against the budget.
        self._client = openai.OpenAI(
            api_key=self._key, base_url=settings.base_url, timeout=settings.timeout, max_retries=0
        )

    def ask_all(self, asked: Sequence[tuple[Frames, Query]]) -> list[float | str | Unanswered]:
        """Ask several questions, some at once; the answers are in their order."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._settings.concurrency, "vision")
        try:
            under_way = [pool.submit(self.ask, frames, query, stop) for frames, query in asked]
            return [future.result() for future in under_way]
        finally:  # an interrupt must not wait for those that have not begun, nor for their waits
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def ask(
        self, frames: Frames, query: Query, stop: threading.Event | None = None
    ) -> float | str | Unanswered:
        """Ask one question, again where a failure may pass.

        Args:
            frames: of one video, as they are sent.
            query: the question and the form of its answer.
            stop: set from outside, it ends the waits between tries.
        """
        height, width = frames.shape[1:3]
        if min(height, width) < MIN_SIDE:
            return Unanswered(f"frames of {width} x {height} pixels are too small to judge; raise the scale")
        stop = stop or threading.Event()
        key = query_key(self._settings, frames, query)
        kept = self._cache.find(key)
        if kept is not None:
            try:
                return query.read(kept)
            except WrongAnswer:  # damaged: asked again
                pass
        body = self._body(frames, query)
        chance = random.Random(f"{self._settings.seed} {key}")
        for attempt in range(self._settings.retries + 1):
            try:
                found = self._try(body)
                answer = query.read(found)
                self._cache.keep(key, found)
                return answer
            except WrongAnswer as e:
                failure = _Failure(str(e), 0.0)
            except _Failure as e:
                failure = e
            if failure.wait is None or attempt == self._settings.retries:
                break
            if stop.wait(self._wait(failure, attempt, chance)):
                return Unanswered("the run was stopped")
        return Unanswered(failure.why)

    def _wait(self, failure: _Failure, attempt: int, chance: random.Random) -> float:
        """Return the seconds before the next try: what the server asks for, at least the back-off."""
        settings, asked = self._settings, failure.wait or 0.0
        if not failure.backs_off:
            return asked
        backoff = settings.first_wait * 2**attempt * (1.0 - 0.5 * chance.random())
        return max(asked, min(settings.longest_wait, backoff))

    def _try(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._final is not None:
            raise _Failure(self._final)
        if not self.budget.take():
            raise _Failure("budget: the limit of requests or tokens is reached")
        openai = self._openai
        try:
            reply = self._client.chat.completions.create(**body)
        except openai.APITimeoutError as e:
            raise _Failure("the server did not answer in time", 0.0, backs_off=True) from e
        except openai.APIStatusError as e:
            raise self._refused(e) from e
        except openai.APIConnectionError as e:
            raise _Failure("the server cannot be reached", 0.0, backs_off=True) from e
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, RecursionError) as e:
            raise _Failure("the server's reply is not of the expected form", 0.0) from e
        self.budget.spend(getattr(getattr(reply, "usage", None), "total_tokens", None))
        return parse_answer(_content(reply))

    def _refused(self, error: Any) -> _Failure:
        """Return what a status other than 200 means for this question and for those to come."""
        status, code = int(error.status_code), str(getattr(error, "code", "") or "")
        if code == "insufficient_quota":
            self._final = "the account at the server is used up"
        elif status in (401, 403):
            self._final = f"the server refuses the key in {self._settings.key_variable or 'no variable'}"
        elif status in _FINAL:
            self._final = f"the server has no model '{self._settings.model}' at {self._settings.base_url}"
        if self._final is not None:
            return _Failure(self._final)
        if status not in _PASSING and status < 500:
            return _Failure(f"the server refused the request ({status}): {self._without_key(error)}")
        asked = _retry_after(error.response.headers.get("retry-after"))
        if asked > self._settings.longest_wait:
            return _Failure(f"the server asks to wait {asked:.0f} s")
        reason = "the server is too busy" if status == 429 else f"the server failed ({status})"
        return _Failure(reason, asked, backs_off=True)

    def _without_key(self, error: Any) -> str:
        """Return a server's own words; one may send the key back."""
        words = "".join(c if c.isprintable() else " " for c in str(getattr(error, "message", "")))
        return (words.replace(self._key, "[key]") if self._key != "none" else words)[:160]

    def _body(self, frames: Frames, query: Query) -> dict[str, Any]:
        settings = self._settings
        pictures = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{packed}"}}
            for packed in (base64.b64encode(as_jpeg(frame)).decode() for frame in frames)
        ]
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": [
                {"role": "system", "content": ROLE},
                {"role": "user", "content": [*pictures, {"type": "text", "text": query.text}]},
            ],
            "max_completion_tokens": settings.answer_tokens,
        }
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        if settings.json_schema:
            form = {"name": "answer", "strict": True, "schema": dict(query.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body


def _content(reply: Any) -> object:
    """Return the text of a reply; a refusal is final, since asking again would only cost."""
    try:
        choice = reply.choices[0]
        message, reason = choice.message, choice.finish_reason
        refusal, content = getattr(message, "refusal", None), message.content
    except (AttributeError, TypeError, IndexError, KeyError) as e:
        raise _Failure("the server's reply is not of the expected form", 0.0) from e
    if refusal or reason == "content_filter":
        raise _Failure("the model refused to answer")
    if reason == "length":
        raise _Failure("the answer was cut off; raise answer_tokens")
    return content


def _retry_after(header: str | None, now: Callable[[], float] = time.time) -> float:
    """Return the seconds a server asks to wait, given as a number or a date; 0 where it says nothing."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, seconds) if seconds == seconds else 0.0  # NaN is no wait
