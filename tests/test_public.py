"""The app in public, as strangers try it: the patterns of Gradio's published holes, and of ours, by HTTP."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import pytest
from conftest import served
from gradio.utils import get_upload_folder
from gradio_client import Client
from playwright.sync_api import Browser, expect

from refusal_core.errors import InputError
from refusal_core.settings import SamplingSettings, recipe_knobs
from refusal_core.studio import guard, texts
from refusal_core.studio.limits import PUBLIC, Rates
from refusal_core.workbench.history import History
from refusal_core.workbench.workbench import Workbench

pytestmark = [pytest.mark.security, pytest.mark.filterwarnings("default")]
PROMPT = "a large blue square on fire moving right over sky"
SCRIPT = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
ROOT = Path(__file__).resolve().parents[1]
PASSWD = Path("/etc/passwd")
CUT_OFF = 0  # instead of a status, where the server hung up while it was still being sent to
JSON = {"content-type": "application/json"}
FREE = replace(PUBLIC, jobs_a_minute=6000.0, burst=1000)  # as in public, but for how often


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


@dataclass(frozen=True)
class Site:
    """A running app, asked byte for byte: a friendlier client would tidy a bad path up."""

    url: str
    workbench: Workbench
    runs: History

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | str | Iterator[bytes] | None = None,
    ) -> Answer:
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # answered before all of it was sent
                connection.request(method, path, body, {"connection": "close", **(headers or {})})
            try:
                got = connection.getresponse()
            except (ConnectionError, http.client.HTTPException):
                return Answer(CUT_OFF, {}, "")
            try:
                content = got.read()
            except http.client.IncompleteRead as e:  # Gradio breaks a stream off where there is no session
                content = e.partial
            text = content.decode("utf-8", "replace")
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, text)
        finally:
            connection.close()

    def post(self, path: str, value: Any, **headers: str) -> Answer:
        body = value if isinstance(value, str) else json.dumps(value)
        return self.ask(path, "POST", {**JSON, **headers}, body)

    def join(self, handler: str, data: list[Any], session: str) -> Answer:
        """Put a handler of the page, or an endpoint, into the queue as a browser does."""
        asked = {"data": data, "fn_index": self.handler(handler)["id"], "session_hash": session}
        return self.post("/gradio_api/queue/join", asked)

    def told(self, session: str) -> list[dict[str, Any]]:
        """Return what a session is told until its jobs are done."""
        text = self.ask(f"/gradio_api/queue/data?session_hash={session}").text
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]

    def handler(self, name: str) -> dict[str, Any]:
        config = json.loads(self.ask("/config").text)
        return next(d for d in config["dependencies"] if d["api_name"] == name)

    def run(self, handler: str, data: list[Any]) -> str:
        """Run a handler, an endpoint without its last settings; return the sentence that it failed with."""
        session = uuid.uuid4().hex
        joined = self.join(handler, [*data, *left_out(handler, data)], session)
        assert joined.status == 200, joined.text
        last = next(m for m in self.told(session) if m["msg"] == "process_completed")
        assert not last["success"], last
        return str(last["output"]["error"])


def left_out(handler: str, data: list[Any]) -> list[None]:
    """Return the settings that a program need not give, where it gives the others by place."""
    given = {"edit": 4, "compare": 6, "evaluate": 6, "export": 5}.get(handler)
    return [None] * (len(recipe_knobs()) - 3) if given == len(data) else []


@contextmanager
def in_public(workbench: Workbench, runs: History, **options: Any) -> Iterator[Site]:
    with served(workbench, runs, limits=FREE, **options) as address:
        yield Site(address.rstrip("/"), workbench, runs)


@pytest.fixture(scope="module")
def bench() -> Iterator[Workbench]:
    """The bundled model as in public, its files where Gradio serves them."""
    folder = Path(get_upload_folder())
    folder.mkdir(parents=True, exist_ok=True)
    made = Workbench("toyworld", only_bundled=True, folder=folder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    # Soon told of a client that went away, instead of after fifteen seconds.
    os.environ["GRADIO_HEARTBEAT_INTERVAL"] = "0.5"
    with in_public(bench, History(tmp_path_factory.mktemp("runs"))) as found:
        yield found
    del os.environ["GRADIO_HEARTBEAT_INTERVAL"]


def is_clean(text: str) -> bool:
    """Return whether a text names no folder of this machine and holds no traceback."""
    inside = (str(ROOT), sys.prefix, str(Path.home()) + "/", tempfile.gettempdir() + "/", "site-packages")
    return "Traceback" not in text and not any(place in text for place in inside)


# --- files -----------------------------------------------------------------------------------------


def test_no_path_leads_out_of_the_served_folder(site: Site, tmp_path: Path) -> None:
    """CVE-2023-34239, CVE-2023-51449, CVE-2024-1561, CVE-2024-47164, CVE-2024-47166, CVE-2025-23042.

    On Windows also CVE-2024-34510 (shares of a network) and CVE-2026-28414 (paths without a drive).
    """
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret of the machine")
    cache = Path(get_upload_folder()).resolve()
    (cache / "public.txt").write_text("for everyone")
    assert site.ask(f"/gradio_api/file={cache}/public.txt").text == "for everyone"
    up = "../" * 12
    tries = [
        str(secret), f"/{secret}", f"{up}{secret}", f"{cache}/../..{secret}", f"{cache}/{up}{secret}",
        f"{cache}/public.txt/{up}{secret}", f"file://{secret}", f"file:{secret}", f"C:{secret}",
        f"{secret}::$DATA",
        f"\\\\127.0.0.1\\c$\\{secret}", f"//127.0.0.1/{secret}", str(secret).upper(),
        str(ROOT / "app.py"), "app.py",
        ".git/config", "/proc/self/environ", "/proc/self/cwd/app.py", str(cache), f"{secret}\0.png",
    ]  # fmt: skip
    for path in tries:
        for written in (path, quote(path, safe=""), quote(quote(path, safe=""), safe="")):
            for door in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/"):
                address = door + quote(written, safe="/%:.$=\\~")
                found = site.ask(address)
                assert found.status in (403, 404), (address, found.status)
                assert "secret of" not in found.text and is_clean(
                    found.text.replace(json.dumps(path)[1:-1], "")
                ), address
    for door in ("/static/", "/assets/", "/svelte/", "/gradio_api/custom_component/1/client/component/"):
        for way in (up + str(secret), quote(up + str(secret), safe=""), "%2e%2e/" * 12 + str(secret)):
            found = site.ask(door + way)
            assert found.status in (403, 404, 405, 422), (door, way, found.status)
            assert "secret of" not in found.text


def test_a_path_on_the_server_is_no_input(site: Site) -> None:
    """CVE-2024-0964, CVE-2024-1728, CVE-2024-4941, CVE-2024-51751: a file's data with a path in it."""
    before = set(Path(get_upload_folder()).rglob("passwd"))
    for path in (str(PASSWD), "app.py", "../" * 12 + "etc/passwd", str(ROOT / "app.py")):
        given = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.zip"}
        for handler, data in (
            ("open_pack", [given]),
            ("compare", ["fire", given, 1, "", 0, 1]),
            ("compare", ["fire", PROMPT, {"deep": [given]}, "", 0, 1]),
            ("export", [given, "edit", "", 0, 1]),
        ):
            said = site.run(handler, data)
            assert said == texts.NOT_READABLE, (handler, path)
    assert set(Path(get_upload_folder()).rglob("passwd")) == before


