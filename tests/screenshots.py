"""Pictures of every page in both widths and themes, for those who work on the looks. Needs playwright."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refusal_core.errors import MissingExtraError
from refusal_core.progress import Progress, silent
from refusal_core.studio.build import build_app, launch_kwargs
from refusal_core.studio.limits import PRIVATE, Limits
from refusal_core.workbench.history import History
from refusal_core.workbench.workbench import Workbench

WIDTHS = {"wide": (1440, 900), "phone": (390, 844)}
THEMES = ("light", "dark")
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"]
SLOW = 180_000  # milliseconds


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(workbench: Workbench, runs: History, limits: Limits = PRIVATE, **options: Any) -> Iterator[str]:
    """Serve the app as ``app.py`` does, on a free port of this machine, while the block runs."""
    app = build_app(workbench, runs, limits)
    where = {"server_name": "127.0.0.1", "server_port": free_port(), "quiet": True}
    _, address, _ = app.launch(prevent_thread_lock=True, **where, **options, **launch_kwargs(limits))
    try:
        yield address
    finally:
        app.close()


def chromium_path() -> str:
    """Return where Chromium is; raises MissingExtraError where there is none."""
    path = os.environ.get("REFUSAL_CHROMIUM") or shutil.which("chromium")
    if path is None:
        raise MissingExtraError("Chromium is not here: apt-get install chromium, or set REFUSAL_CHROMIUM.")
    return path


def take(folder: Path, model: str = "toyworld-language", progress: Progress = silent) -> list[Path]:
    """Serve the app on a bundled model and take a picture of each page, filled, in each width and theme.

    Raises:
        MissingExtraError: playwright or Chromium is not installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as e:
        raise MissingExtraError("Screenshots need playwright: pip install playwright.") from e
    path = chromium_path()
    folder.mkdir(parents=True, exist_ok=True)
    workbench, paths = Workbench(model), []
    with tempfile.TemporaryDirectory() as runs, served(workbench, History(Path(runs))) as address:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
            cases = [(width, theme) for width in WIDTHS for theme in THEMES]
            for number, (width, theme) in enumerate(cases):
                progress(number / len(cases), f"{width}, {theme}")
                wide, high = WIDTHS[width]
                context = browser.new_context(viewport={"width": wide, "height": high})
                paths += _pages(context.new_page(), f"{address}?__theme={theme}", folder, f"{width}-{theme}")
                context.close()
            browser.close()
    workbench.close()
    return paths


def _pages(page: Any, address: str, folder: Path, case: str) -> list[Path]:
    """Fill every page as a visitor would and take its picture."""
    taken: list[Path] = []

    def shoot(name: str) -> None:
        page.evaluate("document.querySelectorAll('img').forEach(image => { image.loading = 'eager' })")
        page.wait_for_timeout(600)  # videos show their first frames
        target = folder / f"{name}-{case}.png"
        page.screenshot(path=target, full_page=True, animations="disabled")
        taken.append(target)

    page.goto(address)
    page.wait_for_selector("#run", timeout=SLOW)
    shoot("first")
    for name, fill in STEPS:
        fill(page)
        shoot(name)
    return taken


def _compare(page: Any) -> None:
    page.locator("#run").click()
    page.wait_for_selector("#status [data-state=done]", timeout=SLOW)


def _expert(page: Any) -> None:
    page.locator("#more button.label-wrap").click()
    page.locator("#seeds-run").click()
    page.wait_for_selector("#status [data-state=done] >> text=4 / 4", timeout=SLOW)
    page.locator("#expert > button.label-wrap").click()
    page.locator("#map-make").click()
    page.wait_for_selector("#map button", timeout=SLOW)


def _sweep(page: Any) -> None:
    _tab(page, 1)
    page.locator("#sweep-run").click()
    page.wait_for_selector("#sweep-status [data-state=done]", timeout=SLOW)


def _evaluate(page: Any) -> None:
    _tab(page, 2)
    page.locator("#evaluate-run").click()
    page.wait_for_selector("#evaluate-status [data-state=done]", timeout=SLOW)


def _review(page: Any) -> None:
    _tab(page, 3)
    page.locator("#review-make").click()
    page.wait_for_selector("#vote-a video", timeout=SLOW)


def _export(page: Any) -> None:
    _tab(page, 4)
    page.locator("#export-run").click()
    page.wait_for_selector("#export-status [data-state=done]", timeout=SLOW)


def _history(page: Any) -> None:
    _tab(page, 5)
    page.wait_for_selector("#history img", timeout=SLOW)


def _tab(page: Any, number: int) -> None:
    page.locator("#pages [role=tab]:visible").nth(number).click()


STEPS: tuple[tuple[str, Callable[[Any], None]], ...] = (
    ("workbench", _compare),
    ("expert", _expert),
    ("sweep", _sweep),
    ("evaluate", _evaluate),
    ("review", _review),
    ("export", _export),
    ("history", _history),
)
