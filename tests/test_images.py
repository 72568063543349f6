"""Pairs of text and image in the app, on a tiny image-to-video model of real classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import compare, open_page, served
from PIL import Image
from playwright.sync_api import Browser, expect

from refusal_core.files import write_json
from refusal_core.models.family import DEFAULTS_FILE
from refusal_core.models.tiny import build
from refusal_core.workbench import History, Workbench

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Serve the app on a tiny Wan image-to-video pipeline."""
    tiny = build("wan-i2v")
    defaults = replace(tiny.defaults, text_length=64)  # the presets' prompts are longer than a tiny model's
    tiny.pipeline.save_pretrained(tmp_path / "tiny-i2v")
    write_json(tmp_path / "tiny-i2v" / DEFAULTS_FILE, {"defaults": asdict(defaults)})
    bench = Workbench(str(tmp_path / "tiny-i2v"))
    with served(bench, History(tmp_path / "runs")) as found:
        yield found
    bench.close()


def picture(path: Path, red: int) -> Path:
    Image.fromarray(np.full((32, 32, 3), (red, 40, 40), np.uint8)).save(path)
    return path


def test_images_stand_beside_the_pairs_and_start_the_videos(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    """To this model all prompts are the same unknown words: only the images can tell the sides apart."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    open_page(page, address)
    expect(page.locator("#images")).to_be_visible()
    for side, red in (("unsafe", 220), ("safe", 60)):
        paths = [picture(tmp_path / f"{side}-{n}.png", red + n) for n in range(5)]
        page.locator(f"#images_{side} input[type=file]").set_input_files(paths)
        expect(page.locator(f"#images_{side}")).to_contain_text(f"{side}-4")
    page.locator("#start-image input[type=file]").set_input_files(picture(tmp_path / "start.png", 200))
    page.wait_for_selector("#start-image img")
    page.locator("#sites").get_by_label("cross-attention", exact=True).check()
    page.locator("#sites").get_by_label("text", exact=True).uncheck()
    compare(page)
    context.close()