def test_a_file_without_its_mark_is_no_input_either(site: Site) -> None:
    assert is_clean(site.run("open_pack", [{"path": str(PASSWD)}]))
    assert is_clean(site.run("open_pack", [str(PASSWD)]))


class _Listener(http.server.BaseHTTPRequestHandler):
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_error(404)

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[str]:
    """A server inside the network, which nobody outside should reach through the app."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _Listener.seen.clear()
    yield f"http://127.0.0.1:{server.server_port}/inside"
    server.shutdown()
    server.server_close()


def test_no_address_is_ever_fetched(site: Site, listener: str) -> None:
    """CVE-2024-1183, CVE-2024-2206, CVE-2024-4325, CVE-2024-47167, CVE-2026-28416: not even a public one."""
    for address in (listener, "http://example.com/a", "https:/example.com/a", "ftp://example.com/a"):
        for door in ("/gradio_api/file=", "/gradio_api/file/", "/gradio_api/proxy=", "/file=", "/proxy="):
            for written in (address, quote(address, safe="")):
                found = site.ask(door + written)
                assert found.status == 404 and "location" not in found.headers, (door, written, found)
        for key in ("path", "url"):
            given = {"path": "a", "meta": {"_type": "gradio.FileData"}, key: address}
            wanted = texts.BY_UPLOAD if key == "path" else texts.NOT_READABLE
            assert site.run("open_pack", [given]) == wanted
            assert site.run("compare", ["fire", given, 1, "", 0, 1]) == wanted
    site.ask("/", headers={"X-Direct-Url": listener})
    site.ask("/config", headers={"X-Direct-Url": listener})
    assert site.ask(f"/gradio_api/proxy={listener}").status == 404
    assert _Listener.seen == []


@pytest.mark.parametrize(
    "door",
    [
        "GET /monitoring", "GET /monitoring/summary", "GET /monitoring/x", "GET //monitoring/summary",
        "GET /gradio_api/deep_link?session_hash=x", "GET /gradio_api//deep_link?session_hash=x",
        "GET /gradio_api/runs", "POST /gradio_api/component_server", "POST /gradio_api/process_recording",
        "GET /gradio_api/vibe-code", "POST /gradio_api/vibe-edit", "GET /gradio_api/dev/reload",
        "GET /gradio_api/profiling/traces", "GET /gradio_api/%64eep_link?session_hash=x",
        "GET /gradio_api/custom_component/1/client/component/index.js", "GET /docs", "GET /openapi.json",
        "POST /gradio_api/stream/x",
    ],
)  # fmt: skip
def test_doors_that_the_app_does_not_use_are_shut(site: Site, door: str) -> None:
    """Among them CVE-2024-1561 (methods of a component) and CVE-2024-47168 (monitoring)."""
    method, path = door.split(" ")
    found = site.ask(path, method, JSON, "{}" if method == "POST" else None)
    assert found.status == 404
    assert is_clean(found.text)


# --- uploads ---------------------------------------------------------------------------------------


def upload(site: Site, name: str, content: bytes, door: str = "/gradio_api/upload") -> Answer:
    edge = uuid.uuid4().hex
    head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{edge}--\r\n".encode()
    kind = {"content-type": f"multipart/form-data; boundary={edge}"}
    return site.ask(door, "POST", kind, body)


@pytest.mark.parametrize(
    "name",
    ["../../../evil.html", "..\\\\..\\\\evil.html", "/etc/evil.svg", "<img src=x onerror=alert(1)>.html",
     "evil.js", "a" * 300 + ".svg", "..", "\u202efdp.exe"],
)  # fmt: skip
def test_an_upload_lands_in_the_served_folder_and_never_runs(site: Site, name: str) -> None:
    """CVE-2024-47872: pages, pictures with scripts and scripts that a visitor uploads."""
    found = upload(site, name, b"<script>document.title = 'pwned'</script>" + name.encode())
    if found.status != 200:
        assert found.status in (400, 422) and is_clean(found.text)
        return
    path = Path(json.loads(found.text)[0])
    assert path.resolve().is_relative_to(Path(get_upload_folder()).resolve())
    assert path.resolve() == path
    back = site.ask("/gradio_api/file=" + quote(str(path)))
    assert back.status == 200
    assert back.headers["content-disposition"].startswith("attachment")
    assert back.headers["x-content-type-options"] == "nosniff"
    assert back.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


def test_more_than_the_limit_is_not_taken(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert upload(site, "big.zip", bytes(65 << 20)).status in (413, CUT_OFF)  # one file
    told = {"content-type": "multipart/form-data; boundary=x", "content-length": str(guard.MAX_UPLOAD + 1)}
    whole = site.ask("/gradio_api/upload", "POST", told)  # all together: not even read
    assert whole.status in (413, CUT_OFF)
    assert site.post("/gradio_api/queue/join", {"data": ["x" * guard.MAX_BODY]}).status in (413, CUT_OFF)
    pieces = (b"x" * 65536 for _ in range(40))  # no length said
    assert site.ask("/gradio_api/queue/join", "POST", JSON, pieces).status in (413, CUT_OFF)
    # nor does the path of a call make it an upload
    assert site.post("/gradio_api/call/upload", {"data": ["x" * guard.MAX_BODY]}).status in (413, CUT_OFF)
    monkeypatch.setattr(guard, "MIN_FREE", 1 << 60)
    assert upload(site, "small.zip", b"x").status == 507  # a disk that is nearly full


# --- other sites, and headers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "studio.example"), ("null", "studio.example"), ("null", None),
        ("http://localhost:7860", "studio.example"), ("http://127.0.0.1", "studio.example"),
        ("https://studio.example.evil.example", "studio.example"), ("https://evil.example", None),
        ("http://studio.example:8000", "studio.example:7860"),
        ("https://studio.example@evil.example", "studio.example"),
        ("file://", "studio.example"), ("http://[", "studio.example"), ("", "studio.example"),
    ],
)  # fmt: skip
def test_other_sites_get_nothing(site: Site, origin: str, host: str | None) -> None:
    """CVE-2024-47084 and CVE-2024-47165; on a public host Gradio would answer every origin."""
    named = {"origin": origin, **({"host": host} if host else {})}
    for path, method in (
        ("/config", "GET"),
        ("/gradio_api/queue/join", "POST"),
        ("/gradio_api/upload", "POST"),
    ):
        for more in ({}, {"x-forwarded-for": "127.0.0.1"}):
            found = site.ask(path, method, {**named, **more}, "{}" if method == "POST" else None)
            assert found.status == 403, (origin, host, path)
            assert not any(name.startswith("access-control-allow-origin") for name in found.headers)
            assert "components" not in found.text
    before = {**named, "access-control-request-method": "POST"}
    asked = site.ask("/gradio_api/queue/join", "OPTIONS", before)
    assert asked.status == 403 and "access-control-allow-origin" not in asked.headers


@pytest.mark.parametrize(
    ("origin", "more"),
    [
        ("https://studio.example", {"host": "studio.example"}),
        ("http://studio.example:7860", {"host": "studio.example:7860"}),
        ("https://Studio.Example", {"host": "127.0.0.1:7860", "x-forwarded-host": "studio.example"}),
        ("http://[::1]:7860", {"host": "[::1]:7860"}),
    ],
)
def test_the_apps_own_page_is_answered(site: Site, origin: str, more: dict[str, str]) -> None:
    assert site.ask("/config", headers={"origin": origin, **more}).status == 200


def test_every_answer_carries_the_security_headers(site: Site) -> None:
    pages = [site.ask(p) for p in ("/", "/config", "/gradio_api/info", "/nothing", "/monitoring")]
    pages.append(site.ask("/", headers={"origin": "https://evil.example"}))
    for page in pages:
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "same-origin"
        assert page.headers["x-frame-options"] == "SAMEORIGIN"
        policy = page.headers["content-security-policy"]
        assert "frame-ancestors 'self'" in policy and "object-src 'none'" in policy
        assert "http" not in policy  # nothing from elsewhere


def test_a_space_may_be_framed_by_its_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    found = guard._headers()
    assert "x-frame-options" not in found
    assert found["content-security-policy"].endswith(f"frame-ancestors 'self' {' '.join(guard.HOSTS)}")


def test_what_everyone_can_read_names_no_folder_and_no_environment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "hf_thisIsSecret")
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/queue/status"):
        found = site.ask(path)
        assert found.status == 200
        assert is_clean(found.text), path
        words = re.sub(r"base64,[A-Za-z0-9+/=]+", "", found.text)  # in a picture any short name comes up
        assert "hf_thisIsSecret" not in words and socket.gethostname() not in words
        assert str(site.workbench.folder) not in found.text


# --- other sessions --------------------------------------------------------------------------------


def test_no_job_runs_beside_the_queue(site: Site) -> None:
    for name in ("edit", "compare", "evaluate", "export", "sweep", "start"):
        for door in ("run", "api"):
            found = site.post(f"/gradio_api/{door}/{name}", {"data": []})
            assert found.status == 404 and is_clean(found.text), (door, name)


def test_a_stranger_reads_and_stops_nothing_of_anothers(site: Site) -> None:
    """The session and the job are named by long random words, and only who has both is told or heard."""
    mine, other = uuid.uuid4().hex, uuid.uuid4().hex
    index, data = site.handler("compare")["id"], ["fire", PROMPT, 11, "", 0, 1]
    whole = [*data, *left_out("compare", data)]
    event = json.loads(site.join("compare", whole, mine).text)["event_id"]
    assert len(event) >= 32
    assert [m["msg"] for m in site.told(other)] == ["unexpected_error"]
    for session, job in ((other, uuid.uuid4().hex), (other, ""), ("", "")):
        site.post("/gradio_api/cancel", {"session_hash": session, "fn_index": index, "event_id": job})
    done = next(m for m in site.told(mine) if m["msg"] == "process_completed")
    assert done["success"], done
    assert PROMPT not in json.dumps(site.told(other))


def test_a_video_has_a_path_none_can_guess_and_goes_with_its_session(site: Site) -> None:
    client = Client(site.url, verbose=False, download_files=False)
    original, *_ = client.predict("fire", PROMPT, 7, api_name="/compare")
    path = Path((original["video"] if "video" in original else original)["path"])
    assert path.is_relative_to(site.workbench.folder), "it was copied elsewhere, where it would stay"
    assert len(path.stem) == 32 and client.session_hash not in str(path)
    address = "/gradio_api/file=" + str(path)
    assert site.ask(address).status == 200
    for folder in (path.parent, path.parent.parent, site.workbench.folder):
        assert site.ask(f"/gradio_api/file={folder}").status == 403  # nothing is listed
    client.close()
    until = time.monotonic() + 30
    while path.parent.exists() and time.monotonic() < until:
        time.sleep(0.2)
    assert site.ask(address).status == 403
    assert not path.parent.exists()


def test_files_of_sessions_that_say_nothing_more_go_on_age(bench: Workbench) -> None:
    """A program that keeps no connection open is never seen to leave."""
    old, new = bench.session_folder("old"), bench.session_folder("new")
    for folder in (old, new):
        (folder / "deep").mkdir()
        (folder / "deep" / "a.mp4").write_text("")
    for path in (old, old / "deep", old / "deep" / "a.mp4", new, new / "deep"):
        os.utime(path, (1, 1))
    bench.purge(60)
    assert not old.exists()
    assert (new / "deep" / "a.mp4").exists()
    bench.forget("new")


def test_a_client_that_cancels_frees_the_model_at_the_next_step(site: Site) -> None:
    """Measured on an evaluation of 400 videos, which would take minutes."""
    client = Client(site.url, verbose=False, download_files=False)
    job = client.submit("fire", 200, "toyworld", api_name="/evaluate")
    until = time.monotonic() + 60
    while not job.status().code.value.startswith(("PROCESSING", "ITERATING", "PROGRESS")):
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(1.0)
    job.cancel()
    began = time.monotonic()
    Client(site.url, verbose=False, download_files=False).predict("fire", PROMPT, 12, api_name="/compare")
    assert time.monotonic() - began < 60
    assert not any(t.name.startswith("asyncio") and _is_evaluating(t) for t in threading.enumerate())


def _is_evaluating(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_filename.endswith("evaluate/run.py"):
            return True
        frame = frame.f_back
    return False


# --- endpoints as strict as the form ---------------------------------------------------------------

LONG = "red " * 50_000


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("compare", ["fire", LONG, 1, "", 0, 1], "tokens; this model reads 24: shorten the prompt."),
        ("compare", [LONG, PROMPT, 1, "", 0, 1], "There is no preset"),
        ("compare", ["../../etc/passwd", PROMPT, 1, "", 0, 1], "There is no preset"),
        ("compare", ["fire", None, 1, "", 0, 1], "must be text"),
        ("compare", ["fire", [PROMPT], {}, "", 0, 1], texts.NOT_READABLE),
        ("compare", ["fire", PROMPT, 1e300, "", 0, 1], "it must lie from 0"),
        ("compare", ["fire", PROMPT, -1, "", 0, 1], "it must lie from 0"),
        ("compare", ["fire", PROMPT, "seven", "", 0, 1], texts.NOT_READABLE),
        ("compare", ["fire", PROMPT, None, "", 0, 1], "seed must be a number."),
        ("compare", ["fire", PROMPT, 1, LONG, 0, 1], "is not known"),
        ("compare", ["fire", PROMPT, 1, "", 129, 1], "it must lie from 1 to 128."),
        ("compare", ["fire", PROMPT, 1, "", 0, 2.5], "it must lie from 0 to 2."),
        ("compare", ["fire", PROMPT, 1, "", 0, True], "strength must be a number from 0 to 2"),
        ("compare", ["fire", PROMPT, 1, "", 1.5, 1], "rank must be a whole number from 1 to 128"),
        ("compare", ["fire"], texts.NOT_READABLE),
        ("compare", [], texts.NOT_READABLE),
        ("edit", ["fire", "", -5, 1], "it must lie from 1 to 128."),
        ("edit", ["fire", "", 0, "NaN"], "strength must be a number from 0 to 2"),
        ("evaluate", ["fire", 201, "toyworld", "", 0, 1], "choose from 1 to 200."),
        ("evaluate", ["fire", 0, "toyworld", "", 0, 1], "choose from 1 to 200."),
        ("evaluate", ["fire", 2.5, "toyworld", "", 0, 1], "videos must be a whole number."),
        ("evaluate", ["fire", 4, "/etc/passwd", "", 0, 1], "is not known"),
        ("export", ["fire", "weights", "", 0, 1], "Whole weights are not exported here"),
        ("export", ["fire", "../edit", "", 0, 1], "is not known"),
        ("export", ["fire", None, "", 0, 1], "is not known"),
        ("add_pasted", [{"headers": ["a", "b"], "data": [["a", "b"]] * 21}, "x\ty", "toyworld"], "22 pairs"),
        ("look", ["/etc"], "is not in the list of choices"),
        ("load_1", ["someone/model"], "is not in the list of choices"),
    ],
)  # fmt: skip
def test_what_the_form_would_not_send_gets_one_sentence(
    site: Site, name: str, data: list[Any], sentence: str
) -> None:
    said = site.run(name, data)
    assert sentence in said
    assert len(said) < 300, "what was sent comes back whole"
    assert is_clean(said)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_none_are_refused(site: Site, number: str) -> None:
    more = ", null" * (len(recipe_knobs()) - 3)
    for given in (f'{number}, "", 0, 1', f'1, "", 0, {number}'):
        data = f'["fire", "{PROMPT}", {given}{more}]'
        began = site.post("/gradio_api/call/compare", f'{{"data": {data}}}')
        if began.status != 200:
            assert began.status == 422
            continue
        event = json.loads(began.text)["event_id"]
        said = site.ask(f"/gradio_api/call/compare/{event}").text
        assert said.startswith("event: error") and is_clean(said)
        assert texts.NOT_READABLE in said or "must be a number" in said


def test_calls_that_make_no_sense_tell_nothing(site: Site) -> None:
    for value in (
        "{",
        "[]",
        '"x"',
        '{"data": 1}',
        "[" * 100_000,
        '{"data": ' + "[" * 100_000,
        "\udcff".encode("utf-8", "ignore").decode(),
    ):
        for path in ("/gradio_api/call/compare", "/gradio_api/queue/join"):
            found = site.post(path, value)
            assert 400 <= found.status <= 500, (path, value[:20])
            assert is_clean(found.text)
    for path in ("/gradio_api/call/nothing", "/gradio_api/run/nothing", "/gradio_api/call/v2/nothing"):
        assert is_clean(site.post(path, {"data": []}).text)
    for index in (10**9, -1, "x", None):
        asked = {"data": [], "fn_index": index, "session_hash": "x"}
        assert is_clean(site.post("/gradio_api/queue/join", asked).text)
    assert site.ask("/config").status == 200


def test_new_sessions_at_one_address_share_a_rate() -> None:
    """Anybody can call themselves a new session."""
    rates = Rates(PUBLIC)
    most = PUBLIC.burst * PUBLIC.neighbours
    for number in range(most):
        rates.take(f"session {number}", "10.0.0.1")
    with pytest.raises(Exception, match="please wait"):
        rates.take("a new one", "10.0.0.1")
    rates.take("a new one elsewhere", "10.0.0.2")


# --- a login ---------------------------------------------------------------------------------------


def test_with_a_login_nothing_is_open_without_it(bench: Workbench, tmp_path: Path, listener: str) -> None:
    with in_public(bench, History(tmp_path), auth=("ada", "a long password")) as shut:
        assert PROMPT not in shut.ask("/").text and "star-logo" not in shut.ask("/").text
        for path in ("/config", "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/file=app.py"):
            assert shut.ask(path).status in (401, 403), path
        for path in ("call/compare", "queue/join", "run/compare", "api/compare", "call/v2/compare"):
            assert shut.post(f"/gradio_api/{path}", {"data": []}).status == 401, path
        assert upload(shut, "a.zip", b"x").status == 401
        assert shut.ask("/gradio_api/queue/data?session_hash=x").status == 401
        # Gradio asks no login for its tools: they are shut altogether.
        for path in ("/gradio_api/mcp", "/gradio_api/mcp/", "/gradio_api/mcp/schema", "/gradio_api//mcp/sse"):
            assert shut.ask(path).status == 404, path
        form = {"content-type": "application/x-www-form-urlencoded"}
        for words in ("username=ada&password=wrong", "username=&password=", "username=ada"):
            assert shut.ask("/login", "POST", form, words).status in (400, 401, 422), words
        found = shut.ask("/login", "POST", form, "username=ada&password=a%20long%20password")
        assert found.status == 200
        cookie = found.headers["set-cookie"]
        assert "httponly" in cookie.lower()
        assert shut.ask("/config", headers={"cookie": cookie.split(";")[0]}).status == 200


@pytest.mark.parametrize(("said", "wanted"), [("ada:a:b", ("ada", "a:b")), ("", None)])
def test_the_login_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, said: str, wanted: tuple[str, str] | None
) -> None:
    launched = run_app(monkeypatch, said)
    assert launched["auth"] == wanted
    assert launched["allowed_paths"] == [] and launched["strict_cors"] is True
    assert launched["share"] is False and launched["enable_monitoring"] is False


@pytest.mark.parametrize("said", ["secret", "ada:", ":secret"])
def test_half_a_login_opens_nothing(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Whoever set it meant to shut the app."""
    with pytest.raises(InputError) as caught:
        run_app(monkeypatch, said)
    assert str(caught.value) == "REFUSAL_STUDIO_AUTH must be name:password."


