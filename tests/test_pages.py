"""Every page of the app in a real browser: what it promises, by mouse and by keyboard, in both themes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from conftest import compare, open_page, unfold
from playwright.sync_api import Browser, Page, expect

from refusal_core.concepts import list_presets
from refusal_core.io.video import load_video
from refusal_core.recipe import plain_recipe
from refusal_core.studio.texts import TEXT
from refusal_core.workbench import tiles
from refusal_core.workbench.examples import EXAMPLES, load_examples
from refusal_core.workbench.history import History
from refusal_core.workbench.review import make_pack, save_pack
from refusal_core.workbench.values import JudgedVideo
from refusal_core.workbench.workbench import Workbench

pytestmark = pytest.mark.filterwarnings("default")
SLOW = 180_000
SCRIPT = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
# Findings in Gradio's own markup that the app cannot reach; everything else must be clean.
KNOWN = {
    "aria-allowed-attr": ".dataframe, table, [role=grid]",
    "aria-prohibited-attr": ".empty",  # where a file or code will be
    "label": "input[type=file]",
}


def tab(page: Page, number: int) -> None:
    """Turn to a page, which is made then; nobody types before it is drawn."""
    page.locator("#pages [role=tab]:visible").nth(number).click()
    page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


@pytest.fixture
def phone(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    fresh = context.new_page()
    open_page(fresh, url)
    yield fresh
    context.close()


def fits(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# --- a first visit ----------------------------------------------------------------------------------


def test_a_fresh_page_shows_a_readable_before_and_after_without_a_click(page: Page) -> None:
    for pane, told in (("#vid-orig", "shows fire"), ("#vid-edit", "shows no concept")):
        page.wait_for_function(f"document.querySelector('{pane} video')?.currentTime > 0.3", timeout=30_000)
        assert page.evaluate(f"getComputedStyle(document.querySelector('{pane} video')).filter") == "none"
        expect(page.locator(f"{pane}-verdict")).to_contain_text(told)


def test_each_example_is_one_click_away(page: Page, workbench: Workbench) -> None:
    cards = page.locator("#cards button")
    expect(cards).to_have_count(len(workbench.presets()))
    for place, preset in enumerate(workbench.presets()):
        expect(cards.nth(place)).to_contain_text(preset.category)
        cards.nth(place).click()
        expect(page.locator("#prompt textarea")).to_have_value(preset.prompt, timeout=30_000)
        expect(page.locator("#vid-orig-verdict")).to_contain_text(f"shows {preset.concept.name}")
        expect(page.locator("#vid-edit-verdict")).to_contain_text("shows no concept")
        page.wait_for_function(
            f"['#vid-orig', '#vid-edit'].every(p => document.querySelector(p + ' video')?.src"
            f".includes('{preset.concept.name}'))",
            timeout=30_000,
        )


def test_the_examples_are_small_and_of_the_presets_as_they_are(workbench: Workbench) -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < 800_000
    named = json.loads((EXAMPLES / "toyworld-language" / "examples.json").read_text(encoding="utf-8"))
    for entry, preset in zip(named, list_presets("toyworld-language"), strict=True):
        assert (entry["original"]["outcome"], entry["unlearned"]["outcome"]) == ("unsafe", "safe")
        recipe = load_video(EXAMPLES / "toyworld-language" / f"{entry['preset']}-unlearned.mp4")[1]
        assert recipe["prompt"] == preset.prompt and recipe["subspace"]["rank"] == preset.recommended["rank"]
    for card, preset in zip(load_examples(workbench), workbench.presets(), strict=True):
        assert (card.original.outcome, card.unlearned.outcome) == ("unsafe", "safe")
        assert card.original.prompt == card.unlearned.prompt == preset.prompt
        made_with = json.loads(json.dumps(plain_recipe(card.request.recipe)))
        for video in (card.original, card.unlearned):
            recipe = load_video(video.path)[1]
            steps = (
                "capture",
                "subspace",
                "edit",
            )  # settings that are newer than a recipe are at their defaults
            known = {n: v for n, v in made_with.items() if n in recipe and n not in steps}
            known |= {
                n: {k: v for k, v in made_with[n].items() if k in recipe[n]} for n in steps if n in recipe
            }
            assert recipe == recipe | known


def test_no_text_is_empty() -> None:
    assert all(value.strip() for value in TEXT.values())


# --- the workbench ----------------------------------------------------------------------------------


def test_the_spectrum_follows_a_slider_without_the_model(page: Page, workbench: Workbench) -> None:
    unfold(page, "expert")
    page.locator("#spectrum-read").click()
    expect(page.locator("#spectrum li")).not_to_have_count(0, timeout=60_000)
    expect(page.locator("#spectrum li.used")).to_have_count(1)
    slider = page.locator("#rank input[type=range]")
    slider.focus()
    page.evaluate("window.began = performance.now()")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelectorAll('#spectrum li.used').length === 2", timeout=10_000)
    print(f"slider to spectrum: {page.evaluate('performance.now() - window.began'):.0f} ms")
    expect(page.locator("#status")).to_contain_text(TEXT["stale"])
    expect(page.locator("#title-2 [data-chip=stale]")).to_have_count(1)


def test_a_phrase_writes_the_pairs_and_they_can_be_brought_back(page: Page) -> None:
    first = page.locator("#pairs [data-testid=cell-0-0]")
    unfold(page, "pairs-more", "phrase-more")
    before = first.text_content() or ""
    prompt = page.locator("#prompt textarea").input_value()
    page.locator("#phrase input, #phrase textarea").fill("covered in lava")
    page.locator("#phrase-write").click()
    expect(page.locator("[data-testid=toast-body]")).to_contain_text("'lava' is none of this model's")
    page.locator("#phrase input, #phrase textarea").fill("in flames")
    page.locator("#phrase-write").click()
    expect(first).to_contain_text("in flames", timeout=30_000)
    expect(page.locator("#rows-state")).to_contain_text("5 pairs")
    expect(page.locator("#prompt textarea")).to_have_value(re.compile("in flames"))
    page.locator("#undo-preset").click()
    expect(first).to_have_text(before)
    expect(page.locator("#prompt textarea")).to_have_value(prompt)


def test_pasted_rows_join_the_table_and_odd_ones_are_warned_of(page: Page) -> None:
    unfold(page, "pairs-more", "paste-more")
    page.locator("#pasted textarea").fill(
        "a red circle on fire\ta red circle\na red cross\tthe sky over grass"
    )
    page.locator("#paste-add").click()
    expect(page.locator("#rows-state")).to_contain_text("7 pairs", timeout=10_000)
    expect(page.locator("#rows-state .odd")).to_contain_text("Row 7")
    expect(page.locator("#pasted textarea")).to_have_value("")
    page.locator("#remove-pair").click()
    expect(page.locator("#rows-state")).to_contain_text("6 pairs", timeout=10_000)


def test_several_concepts_show_their_cosines_and_go_together(page: Page) -> None:
    unfold(page, "expert", "also-more")
    page.locator("#also").get_by_label("Bleeding: gore").check()
    page.locator("#cosines-run").click()
    expect(page.locator("#cosines td span")).to_have_count(4, timeout=60_000)
    page.locator("#prompt textarea").fill("a large blue square bleeding moving right over sky")
    compare(page)
    expect(page.locator("#vid-edit-verdict")).to_contain_text("shows no concept")


def test_the_model_picker_says_what_a_model_needs_before_it_loads(page: Page) -> None:
    unfold(page, "model-more")
    page.locator("#model-look").click()
    expect(page.locator("#model-state")).to_contain_text("GB of weights in float32", timeout=30_000)
    page.locator("#model input").fill("/nowhere")
    page.locator("#model input").press("Enter")
    page.locator("#model-load").click()
    expect(page.locator("[data-testid=toast-body]").first).to_contain_text("cannot be loaded", timeout=60_000)
    compare_button = page.locator("#run")
    expect(compare_button).to_be_enabled()


def test_other_prompts_and_other_seeds_fill_their_grids(page: Page) -> None:
    page.locator("#more button.label-wrap").click()
    page.locator("#seeds-run").click()
    page.wait_for_selector("#status [data-state=done] >> text=4 / 4", timeout=SLOW)
    assert page.locator("#seeds-tiles video").count() == 4
    page.locator("#others-run").click()
    page.wait_for_selector("#status [data-state=done] >> text=8 / 8", timeout=SLOW)
    assert page.locator("#others-tiles video").count() == 8


def test_every_control_is_reached_by_the_keyboard(page: Page) -> None:
    unfold(page, "model-more", "pairs-more", "expert")
    page.locator("#map-make").click()
    page.wait_for_selector("#map button", timeout=SLOW)
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    wanted = {
        "cards", "model", "model-look", "preset", "pairs", "add-pair", "method",
        "sites", "first-layer", "rank", "strength", "anchor", "spectrum-read", "map-make", "map", "prompt",
        "seed", "run", "stop", "views", "seeds", "seeds-run", "others-run",
    }  # fmt: skip
    reached: set[str] = set()
    page.locator("#more button.label-wrap").click()
    for _ in range(260):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "(() => { const e = document.activeElement, names = [];"
            " for (let n = e; n; n = n.parentElement) if (n.id) names.push(n.id); return names; })()"
        )
        reached |= set(found)
        if wanted <= reached:
            break
    assert not wanted - reached


# --- the other pages --------------------------------------------------------------------------------


def test_a_cell_of_a_sweep_loads_its_setting_and_stopping_keeps_the_cells(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tiles._cell

    def slow(*arguments: Any, **named: Any) -> Iterator[JudgedVideo]:
        time.sleep(1.5)  # else a busy browser comes too late to stop anything
        return make(*arguments, **named)

    tab(page, 1)
    page.locator("#axis_rows-values textarea").fill("1,3")
    page.locator("#axis_columns-values textarea").fill("0,1")
    page.locator("#sweep-run").click()
    page.wait_for_selector("#sweep-status [data-state=done]", timeout=SLOW)
    cells, grid = page.locator("#sweep-grid button"), page.locator("#sweep-grid")
    expect(cells).to_have_count(4)
    expect(page.locator("#sweep-grid video")).to_have_count(5)  # the original once
    assert page.evaluate("[...document.querySelectorAll('#sweep-grid video')].every(v => v.readyState >= 2)")
    assert grid.get_by_role("columnheader").all_text_contents() == ["λ 0", "λ 1"]
    assert grid.get_by_role("rowheader").all_text_contents() == ["k 1", "k 3"]
    expect(grid.locator("figure b")).to_have_text(TEXT["shown"])
    expect(cells.nth(0).locator("b")).to_have_text(TEXT["shown"])  # strength 0 changes nothing
    expect(grid.get_by_label("rank 3, strength 1: concept not shown")).to_have_count(1)
    cells.nth(3).click()
    expect(page.locator("#sweep-status")).to_contain_text(f"{TEXT['sweep_loaded']} rank 3, strength 1")
    tab(page, 0)
    expect(page.locator("#rank input[type=number]")).to_have_value("3")
    expect(page.locator("#strength input[type=number]")).to_have_value("1")
    tab(page, 1)
    page.locator("#axis_rows-values textarea").fill("1-8 (+1)")
    monkeypatch.setattr(tiles, "_cell", slow)
    page.locator("#sweep-run").click()
    expect(page.locator("#sweep-status")).to_contain_text("2 / 16", timeout=SLOW)
    page.locator("#sweep-stop").click()
    page.wait_for_selector("#sweep-status [data-state=stopped]", timeout=SLOW)
    expect(cells.nth(1)).to_be_visible()
    assert 2 <= cells.count() < 16


def test_an_evaluation_fills_its_table_and_gives_a_report(page: Page, tmp_path: Path) -> None:
    tab(page, 2)
    page.locator("#videos input[type=number]").fill("4")
    for name in ("cpca", "uce"):
        page.locator("#methods").get_by_label(name, exact=True).uncheck()
    page.locator("#evaluate-run").click()
    page.wait_for_selector("#evaluate-status [data-state=done]", timeout=SLOW)
    shown = "this edit 0 of 8, original 8 of 8, placebo 8 of 8; ordinary prompts kept: 100%."
    expect(page.locator("#evaluate-outcome")).to_contain_text(shown)
    expect(page.locator("#evaluate-table")).not_to_be_visible()
    unfold(page, "evaluate-more")
    expect(page.locator("#evaluate-table tbody tr")).to_have_count(3 * 4)
    expect(page.locator("#evaluate-plots svg")).to_have_count(2)
    with page.expect_download() as caught:
        page.locator("#report-json").click()
    report = json.loads(Path(caught.value.path()).read_text())
    assert {c["method"] for c in report["cells"]} == {"original", "this edit", "placebo"}


def test_blind_votes_are_counted_and_the_pack_can_be_handed_on(page: Page, tmp_path: Path) -> None:
    tab(page, 3)
    page.locator("#review-count input[type=number]").fill("2")
    page.locator("#review-make").click()
    page.wait_for_selector("#vote-a video", timeout=SLOW)
    assert page.evaluate("getComputedStyle(document.querySelector('#vote-a video')).filter") == "none"
    page.locator("#vote-next").click()
    expect(page.locator("[data-testid=toast-body]").first).to_contain_text(TEXT["vote_choose"])
    expect(page.locator("#vote-shown")).to_contain_text("Which one shows 'fire'?")
    for _ in range(2):
        expect(page.locator("#tally .rs-said")).to_have_count(0)  # it would tell which is the original
        page.locator("#vote-shown").get_by_label("neither").check()
        page.locator("#vote-better").get_by_label(TEXT["vote_same"]).check()
        page.locator("#vote-next").click()
        expect(page.locator("#vote-shown input:checked")).to_have_count(0)
    expect(page.locator("#review-status")).to_contain_text(TEXT["vote_done"])
    expect(page.locator("#tally")).to_contain_text("1 voter(s). Concept shown: original 0% [0%, 79%]")
    with page.expect_download() as caught:
        page.locator("#pack-save").click()
    pack = tmp_path / "pack.zip"
    caught.value.save_as(pack)
    page.locator("#review-open input[type=file]").set_input_files(pack)
    expect(page.locator("#vote-place")).to_contain_text("Pair 1 of 2", timeout=30_000)
    expect(page.locator("#tally .rs-said")).to_have_count(0)


@pytest.mark.security
def test_a_strangers_pack_runs_nothing(page: Page, workbench: Workbench, tmp_path: Path) -> None:
    pack = make_pack(workbench, workbench.request("fire"), [("a red circle", True)], 1, session="stranger")
    nasty = replace(pack, items=(replace(pack.items[0], prompt=SCRIPT),))
    path = save_pack(nasty, tmp_path / "<img src=x onerror=window.pwned=1>.zip")
    tab(page, 3)
    page.locator("#review-open input[type=file]").set_input_files(path)
    expect(page.locator("#vote-place")).to_contain_text("onerror", timeout=30_000)
    broken = tmp_path / f"{SCRIPT[:20]}.zip"
    broken.write_text("no zip")
    page.locator("#review-open").get_by_label("Clear").click()
    page.locator("#review-open input[type=file]").set_input_files(broken)
    expect(page.locator("[data-testid=toast-body]").first).to_contain_text("is not a sound review pack")
    assert page.evaluate("window.pwned") is None


def test_an_export_can_be_downloaded_with_its_lines(page: Page) -> None:
    tab(page, 4)
    page.locator("#form").get_by_label(TEXT["form_lora"]).check()
    page.locator("#export-run").click()
    page.wait_for_selector("#export-status [data-state=done]", timeout=SLOW)
    expect(page.locator("#snippet")).to_contain_text("load_lora_weights")
    with page.expect_download() as caught:
        page.locator("#export-file").click()
    assert caught.value.suggested_filename.endswith(".safetensors")


def test_a_run_started_at_once_is_kept_too(browser: Browser, url: str) -> None:
    """The browser's id must not come later than the first click."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(url)
    compare(page)
    expect(page.locator("[data-testid=toast-body]")).to_have_count(0)
    tab(page, 5)
    expect(page.locator("#history .thumbnail-item")).to_have_count(1, timeout=30_000)
    context.close()


