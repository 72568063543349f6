"""Every rule of the guard, under a path prefix and without, on a Space's settings, with and without login."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from test_public import CUT_OFF, JSON, Site, bench, in_public, upload

from refusal_core.studio import guard
from refusal_core.workbench.history import History
from refusal_core.workbench.workbench import Workbench

__all__ = ["bench"]
pytestmark = [pytest.mark.security, pytest.mark.filterwarnings("default")]
SPACE = {"SYSTEM": "spaces", "SPACE_ID": "someone/studio", "SPACE_HOST": "someone-studio.hf.space"}


@dataclass(frozen=True)
class Place:
    """A running app, where it is shown and to whom."""

    site: Site
    prefix: str
    on_space: bool
    login: bool

    def doors(self, path: str) -> Iterator[str]:
        """Yield the ways to a path: as a proxy sends it that strips the prefix, and one that does not."""
        yield path
        if self.prefix:
            yield self.prefix + path
            yield self.prefix.replace("s", "%73") + path


SETTINGS = list(itertools.product(("", "/studio"), (False, True), (False, True)))


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda s: f"{s[0] or '/'}-space={s[1]}-login={s[2]}")
def place(
    request: pytest.FixtureRequest, bench: Workbench, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    prefix, on_space, login = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ROOT_PATH", prefix)
        for name, value in SPACE.items() if on_space else ():
            patch.setenv(name, value)
        auth = ("ada", "a long password") if login else None
        with in_public(bench, History(tmp_path_factory.mktemp("runs")), auth=auth) as site:
            yield Place(site, prefix, on_space, login)


@pytest.mark.parametrize(
    "path",
    [
        "/monitoring", "/monitoring/summary", "/docs", "/openapi.json", "/redoc", "/gradio_api/deep_link",
        "/gradio_api/proxy=https://example.com/a", "/gradio_api/component_server", "/gradio_api/vibe-code",
        "/gradio_api/process_recording", "/gradio_api/profiling/traces", "/gradio_api/stream/x",
        "/gradio_api/dev/reload", "/gradio_api/custom_component/1/client/component/index.js",
        "/gradio_api/run-history", "/gradio_api/runs", "/gradio_api/%64eep_link",
        *(f"/gradio_api/file={quote(a, safe='')}" for a in ("https://example.com/a", "//a/b", "\\\\a\\b")),
        "/gradio_api/file=https://example.com/a", "/gradio_api/file/https:/example.com/a",
    ],
)  # fmt: skip
def test_shut_doors_are_shut(place: Place, path: str) -> None:
    for door in place.doors(path):
        for method in ("GET", "POST"):
            found = place.site.ask(door, method, JSON, "{}" if method == "POST" else None)
            assert found.status == 404 and "location" not in found.headers, (method, door, found)
            assert found.text == "There is nothing here.", door


def test_tools_ask_for_a_login(place: Place) -> None:
    for path in ("/gradio_api/mcp", "/gradio_api/mcp/", "/gradio_api/mcp/schema", "/gradio_api/mcp/sse"):
        for door in place.doors(path):
            found = place.site.ask(door, "POST", JSON, "{}")
            assert (found.text == "There is nothing here.") is place.login, (door, found)


def test_nothing_of_the_app_is_open_without_the_login(place: Place) -> None:
    if not place.login:
        return
    for path in ("/config", "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/file=app.py"):
        for door in place.doors(path):
            assert place.site.ask(door).status in (401, 403, 404), door
    for path in ("call/compare", "queue/join", "run/compare", "api/compare"):
        for door in place.doors(f"/gradio_api/{path}"):
            assert place.site.post(door, {"data": []}).status == 401, door


def test_an_upload_may_be_large_and_a_call_may_not(place: Place) -> None:
    large = {"content-type": "multipart/form-data; boundary=x", "content-length": str(guard.MAX_UPLOAD + 1)}
    for door in place.doors("/gradio_api/upload"):
        assert place.site.ask(door, "POST", large).status in (413, CUT_OFF), door
        if not place.login:
            found = upload(place.site, "two.zip", bytes(2 << 20), door)
            assert found.status == 200, (door, found)
            (path,) = json.loads(found.text)
            for file in place.doors(f"/gradio_api/file={path}"):
                back = place.site.ask(file)
                assert back.status == 200
                assert back.headers["content-security-policy"].startswith("sandbox"), file
                assert back.headers["content-disposition"].startswith("attachment")
    for door in place.doors("/gradio_api/queue/join"):
        assert place.site.post(door, {"data": ["x" * guard.MAX_BODY]}).status in (413, CUT_OFF), door


def test_other_sites_get_nothing(place: Place) -> None:
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/mcp/"):
        for door in place.doors(path):
            found = place.site.ask(door, headers={"origin": "https://evil.example"})
            assert found.status == 403, door
            assert "access-control-allow-origin" not in found.headers
    own = place.site.ask("/", headers={"origin": "https://someone-studio.hf.space"})
    assert own.status == (200 if place.on_space else 403)
    framed = "https://huggingface.co" in own.headers["content-security-policy"]
    assert framed is place.on_space is ("x-frame-options" not in own.headers)


def test_a_whole_address_as_prefix_names_the_apps_own_site(
    monkeypatch: pytest.MonkeyPatch, bench: Workbench, tmp_path: Path
) -> None:
    """A proxy that sends its own name on as Host would else shut out the app's own page."""
    monkeypatch.setenv("GRADIO_ROOT_PATH", "https://studio.example/tools")
    with in_public(bench, History(tmp_path)) as site:
        assert site.ask("/config", headers={"origin": "https://studio.example"}).status == 200
        for origin in ("https://evil.example", "https://studio.example.evil"):
            assert site.ask("/config", headers={"origin": origin}).status == 403, origin
        assert site.ask("/openapi.json").status == 404