def run_app(monkeypatch: pytest.MonkeyPatch, login: str) -> dict[str, Any]:
    """Serve the app in public as far as its launch and return what it launched with."""
    from refusal_core.studio import inputs, serve

    found: dict[str, Any] = {}
    monkeypatch.setattr(inputs.Studio, "launch", lambda _self, **named: found.update(named))
    monkeypatch.setenv("REFUSAL_STUDIO_AUTH", login)
    monkeypatch.setenv("GRADIO_TEMP_DIR", get_upload_folder())
    serve.serve("toyworld", "127.0.0.1", 7860, public=True)
    return found


# --- what strangers write, in a browser -------------------------------------------------------------


def test_nothing_that_strangers_write_runs_in_a_browser(browser: Browser, site: Site, tmp_path: Path) -> None:
    """In a run's title and its recipe, in a file's name, and in a message."""
    asked = site.workbench.request(site.workbench.presets()[0].concept.name)
    *_, found = site.workbench.compare(asked, PROMPT, SamplingSettings(3), session="xss")
    owner = uuid.uuid4().hex
    spoilt = replace(found, original=replace(found.original, prompt=SCRIPT, verdict=SCRIPT))
    site.runs.add(owner, asked, spoilt, SCRIPT)
    context = browser.new_context()
    page = context.new_page()
    fetched: list[str] = []
    page.on(
        "request",
        lambda r: fetched.append(r.url) if not r.url.startswith((site.url, "data:", "blob:")) else 0,
    )
    page.add_init_script(f"localStorage.setItem('rs-owner', '{owner}')")
    page.goto(site.url)
    expect(page.locator("#run")).to_be_visible(timeout=30_000)
    page.locator("#pages [role=tab]:visible").nth(5).click()
    expect(page.locator("#history")).to_contain_text("onerror", timeout=30_000)
    page.locator("#history button").first.click()
    expect(page.locator("#history-chosen")).to_contain_text("onerror", timeout=30_000)
    page.locator("#history-load").click()
    page.locator("#pages [role=tab]:visible").nth(0).click()
    expect(page.locator("#prompt textarea")).to_have_value(SCRIPT, timeout=30_000)
    expect(page.locator("#vid-orig-verdict")).to_contain_text("onerror")
    page.locator("#pages [role=tab]:visible").nth(3).click()
    name = "<img src=x onerror=window.pwned=1>.zip"
    (tmp_path / name).write_bytes(b"no zip")
    page.locator("#review-open input[type=file]").set_input_files(tmp_path / name)
    expect(page.locator("[data-testid=toast-body]").first).to_contain_text("onerror", timeout=30_000)
    assert page.evaluate("window.pwned") is None
    assert fetched == [], "the page fetched something from elsewhere"
    context.close()