def test_a_run_is_kept_and_its_edit_saved_once_it_is_called_done(
    browser: Browser, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the disk: who leaves the page at that word, or waits on the history page, has the run."""
    add, save, kept, saved = History.add, Workbench.save_edit, [], []

    def slowly(self: History, *arguments: Any) -> str:
        time.sleep(2)
        kept.append(add(self, *arguments))
        return kept[-1]

    def late(self: Workbench, *arguments: Any, **named: Any) -> Path:
        time.sleep(2)
        saved.append(save(self, *arguments, **named))
        return saved[-1]

    monkeypatch.setattr(History, "add", slowly)
    monkeypatch.setattr(Workbench, "save_edit", late)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    open_page(page, url)
    compare(page)
    assert len(kept) == len(saved) == 1
    context.close()
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    open_page(page, url)
    page.locator("#run").click()
    tab(page, 5)
    expect(page.locator("#history .thumbnail-item")).to_have_count(1, timeout=60_000)
    context.close()


def test_the_history_stays_over_a_reload_and_loads_into_the_workbench(browser: Browser, url: str) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    open_page(page, url)
    unfold(page, "expert")
    page.locator("#method").get_by_text(TEXT["method_rv"]).click()
    compare(page)
    page.reload()
    expect(page.locator("#run")).to_be_visible(timeout=30_000)
    unfold(page, "expert")
    expect(page.locator("#method").get_by_label(TEXT["method_whitened"])).to_be_checked()
    tab(page, 5)
    expect(page.locator("#history .thumbnail-item")).to_have_count(1, timeout=30_000)
    page.locator("#history .thumbnail-item").click()
    page.locator("#history-left").click()
    page.wait_for_selector("#history-a video", timeout=30_000)
    page.locator("#history-load").click()
    tab(page, 0)
    expect(page.locator("#method").get_by_label(TEXT["method_rv"])).to_be_checked(timeout=30_000)
    page.wait_for_function("document.querySelector('#vid-edit video')?.readyState >= 2", timeout=30_000)
    tab(page, 5)
    page.locator("#history-clear").click()
    expect(page.locator("#history-none")).to_be_visible()
    other = browser.new_context().new_page()
    open_page(other, url)
    tab(other, 5)
    expect(other.locator("#history-none")).to_be_visible()
    other.context.close()
    context.close()


# --- looks ------------------------------------------------------------------------------------------


def test_filled_pages_do_not_scroll_sideways_on_a_phone(phone: Page) -> None:
    unfold(phone, "model-more", "pairs-more", "expert")
    phone.locator("#map-make").click()
    phone.wait_for_selector("#map button", timeout=SLOW)
    compare(phone)
    assert fits(phone)
    for number in range(1, 6):
        tab(phone, number)
        phone.wait_for_timeout(300)
        assert fits(phone), number
    tab(phone, 1)
    phone.locator("#axis_columns-values textarea").fill("0,0.5,1")
    phone.locator("#sweep-run").click()
    expect(phone.locator("#sweep-grid button").nth(1)).to_be_visible(timeout=SLOW)
    phone.locator("#sweep-stop").click()
    assert fits(phone)
    tab(phone, 2)
    phone.locator("#videos input[type=number]").fill("4")
    phone.locator("#evaluate-run").click()
    unfold(phone, "evaluate-more")
    phone.wait_for_selector("#evaluate-table tr", timeout=SLOW)
    assert fits(phone)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, url: str, theme: str) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    open_page(page, f"{url}?__theme={theme}")
    compare(page)
    unfold(page, "model-more", "pairs-more", "expert")
    page.locator("#map-make").click()
    page.wait_for_selector("#map button", timeout=SLOW)
    page.add_script_tag(path=AXE_FILE_PATH)
    for number in range(6):
        tab(page, number)
        page.wait_for_timeout(700)  # colours fade
        assert not findings(page), (theme, number, findings(page))
    context.close()


def findings(page: Page) -> list[str]:
    """Return serious and critical findings outside Gradio's own markup, each with where it is."""
    result = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa']})")
    found = []
    for violation in result["violations"]:
        if violation["impact"] not in ("serious", "critical"):
            continue
        for node in violation["nodes"]:
            place = node["target"][0]
            known = KNOWN.get(violation["id"])
            if known and page.evaluate("([p, s]) => !!document.querySelector(p)?.closest(s)", [place, known]):
                continue
            found.append(f"{violation['id']} at {place}: {node['failureSummary'][:160]}")
    return found
