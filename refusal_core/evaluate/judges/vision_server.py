"""Asking a vision-language model behind an OpenAI-compatible server, with limits and a cache of answers.

Time limits, retries and waits are the openai client's own. Whatever goes wrong comes back as one sentence
on why a question was not answered.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from refusal_core.errors import FileError, MissingExtraError
from refusal_core.evaluate.judges.frames import Frames, encoded
from refusal_core.evaluate.judges.query import AnswerForm, Query, WrongAnswer
from refusal_core.evaluate.judges.vision_settings import VisionSettings
from refusal_core.io.files import write_json

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

MIN_SIDE = 28  # pixels; the patch of common models: they refuse or blur what is smaller
ROLE = "You look at frames of one video, in their order, and answer a question about what they show."
OVER_BUDGET = "budget: the limit of requests or tokens is reached"
CACHE_VERSION = 2
WRONG_FORM = "the server's reply is not of the expected form"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Why a question has no answer, in a few words."""

    why: str


class VisionServer:
    """One server and model, with its budget and its cache."""

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
        self._requests = self._tokens = 0
        self._closed: str | None = None  # why nothing more is asked

    def ask(self, frames: Frames, query: Query) -> float | str | Unanswered:
        """Ask one question on the frames of a video, as they are sent."""
        return self.ask_all([(frames, query)])[0]

    def ask_all(self, questions: Sequence[tuple[Frames, Query]]) -> list[float | str | Unanswered]:
        """Ask several questions, some at once; answers are in their order. An interrupt ends all waits."""
        loop = asyncio.new_event_loop()
        work = loop.create_task(self._ask_all(questions))
        with closing(loop), ThreadPoolExecutor(1) as pool:  # in a notebook this thread has a loop already
            answers = pool.submit(loop.run_until_complete, work)
            try:
                return answers.result()
            except BaseException:
                loop.call_soon_threadsafe(work.cancel)
                raise

    async def _ask_all(self, questions: Sequence[tuple[Frames, Query]]) -> list[float | str | Unanswered]:
        settings, openai = self._settings, self._openai
        # The hook sees every try of the client's, so that all of them count against the budget.
        http = openai.DefaultAsyncHttpxClient(
            event_hooks={"request": [self._count]}, timeout=settings.timeout
        )
        limit = asyncio.Semaphore(settings.concurrency)
        async with openai.AsyncOpenAI(
            api_key=self._key, base_url=settings.base_url, max_retries=settings.retries, http_client=http
        ) as client:
            return await asyncio.gather(*(self._ask(client, limit, *question) for question in questions))

    async def _ask(
        self, client: openai.AsyncOpenAI, limit: asyncio.Semaphore, frames: Frames, query: Query
    ) -> float | str | Unanswered:
        height, width = frames.shape[1:3]
        if min(height, width) < MIN_SIDE:
            return Unanswered(f"frames of {width} x {height} pixels are too small to judge; raise the scale")
        key = query_key(self._settings, frames, query)
        if (kept := self._cache.load(key, query)) is not None:
            return query.value(kept)
        async with limit:
            return await self._answer(client, self._body(frames, query), query, key)

    async def _answer(
        self, client: openai.AsyncOpenAI, body: Mapping[str, Any], query: Query, key: str
    ) -> float | str | Unanswered:
        """Send a request, again where the answer is of a wrong form: the client does not look at that."""
        why = ""
        for _ in range(self._settings.retries + 1):
            try:
                reply = await client.chat.completions.create(**body)
                self._tokens += reply.usage.total_tokens if reply.usage else 0
                if unanswered := _refusal(reply):
                    return unanswered
                answer = query.parse(reply.choices[0].message.content)
            except self._openai.APIResponseValidationError:
                why = WRONG_FORM
            except self._openai.OpenAIError as e:
                return Unanswered(self._reason(e))
            except WrongAnswer as e:
                why = str(e)
            except (ValueError, TypeError, AttributeError, IndexError, RecursionError):  # of a strange reply
                why = WRONG_FORM
            else:
                self._cache.save(key, answer)
                return query.value(answer)
        return Unanswered(why)

    async def _count(self, _request: object) -> None:
        """Count a request before it is sent, or refuse it; the client hands its own errors on untouched."""
        settings = self._settings
        if self._closed is not None:
            raise self._openai.OpenAIError(self._closed)
        for spent, most in ((self._requests, settings.max_requests), (self._tokens, settings.max_tokens)):
            if most is not None and spent >= most:
                raise self._openai.OpenAIError(OVER_BUDGET)
        self._requests += 1

    def _reason(self, error: openai.OpenAIError) -> str:
        openai = self._openai
        if isinstance(error, openai.APIStatusError):
            return self._refused(error)
        if isinstance(error, openai.APITimeoutError):
            return "the server did not answer in time"
        return "the server cannot be reached" if isinstance(error, openai.APIConnectionError) else str(error)

    def _refused(self, error: openai.APIStatusError) -> str:
        """Return what a status other than 200 means; after some, nothing more is asked."""
        status, settings = error.status_code, self._settings
        if error.code == "insufficient_quota":
            self._closed = "the account at the server is used up"
        elif status in (401, 403):
            self._closed = f"the server refuses the key in {settings.key_variable or 'no variable'}"
        elif status == 404:
            self._closed = f"the server has no model '{settings.model}' at {settings.base_url}"
        if self._closed is not None:
            return self._closed
        if status == 429:
            return "the server is too busy"
        if status in (408, 409) or status >= 500:
            return f"the server failed ({status})"
        words = "".join(c if c.isprintable() else " " for c in error.message)
        words = words.replace(self._key, "[key]") if self._key != "none" else words  # one may send it back
        return f"the server refused the request ({status}): {words[:160]}"

    def _body(self, frames: Frames, query: Query) -> dict[str, Any]:
        settings = self._settings
        pictures = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{packed}"}}
            for packed in (base64.b64encode(encoded(frame, "JPEG")).decode() for frame in frames)
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
            form = {"name": "answer", "strict": True, "schema": query.schema()}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body


