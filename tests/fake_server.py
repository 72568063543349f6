"""A chat server that says what a test wants, and the settings of a judge that asks it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from refusal_core.evaluate.judges.vision_settings import VisionSettings

SECRET = "sk-secret-of-the-test"


def said(content: object, **message: object) -> dict[str, Any]:
    """A whole reply of a chat server."""
    finish = message.pop("finish_reason", "stop")
    whole = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "message": whole, "finish_reason": finish}
    usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
    head = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    return {**head, "choices": [choice], "usage": usage}


def percent(yes: float) -> dict[str, Any]:
    return said(json.dumps({"yes": yes, "no": 100 - yes}))


@dataclass
class Answer:
    """What the server sends for one request."""

    body: object
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0  # seconds


class FakeServer(ThreadingHTTPServer):
    """Answers with ``script``, called with the request's number and body; the last requests are kept."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: Callable[[int, dict[str, Any]], Answer] = lambda number, body: Answer(percent(0))
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.under_way, self.most, self.lock = 0, 0, threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing where a client has gone: some tests hang up on purpose."""


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        server: FakeServer = self.server  # type: ignore[assignment]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            number = len(server.requests)
            server.requests.append(body)
            server.keys.append(self.headers.get("authorization", ""))
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        answer = server.script(number, body)
        time.sleep(answer.after)
        with server.lock:
            server.under_way -= 1
        whole = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if answer.status == 0:  # hang up
            return
        self.send_response(answer.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(whole)))
        soon = {"retry-after-ms": "10"} if answer.status >= 400 and not answer.headers else {}
        for name, value in (soon | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(whole)


def asking(server: FakeServer, **changes: Any) -> VisionSettings:
    plain = VisionSettings(f"http://127.0.0.1:{server.server_port}/v1", "m", timeout=5.0)
    return replace(plain, **changes)
