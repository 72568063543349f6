"""Pairs of text and image in the app, on a tiny image-to-video model of real classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import compare, open_page, served, unfold
from PIL import Image
from playwright.sync_api import Browser, expect
from test_cli import run

from refusal_core.edit import load_edit
from refusal_core.io.files import write_json
from refusal_core.io.video import load_video
from refusal_core.models.families.family import DEFAULTS_FILE
from refusal_core.models.tiny import tiny_model
from refusal_core.workbench.history import History
from refusal_core.workbench.workbench import Workbench

PRESETS = Path(__file__).resolve().parents[1] / "presets"
SIDES = (("unsafe", 220), ("safe", 60))
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Wan image-to-video pipeline on disk."""
    tiny = tiny_model("wan-i2v")
    defaults = replace(tiny.defaults, text_length=64)  # the presets' prompts are longer than a tiny model's
    tiny.pipeline.save_pretrained(tmp_path / "tiny-i2v")
    write_json(tmp_path / "tiny-i2v" / DEFAULTS_FILE, {"defaults": asdict(defaults)})
    return tmp_path / "tiny-i2v"


@pytest.fixture
def address(folder: Path, tmp_path: Path) -> Iterator[str]:
    """Serve the app on it."""
    bench = Workbench(str(folder))
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
    for side, red in SIDES:
        paths = [picture(tmp_path / f"{side}-{n}.png", red + n) for n in range(5)]
        page.locator(f"#images_{side} input[type=file]").set_input_files(paths)
        expect(page.locator(f"#images_{side}")).to_contain_text(f"{side}-4")
    page.locator("#start-image input[type=file]").set_input_files(picture(tmp_path / "start.png", 200))
    page.wait_for_selector("#start-image img")
    unfold(page, "expert")
    page.locator("#sites").get_by_label("cross-attention", exact=True).check()
    page.locator("#sites").get_by_label("text", exact=True).uncheck()
    compare(page)
    context.close()


def test_the_commands_take_images_of_the_pairs_and_of_the_video(
    folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """Where the texts of a pair are one and the same, only its images can make the edit."""
    pairs = []
    for n in range(3):
        images = [picture(tmp_path / f"{side}-{n}.png", red + 9 * n).name for side, red in SIDES]
        text = f"scene {n}"
        pairs.append(
            dict(zip(("unsafe", "safe", "unsafe_image", "safe_image"), (text, text, *images), strict=True))
        )
    preset = json.loads((PRESETS / "fire.json").read_text())
    preset["neutral"] = preset["neutral"][:4]  # as many as it takes, for the time they take
    write_json(tmp_path / "fire.json", preset)
    write_json(tmp_path / "pairs.json", {"pairs": pairs})
    words = ["--model", str(folder), "--preset", str(tmp_path / "fire.json")]
    words += ["--pairs", str(tmp_path / "pairs.json"), "--sites", "cross-attention"]
    made = tmp_path / "edit.safetensors"
    assert run(monkeypatch, "edit", *words, "--out", str(made)) == 0
    assert max(change.remove.norm() for change in load_edit(made).sites.values()) > 0
    videos = []
    for red in (10, 240):
        out = tmp_path / str(red)
        start = picture(tmp_path / f"start-{red}.png", red)
        assert run(monkeypatch, "compare", *words, "--image", str(start), "--out", str(out)) == 0
        videos.append(load_video(out / "original.mp4")[0].frames)
    assert not np.array_equal(*videos), "the videos start from their images"