def _refusal(reply: ChatCompletion) -> Unanswered | None:
    """Return why a reply holds no answer; asking again would only cost."""
    choice = reply.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return Unanswered("the model refused to answer")
    if choice.finish_reason == "length":
        return Unanswered("the answer was cut off; raise answer_tokens")
    return None


def query_key(settings: VisionSettings, frames: Frames, query: Query) -> str:
    """Return the key of a question: the frames, its text with its form, and what else changes the answer.

    The threshold is not part of it: the same answers can be read with another one.
    """
    pixels = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
    content = {
        "version": CACHE_VERSION,
        "frames": [pixels, list(frames.shape)],
        "text": query.text,
        "base_url": settings.base_url.rstrip("/"),
        "model": settings.model,
        "temperature": settings.temperature,
        "answer_tokens": settings.answer_tokens,
        "json_schema": settings.json_schema,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """Answers in a folder, one small file each, so that nothing is paid for twice; in no folder none."""

    def __init__(self, folder: Path | None) -> None:
        """Make the folder if it is missing; raises FileError where it cannot be made."""
        self._folder = Path(folder) if folder is not None else None
        try:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise FileError(f"{self._folder} cannot be used ({e.strerror or e}); choose another.") from e

    def load(self, key: str, query: Query) -> AnswerForm | None:
        """Return the answer that was kept, None where there is none that can be read."""
        if self._folder is None:
            return None
        try:
            return query.form.model_validate_json(_path(self._folder, key).read_bytes())
        except (OSError, ValidationError):
            return None

    def save(self, key: str, answer: AnswerForm) -> None:
        """Keep an answer; a full disk costs the entry, not the run."""
        if self._folder is None:
            return
        try:
            write_json(_path(self._folder, key), answer.model_dump())
        except FileError as e:
            logging.getLogger(__name__).warning("An answer was not kept: %s", e)


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"
