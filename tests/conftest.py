"""Shared models: a tiny random pipeline of the real classes, and the bundled toy model."""

from __future__ import annotations

import gc
import signal
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fake_server import SECRET, FakeServer
from playwright.sync_api import Browser, Page, expect, sync_playwright

import refusal_core as rc
from refusal_core.evaluate.judges.vision_settings import KEY
from refusal_core.models.model import Model, wrap_pipeline
from refusal_core.toyworld import world
from refusal_core.toyworld.training.saving import DEFAULTS

if TYPE_CHECKING:
    from refusal_core.workbench.history import History
from refusal_core.workbench.workbench import Workbench

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell sets it for what it starts with &
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The longest first: else the last one runs alone, and the other process waits for minutes.
LONG = "pages killed evaluate load families end_to_end cli studio workbench sweep".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first; those of a file stay in their order."""
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their place: a packed file holds the time, and the two workers' names must be alike."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def own_data(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that one test keeps is found by another, nor by whoever runs the tests."""
    folder = tmp_path_factory.getbasetemp() / "data" / uuid.uuid4().hex
    monkeypatch.setenv("REFUSAL_STUDIO_DATA", str(folder))


@pytest.fixture(scope="session")
def tiny() -> Model:
    """The toy model's classes with random weights and the toy world's words."""
    from refusal_core.toyworld import pipeline

    torch.manual_seed(0)
    parts = {part: pipeline.build(pipeline.WAN, part) for part in ("vae", "text_encoder", "transformer")}
    built = pipeline.assemble(pipeline.WAN, **parts)
    for parameter in built.transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    defaults = replace(DEFAULTS, steps=4)
    return replace(wrap_pipeline(built, "tiny"), defaults=defaults)


@pytest.fixture(scope="session")
def toy() -> Model:
    """The bundled model."""
    return rc.load_model("toyworld")


@pytest.fixture
def unchanged(tiny: Model) -> Iterator[None]:
    """Fail the test if any weight of the tiny model is not bit for bit what it was."""
    before = {n: p.detach().clone() for n, p in tiny.pipeline.transformer.named_parameters()}
    yield
    for name, parameter in tiny.pipeline.transformer.named_parameters():
        assert torch.equal(parameter, before[name]), name


@pytest.fixture(scope="session")
def fire() -> rc.Concept:
    """Three fire pairs and twelve neutral prompts, without reading a preset."""
    scenes = world.scenes_of("preset")
    pairs = tuple(
        rc.PromptPair(replace(s, concept="fire").caption(i), s.caption()) for i, s in enumerate(scenes[:3])
    )
    return rc.Concept("fire", pairs, tuple(s.caption(0, i % 3) for i, s in enumerate(scenes[10:22])))


# --- the app, served, and a browser -------------------------------------------------------------------

SHOWN = "['#vid-orig', '#vid-edit'].every(p => document.querySelector(p + ' video')?.readyState >= 2)"


@pytest.fixture(scope="session")
def workbench() -> Iterator[Workbench]:
    """The app's door to the bundled model."""
    from refusal_core.workbench.workbench import Workbench

    bench = Workbench("toyworld")
    yield bench
    bench.close()


@contextmanager
def served(workbench: Workbench, runs: History, **options: Any) -> Iterator[str]:
    """Serve the app, and clear up after Gradio, which leaves sockets and a loop to the collector."""
    import screenshots

    with screenshots.served(workbench, runs, **options) as address:
        yield address
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="session")
def url(workbench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app on the bundled model."""
    from refusal_core.workbench.history import History

    with served(workbench, History(tmp_path_factory.mktemp("runs"))) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from screenshots import ARGUMENTS, chromium_path

    path, quiet = chromium_path(), ["--disable-background-networking", "--disable-component-update"]
    arguments = [*ARGUMENTS, *quiet, "--no-first-run"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A fresh page in its own context; the test fails on any console error."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    fresh = context.new_page()
    errors: list[str] = []
    fresh.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    fresh.on("pageerror", lambda e: errors.append(str(e)))
    open_page(fresh, url)
    yield fresh
    context.close()
    assert not errors


def open_page(page: Page, url: str) -> None:
    """Open the app and wait until its form is filled and its opening example, where it has one, is there."""
    page.goto(url)
    expect(page.locator("#run")).to_be_visible(timeout=30_000)
    expect(page.locator("#prompt textarea")).not_to_have_value("")
    if page.locator("#vid-orig-verdict [data-outcome]").count():
        page.wait_for_function(SHOWN, timeout=30_000)


def unfold(page: Page, *names: str) -> None:
    """Open parts of the page that are folded at first, such as the expert's settings."""
    for name in names:
        page.locator(f"#{name} > button.label-wrap").click()


def compare(page: Page) -> None:
    """Press Compare and wait for both videos."""
    page.locator("#run").click()
    page.wait_for_selector("#status [data-state=done]", timeout=120_000)
    page.wait_for_function(SHOWN, timeout=30_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fake = FakeServer()
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.shutdown()
    fake.server_close()
    thread.join()
