"""A comparison that comes from elsewhere, in a file or a link: the same form, as strict as what is typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import pytest
from conftest import open_page, unfold
from playwright.sync_api import Browser, Page, expect

from refusal_core.errors import FileError, InputError
from refusal_core.io.video import load_recipe
from refusal_core.settings import SamplingSettings
from refusal_core.studio.texts import TEXT
from refusal_core.workbench.opening import NAMES, link_of, open_link, open_recipe
from refusal_core.workbench.values import Comparison, EditRequest
from refusal_core.workbench.workbench import Workbench

pytestmark = pytest.mark.filterwarnings("default")
PROMPT = 'a red circle, "on fire" & moving left over sand'
ROWS = [
    ('a "red" circle in smoke', 'a "red" circle'),
    ("a blue square in smoke; dark", "a blue square; dark"),
]
VALUES = {
    "method": "cpca", "rank": 3, "strength": 0.1 + 0.2, "relative": False, "layers": "0-1", "anchor": "zero",
    "sites": "text,feed-forward", "keep": "star-logo", "shrinkage": 1e-6, "capture_steps": 2,
}  # fmt: skip
GOOD = {"link": "1", "model": "toyworld", "preset": "fire", "prompt": "a red circle", "seed": "3"}


def test_a_link_gives_back_the_same_edit_prompt_and_seed(workbench: Workbench) -> None:
    asked = workbench.request("fire", None, ROWS, VALUES, [("zorbo", 0.35), ("bleeding", 1.0)])
    query = link_of(workbench, asked, PROMPT, SamplingSettings(2**31 - 1))
    opened = open_link(workbench, dict(parse_qsl(query, keep_blank_values=True)))
    assert opened.request == asked
    assert (opened.prompt, opened.seed) == (PROMPT, 2**31 - 1)
    plain = dict(
        parse_qsl(link_of(workbench, workbench.request("fire"), "a red circle", SamplingSettings(3)))
    )
    assert plain == GOOD  # what the preset says anyway is left out


def test_a_setting_that_can_be_changed_can_be_linked(workbench: Workbench) -> None:
    assert {*workbench.request("fire").recipe.values()} <= {*NAMES}


@pytest.mark.security
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"link": "2"}, "of another version"),
        ({"preset": "nothing"}, "There is no preset 'nothing'"),
        ({"model": "/etc/passwd"}, "'/etc/passwd' is not loaded; press Load model first"),
        ({"rank": "0"}, "rank is 0; it must lie from 1"),
        ({"strength": "nan"}, "strength must be a number"),
        ({"layers": "99"}, "Layer 99 does not exist"),
        ({"method": "__import__"}, "is not known"),
        ({"seed": "-1"}, "which is no whole number"),
        ({"seed": "9" * 30}, "seed is"),
        ({"seed": "٣"}, "which is no whole number"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "red " * 600}, "tokens"),
        ({"pairs": "one column"}, "has 1 columns"),
        ({"pairs": "a\tb\n" * 30}, "20 is its limit"),
        ({"also": "zorbo:much"}, "is no strength"),
        ({"also": "zorbo:inf"}, "strength must be a number"),
        ({"image": "/etc/passwd"}, "which is no setting"),
        ({"pairs": "x" * 9000}, "of another version"),
    ],
)
def test_a_hostile_or_stale_link_gets_one_sentence(
    workbench: Workbench, change: dict[str, str], sentence: str
) -> None:
    open_link(workbench, {**GOOD, "__theme": "dark", "utm_source": "mail"})
    with pytest.raises(InputError, match=sentence):
        open_link(workbench, {**GOOD, **change})


def test_images_and_long_tables_do_not_go_into_a_link(workbench: Workbench) -> None:
    asked = workbench.request("fire")
    with pytest.raises(InputError, match="Images do not go into a link"):
        link_of(workbench, asked, PROMPT, SamplingSettings(image=Path("start.png")))
    with pytest.raises(InputError, match="too long for a link"):
        link_of(workbench, asked, "red " * 2000, SamplingSettings())


# --- a video that is dropped in ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(workbench: Workbench) -> Iterator[tuple[EditRequest, Comparison]]:
    asked = workbench.request("fire", None, None, {"rank": 3, "method": "rv"}, [("zorbo", 0.5)])
    *_, found = workbench.compare(asked, "a red circle", SamplingSettings(9), session="opening")
    yield asked, found


def test_a_video_gives_back_what_made_it(
    workbench: Workbench, made: tuple[EditRequest, Comparison], tmp_path: Path
) -> None:
    asked, found = made
    assert found.unlearned is not None
    opened = open_recipe(workbench, found.unlearned.path, "toyworld", "bleeding")
    assert (opened.request, opened.prompt, opened.seed, opened.left_out) == (asked, "a red circle", 9, ())
    told = load_recipe(found.unlearned.path)
    told["edits"][0]["concept"]["neutral"] = ["a blue square"]
    told["sampling"]["steps"] = 2
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(told))
    left = open_recipe(workbench, path, "toyworld", "fire").left_out
    assert left == ("ordinary prompts of its own", "steps, size or image of the video")
    told["fingerprint"]["weights"] = "0" * len(told["fingerprint"]["weights"])
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match="was made with 'toyworld', which is not the form's model"):
        open_recipe(workbench, path, "toyworld", "fire")
    for text in ("{}", "[]", "no json"):
        path.write_text(text)
        with pytest.raises((InputError, FileError), match=r"recipe\.json"):
            open_recipe(workbench, path, "toyworld", "fire")


def test_a_dropped_video_fills_the_form_and_can_be_undone(
    page: Page, made: tuple[EditRequest, Comparison], tmp_path: Path
) -> None:
    video = made[1].unlearned
    assert video is not None
    unfold(page, "open-more", "expert", "also-more", "pairs-more")
    (tmp_path / "notes.json").write_text('{"format": "<img src=x onerror=window.pwned=1>"}')
    page.locator("#open-file input[type=file]").set_input_files(tmp_path / "notes.json")
    expect(page.locator("#open-state [role=alert]")).to_contain_text("holds no recipe", timeout=30_000)
    page.locator("#open-file input[type=file]").set_input_files(video.path)
    expect(page.locator("#open-state")).to_contain_text(TEXT["opened"], timeout=30_000)
    expect(page.locator("#status")).to_contain_text(TEXT["opened_file"])
    expect(page.locator("#rank input[type=number]")).to_have_value("3")
    expect(page.locator("#seed input")).to_have_value("9")
    expect(page.locator("#prompt textarea")).to_have_value("a red circle")
    expect(page.locator("#method").get_by_label(TEXT["method_rv"])).to_be_checked()
    expect(page.locator("#also input:checked")).to_have_count(1)
    expect(page.locator("#strengths input, #strengths textarea")).to_have_value("0.5")
    page.locator("#undo-preset").click()
    expect(page.locator("#rank input[type=number]")).to_have_value("1")
    assert page.evaluate("window.pwned") is None


# --- links in the browser ---------------------------------------------------------------------------


def test_a_copied_link_opens_the_same_form_in_another_browser_and_runs_nothing(
    browser: Browser, url: str, workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    make = Workbench.make
    monkeypatch.setattr(Workbench, "make", lambda *a, **k: ran.append("made") or make(*a, **k))
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    open_page(page, url)
    page.locator("#strength input[type=number]").fill("0.5")
    page.locator("#strength input[type=number]").press("Tab")
    page.locator("#prompt textarea").fill("a blue square on fire")
    page.locator("#save-link").click()
    expect(page.locator("#link textarea, #link input").first).not_to_have_value("")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"{url}?link=1&") and "strength=0.5" in copied and "rank" not in copied
    assert "capture" not in copied  # what is left to the model stays so
    context.close()
    other = browser.new_context().new_page()
    other.goto(copied)
    expect(other.locator("#status")).to_contain_text(TEXT["opened_link"], timeout=30_000)
    expect(other.locator("#strength input[type=number]")).to_have_value("0.5")
    expect(other.locator("#prompt textarea")).to_have_value("a blue square on fire")
    expect(other.locator("#vid-orig-verdict")).to_contain_text(TEXT["no_video"])
    assert not ran and other.locator("#vid-orig video").count() == 0
    other.context.close()


@pytest.mark.security
def test_a_hostile_link_says_so_in_the_status_line_and_leaves_the_form(browser: Browser, url: str) -> None:
    page = browser.new_context().new_page()
    nasty = "<img src=x onerror=window.pwned=1>"
    page.goto(f"{url}?{urlencode({**GOOD, 'preset': nasty})}")
    expect(page.locator("#status [data-state=failed]")).to_contain_text("There is no preset", timeout=30_000)
    expect(page.locator("#rank input[type=number]")).to_have_value("1")
    assert page.evaluate("window.pwned") is None and page.locator("#status img").count() == 0
    page.context.close()


def test_a_link_for_a_model_that_is_not_loaded_waits_for_it(browser: Browser, url: str) -> None:
    page = browser.new_context().new_page()
    page.goto(f"{url}?{urlencode({**GOOD, 'model': 'toyworld-unet3d', 'rank': '4'})}")
    expect(page.locator("#status")).to_contain_text("press Load model first", timeout=30_000)
    unfold(page, "model-more")
    expect(page.locator("#model input")).to_have_value("toyworld-unet3d")
    page.locator("#model-load").click()
    expect(page.locator("#status")).to_contain_text(TEXT["opened_link"], timeout=90_000)
    expect(page.locator("#rank input[type=number]")).to_have_value("4")
    page.context.close()
