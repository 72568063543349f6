"""The app says only what is so: one verdict a concept, suites of the user's own pairs, outcomes in words."""

from __future__ import annotations

import threading
import time

import pytest
from conftest import unfold
from playwright.sync_api import Page, expect

from refusal_core.errors import InputError
from refusal_core.recipe import EditRequest
from refusal_core.settings import SamplingSettings
from refusal_core.studio.compare import verdict
from refusal_core.workbench.cached import CachedModel
from refusal_core.workbench.evaluating import SuiteRequest, evaluate, suite_of
from refusal_core.workbench.history import History
from refusal_core.workbench.review import review_prompts
from refusal_core.workbench.values import Comparison
from refusal_core.workbench.workbench import Workbench

pytestmark = pytest.mark.filterwarnings("default")
RED = [("a small red circle over sand", "a small blue circle over sand"), ("a red cross", "a white cross")]
BLEEDS = "a large blue square bleeding moving right over sky"
OWNER = "0123456789abcdef" * 2


def own(workbench: Workbench, *rows: tuple[str, str]) -> EditRequest:
    return workbench.request("fire", rows=rows)


def compared(workbench: Workbench, request: EditRequest, prompt: str) -> Comparison:
    *_, result = workbench.compare(request, prompt, SamplingSettings(7), session="truth")
    return result


# --- verdicts ---------------------------------------------------------------------------------------


def test_each_erased_concept_has_a_verdict_of_its_own(workbench: Workbench, tmp_path) -> None:
    request = workbench.request("fire", further=[("bleeding", 1.0)])
    result = compared(workbench, request, BLEEDS)
    assert result.original.seen == (("fire", "safe"), ("bleeding", "unsafe"))
    assert result.original.outcome == "unsafe", "one of them is shown"
    assert {outcome for _, outcome in result.unlearned.seen} == {"safe"}
    shown = verdict(result.original)
    assert "<b data-outcome='safe'>fire: concept not shown</b>" in shown
    assert "<b data-outcome='unsafe'>bleeding: concept shown</b>" in shown
    run = History(tmp_path).add(OWNER, request, result, BLEEDS)
    assert History(tmp_path).run(OWNER, run).original.seen == result.original.seen


@pytest.mark.parametrize(
    ("rows", "name", "outcome"),
    [
        (RED, "red", "unsafe"),
        ([("a red circle on fire", "a red circle"), ("a cross on fire", "a cross")], "on-fire", "unsafe"),
        ([("a circle moving left", "a circle moving up"), ("a cross left", "a cross")], "left", "safe"),
        ([("a purple circle", "a circle"), ("a purple cross", "a cross")], "purple", "safe"),
        ([("a striped circle", "a circle"), ("a striped cross", "a cross")], "striped", "not judged"),
        ([("a circle on fire", "a circle"), ("a cross bleeding", "a cross")], "own-pairs", "not judged"),
    ],
)  # fmt: skip
def test_own_pairs_are_judged_by_what_they_add_where_the_judge_reads_it(
    workbench: Workbench, rows: list[tuple[str, str]], name: str, outcome: str
) -> None:
    request = own(workbench, *rows)
    assert request.recipe.concept.name == name
    video = workbench.cached().original(
        "a large red cross on fire moving right over night", SamplingSettings(3)
    )
    (verdict,) = workbench.verdicts(request, video).values()
    assert verdict.outcome == outcome, verdict


# --- Evaluate and Review ------------------------------------------------------------------------------


def test_evaluate_and_review_ask_for_the_users_own_concept(workbench: Workbench) -> None:
    request = own(workbench, *RED)
    suite = suite_of(request, "toyworld", 6)
    assert all("red" in item.prompt.split() for item in suite["concept"].items)
    assert not any("red" in item.prompt.split() for item in suite["neutral"].items)
    *_, last = evaluate(workbench, request, SuiteRequest("toyworld", 2, ("rv",)), session="truth")
    rates = {row[0]: row for row in last.rows if row[1] == "concept"}
    assert set(rates) == {"original", "this edit", "rv"}
    prompts = review_prompts(workbench, request, 6)
    assert [unsafe for prompt, unsafe in prompts if "red" in prompt.split()][:3] == [True] * 3
    on_fire = own(workbench, *[(f"{safe} in flames", safe) for _, safe in RED])
    assert {group.aspect for group in suite_of(on_fire, "adversarial", 2)} == {"fire"}


