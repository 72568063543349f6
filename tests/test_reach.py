"""How near the first page is: what stands on it before a click, and how far its controls are, in figures."""

from __future__ import annotations

import pytest
from conftest import open_page
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.filterwarnings("default")
# All that moved by itself; what moves within half a second of a click or a key does not count.
SHIFTS = """
window.shift = 0;
new PerformanceObserver(list => list.getEntries().forEach(entry => {
  if (!entry.hadRecentInput) window.shift += entry.value;
})).observe({type: 'layout-shift', buffered: true});
"""
VISIBLE = """within => [...document.querySelectorAll(within + ' :is(button, input, textarea, select)')]
  .filter(e => e.getClientRects().length && getComputedStyle(e).visibility === 'visible').length"""


def fresh(browser: Browser, url: str, width: int, height: int) -> Page:
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.add_init_script(SHIFTS)
    open_page(page, url)
    return page


def bottom(page: Page, selector: str) -> float:
    """Return where an element ends, in pixels from the window's top."""
    box = page.locator(selector).bounding_box()
    assert box is not None, selector
    return box["y"] + box["height"]


def tab_stops(page: Page, target: str, most: int = 60) -> int:
    """Return how often Tab is pressed from the top of a page until a control is reached."""
    for count in range(1, most + 1):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", target):
            return count
    raise AssertionError(f"{target} is not reached by {most} tab stops")


def test_the_result_and_the_form_are_in_reach_on_a_wide_screen(browser: Browser, url: str) -> None:
    page = fresh(browser, url, 1440, 900)
    for pane, told in (("#vid-orig", "shows fire"), ("#vid-edit", "shows no concept")):
        expect(page.locator(f"{pane}-verdict")).to_contain_text(told)  # at no click
    shown_to = max(bottom(page, place) for place in ("#vid-edit-verdict", "#player", "#status", "#cards"))
    figures = {
        "page height": page.evaluate("document.documentElement.scrollHeight"),
        "header height": page.locator("#head").bounding_box()["height"],  # type: ignore[index]
        "controls of the form": page.evaluate(VISIBLE, "#left"),
        "controls on the page": page.evaluate(VISIBLE, "body"),
        "layout shift": round(page.evaluate("shift"), 3),
        "tab stops to Compare": tab_stops(page, "#run"),
    }
    print(f"clicks to the first before and after: 0; result ends at {shown_to:.0f} px; {figures}")
    assert shown_to <= 900, "videos, verdicts, transport, outcome and examples need no scrolling"
    most = (1000, 56, 20, 50, 0.05, 12)
    assert all(value <= bound for value, bound in zip(figures.values(), most, strict=True)), figures
    page.context.close()


def test_the_result_stays_in_sight_beside_the_experts_settings(browser: Browser, url: str) -> None:
    page = fresh(browser, url, 1440, 900)
    page.locator("#expert > button.label-wrap").click()
    page.locator("#map-make").scroll_into_view_if_needed()
    assert page.evaluate("scrollY") > 300
    top = page.locator("#vid-edit").bounding_box()
    assert top is not None and 0 <= top["y"] < 200
    page.context.close()


def test_a_phone_has_prompt_result_and_the_rest_in_one_column(browser: Browser, url: str) -> None:
    page = fresh(browser, url, 390, 844)
    places = ("#prompt", "#run", "#vid-orig", "#status", "#cards", "#preset", "#rank")
    ends = [bottom(page, place) for place in places]
    wide = page.evaluate("document.documentElement.scrollWidth")
    figures = {"page height": page.evaluate("document.documentElement.scrollHeight"), "width": wide}
    print(f"phone: {figures}, layout shift {page.evaluate('shift'):.3f}")
    assert wide <= 390 and figures["page height"] <= 3000 and page.evaluate("shift") <= 0.05
    assert ends == sorted(ends) and ends[1] < 500, "what is asked for, the result, then the rest"
    for pane in ("#vid-orig", "#vid-edit"):  # the picture is whole: its download stands above it
        icon, video = (page.locator(f"{pane} {part}").first for part in (".icon-button-wrapper", "video"))
        assert bottom(page, f"{pane} .icon-button-wrapper") <= video.bounding_box()["y"]  # type: ignore[index]
        icon.scroll_into_view_if_needed()
        middle = "const b = e.getBoundingClientRect(), x = b.x + b.width / 2, y = b.y + b.height / 2"
        assert icon.evaluate(f"e => {{ {middle}; return e.contains(document.elementFromPoint(x, y)) }}")
    page.context.close()
