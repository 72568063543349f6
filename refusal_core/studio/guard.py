"""What stands in front of Gradio: who may call from where, which doors stay shut, how much may come in.

It is put around the whole server when that starts, so that Gradio adds nothing after it: on a public host
Gradio itself would let the page of any other site read every answer.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

Receive = Callable[[], Any]
Send = Callable[[Any], Any]

MAX_BODY = 1 << 20  # bytes of a call; files come by upload
MAX_UPLOAD = 160 << 20  # bytes of one upload, of all its files
MIN_FREE = 1 << 30  # bytes that uploads leave on the disk
PURGED_EVERY = 600.0  # seconds
HOSTS = ("https://huggingface.co", "https://*.hf.space")  # that show a Space in a frame

ADDRESS = r"\s*(\w[\w+.-]+:|//|\\)"  # of another host: a URL, or a share of a network
# Routes of Gradio that the app does not use, and files named by such an address.
_SHUT = re.compile(
    r"/+(monitoring|openapi\.json|docs|redoc|gradio_api/+(deep_link|proxy=|component_server"
    r"|process_recording|profiling|stream/|vibe-|undo-vibe|dev/|custom_component|run-history|runs))"
    r"|/+gradio_api/+file[=/]" + ADDRESS,
    re.IGNORECASE,
)
_UPLOAD = re.compile(r"/+gradio_api/+upload/*")
_WITHOUT_LOGIN = re.compile(r"/+gradio_api/+mcp\b", re.IGNORECASE)  # Gradio asks no login for it


def lifespan(
    purge: Callable[[], None], close: Callable[[], None]
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return what Gradio's server runs while it is up: the guard around it, and files deleted on age.

    Args:
        purge: deletes what is too old; called now and then.
        close: deletes all that is left when the server ends.
    """

    @asynccontextmanager
    async def running(app: Any) -> AsyncIterator[None]:
        app.middleware_stack = Guard(app.middleware_stack, app)
        task = asyncio.create_task(_every(PURGED_EVERY, purge))
        try:
            yield
        finally:
            task.cancel()
            close()

    return running


async def _every(seconds: float, work: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(work)


class Guard:
    """An ASGI application around Gradio's."""

    def __init__(self, inner: Any, app: Any) -> None:
        self._inner, self._app = inner, app
        self._headers = _headers()
        self._disk = os.environ.get("GRADIO_TEMP_DIR") or "/"

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path = _route(scope)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        counted = _Counted(receive, MAX_UPLOAD if _UPLOAD.fullmatch(path) else MAX_BODY)
        answer = _Answer(send, self._added(path), counted)
        refused = self._refused(path, headers, counted.limit)
        if refused is not None:
            await answer.refuse(*refused)
            return
        await self._inner(scope, counted, answer)

    def _refused(self, path: str, headers: Mapping[str, str], limit: int) -> tuple[int, str] | None:
        """Return the status and the sentence with which a request is turned away; None to let it in."""
        if not _is_own(headers):
            return 403, "Calls from other sites are not answered here."
        if _SHUT.match(path) or (self._app.auth is not None and _WITHOUT_LOGIN.match(path)):
            return 404, "There is nothing here."
        if (length := headers.get("content-length", "")).isdecimal() and int(length) > limit:
            return 413, f"That is too large; {limit >> 20} MB is the limit."
        if limit == MAX_UPLOAD and shutil.disk_usage(self._disk).free < MIN_FREE:
            return 507, "The disk is nearly full; please try again later."
        return None

    def _added(self, path: str) -> dict[str, str]:
        if "/gradio_api/file" in path:  # of strangers: no script of theirs runs, no other site shows them
            own = {"content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'self'"}
            return {**self._headers, **own, "cross-origin-resource-policy": "same-origin"}
        return self._headers


class _Counted:
    """A request's body, cut off where it is too long although its header said otherwise, or nothing."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self.limit, self.taken = receive, limit, 0

    async def __call__(self) -> Any:
        message = await self._receive()
        self.taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if self.taken > self.limit else message


class _Answer:
    """The way back: security headers on every answer, and none that opens it to other sites."""

    def __init__(self, send: Send, added: Mapping[str, str], body: _Counted) -> None:
        self._send, self._added, self._body = send, added, body

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, value)
                for name, value in message.get("headers", ())
                if not name.lower().startswith(b"access-control-")
                and name.lower().decode() not in self._added
            ]
            added = [(name.encode(), value.encode()) for name, value in self._added.items()]
            status = 413 if self._body.taken > self._body.limit else message["status"]
            message = {**message, "status": status, "headers": [*kept, *added]}
        await self._send(message)

    async def refuse(self, status: int, sentence: str) -> None:
        """Answer with one sentence."""
        text = sentence.encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(text)).encode()),
        ]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": text})


def _route(scope: Mapping[str, Any]) -> str:
    """Return the path that Gradio's routes see, without percent signs that hide something.

    That is without the prefix under which a proxy shows the app (GRADIO_ROOT_PATH), where it is still there.
    """
    path, prefix = scope["path"], scope.get("root_path", "")
    if path.startswith(prefix) and path[len(prefix) :][:1] in ("", "/"):
        path = path[len(prefix) :]
    for _ in range(4):  # however often it was encoded
        path, before = unquote(path), path
        if path == before:
            break
    return path


def _is_own(headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from this app's own page, or from a program, which names no origin."""
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        came = urlsplit(origin)
        origin_of = (came.hostname or "", came.port or {"http": 80, "https": 443}.get(came.scheme))
    except ValueError:
        return False
    names = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
    shown_at = urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).netloc  # it may be a whole address
    for name in (*names, shown_at, os.environ.get("SPACE_HOST", "")):
        host, _, port = name.strip().rpartition(":") if re.search(r":\d+\s*$", name) else (name, "", "")
        if host.strip().strip("[]").lower() == origin_of[0] != "" and port in ("", str(origin_of[1])):
            return True
    return False


def _headers() -> dict[str, str]:
    """Return the headers of every answer. Gradio needs inline scripts and ``eval``; none from elsewhere."""
    on_space = bool(os.environ.get("SPACE_ID"))
    hub = " ".join(HOSTS) if on_space else ""
    policy = {
        "default-src": "'self'",
        "script-src": f"'self' 'unsafe-inline' 'unsafe-eval' blob: {hub}",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": f"'self' data: blob: {hub}",
        "media-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": f"'self' data: blob: {hub}",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": f"'self' {hub}",
    }
    headers = {
        "content-security-policy": "; ".join(f"{name} {value}".strip() for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
    }
    return headers if on_space else {**headers, "x-frame-options": "SAMEORIGIN"}