def test_what_no_judge_knows_is_not_evaluated_but_may_be_reviewed(workbench: Workbench) -> None:
    request = own(workbench, *[(f"{safe} striped", safe) for _, safe in RED])
    with pytest.raises(InputError, match=r"cannot tell 'striped'.*let people vote"):
        next(evaluate(workbench, request, SuiteRequest("toyworld", 2), session="truth"))
    assert [p for p, unsafe in review_prompts(workbench, request, 4) if unsafe] == [
        pair.unsafe for pair in request.recipe.concept.pairs
    ]


def test_several_concepts_are_evaluated_each_in_its_group(workbench: Workbench) -> None:
    request = workbench.request("fire", further=[("bleeding", 1.0)])
    assert [group.aspect for group in suite_of(request, "toyworld", 2)][:2] == ["fire", "bleeding"]


# --- models are loaded when that is asked for, and nobody waits ---------------------------------------


def test_who_has_a_model_works_on_while_another_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    workbench, started, may_end = Workbench("toyworld"), threading.Event(), threading.Event()
    toy = workbench.cached()

    def slowly(*_: object) -> CachedModel:
        started.set()
        assert may_end.wait(30)
        return toy

    monkeypatch.setattr("refusal_core.workbench.workbench.CachedModel", slowly)
    for look in (workbench.facts, workbench.presets, lambda name: workbench.request("fire", name)):
        with pytest.raises(InputError, match="'other' is not loaded; press Load model first"):
            look("other")
    assert not started.is_set(), "looking loads nothing"
    loading = threading.Thread(target=workbench.cached, args=("other",))
    loading.start()
    assert started.wait(30)
    began = time.monotonic()
    assert workbench.cached() is toy and workbench.request("fire").preset == "fire"
    assert time.monotonic() - began < 5
    may_end.set()
    loading.join()
    assert workbench.facts("other").title == workbench.facts().title
    workbench.close()


# --- on the page --------------------------------------------------------------------------------------


def test_passing_the_menu_of_presets_overwrites_nothing_and_a_choice_can_be_undone(page: Page) -> None:
    unfold(page, "pairs-more")
    cell = page.locator("#pairs [data-testid=cell-0-0]")
    cell.dblclick()
    page.keyboard.press("Control+A")
    page.keyboard.type("a red circle ablaze")
    page.keyboard.press("Enter")
    page.locator("#prompt textarea").fill("a prompt of my own")
    page.locator("#preset input").focus()
    page.keyboard.press("Tab")
    page.locator("#preset input").click()
    page.keyboard.press("Escape")
    page.wait_for_timeout(800)
    expect(cell).to_contain_text("a red circle ablaze")
    page.locator("#preset input").blur()
    page.locator("#preset input").click()
    page.get_by_role("option", name="Star logo").click()
    expect(cell).not_to_contain_text("ablaze", timeout=10_000)
    page.locator("#undo-preset").click()
    expect(cell).to_contain_text("a red circle ablaze", timeout=10_000)
    expect(page.locator("#prompt textarea")).to_have_value("a prompt of my own")
    expect(page.locator("#preset input")).to_have_value("On fire: violence and terrorism")


def test_the_original_is_seen_while_the_second_video_is_made(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlearned = CachedModel.unlearned

    def slowly(*arguments: object) -> object:
        time.sleep(6)
        return unlearned(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CachedModel, "unlearned", slowly)
    example = page.evaluate("document.querySelector('#vid-orig video').currentSrc")
    page.locator("#run").click()
    made = "old => ![undefined, '', old].includes(document.querySelector('#vid-orig video')?.currentSrc)"
    page.wait_for_function(made, arg=example, timeout=60_000)
    page.wait_for_timeout(500)
    on_top = page.evaluate(
        "(() => { const v = document.querySelector('#vid-orig video'); v.scrollIntoView({block: 'center'});"
        " const b = v.getBoundingClientRect();"
        " return document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2) === v; })()"
    )
    assert page.locator("#status [data-state=working]").count() == 1
    assert on_top
    page.wait_for_selector("#status [data-state=done]", timeout=60_000)
