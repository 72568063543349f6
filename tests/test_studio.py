"""The app on the bundled model, driven by gradio_client and by a real headless Chromium."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from conftest import compare, open_page, unfold
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Browser, Page, expect

from refusal_core.errors import InputError
from refusal_core.io.video import load_video
from refusal_core.progress import Progress, silent
from refusal_core.settings import SamplingSettings, recipe_knobs
from refusal_core.studio import edit
from refusal_core.studio.compare import verdict
from refusal_core.studio.concept import rows_message, rows_of
from refusal_core.studio.form import Form
from refusal_core.studio.texts import TEXT
from refusal_core.workbench.values import EditRequest, JudgedVideo, PairNote
from refusal_core.workbench.workbench import Workbench

# Gradio and its client raise warnings of their own libraries, which are not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")
PROMPT = "a large blue square on fire moving right over sky"


def test_one_click_on_a_fresh_page_gives_two_videos_that_play_in_step(page: Page) -> None:
    compare(page)
    for pane in ("#vid-orig", "#vid-edit"):
        page.wait_for_function(
            f"(() => {{ const v = document.querySelector('{pane} video');"
            " return !v.paused && v.muted && v.loop && v.currentTime > 0.3; })()",
            timeout=15_000,
        )
    drifts = []
    for _ in range(6):
        drifts.append(
            page.evaluate(
                "Math.abs(document.querySelector('#vid-orig video').currentTime"
                " - document.querySelector('#vid-edit video').currentTime)"
            )
        )
        page.wait_for_timeout(150)
    assert sorted(drifts)[2] < 0.1  # at the loop's seam one of them is ahead for a moment
    expect(page.locator("#vid-orig-verdict")).to_contain_text("concept shown")
    expect(page.locator("#vid-edit-verdict")).to_contain_text("concept not shown")


def test_what_is_not_judged_clean_is_blurred_until_asked_for(page: Page) -> None:
    """But for the bundled models: their world is harmless."""
    blur = "getComputedStyle(document.querySelector('{} video')).filter"
    assert page.evaluate(blur.format("#vid-orig")) == "none"
    video = JudgedVideo(Path("a.mp4"), "", "not judged", 1.0)
    for pane, outcome in (("#vid-orig", "unsafe"), ("#vid-edit", "not judged")):
        shown = verdict(replace(video, outcome=outcome))
        page.evaluate(
            "([e, h]) => { document.querySelector(e + '-verdict .prose').innerHTML = h }", [pane, shown]
        )
        assert "blur" in page.evaluate(blur.format(pane))
    page.locator("[data-rs=blur]").click()
    assert page.evaluate(blur.format("#vid-orig")) == page.evaluate(blur.format("#vid-edit")) == "none"
    page.locator("[data-rs=blur]").click()
    clean = verdict(replace(video, outcome="safe"))
    page.evaluate("h => { document.querySelector('#vid-edit-verdict .prose').innerHTML = h }", clean)
    assert page.evaluate(blur.format("#vid-edit")) == "none"


def test_a_preset_fills_table_and_prompt_and_marks_the_result_stale(page: Page, workbench: Workbench) -> None:
    star = next(p for p in workbench.presets() if p.concept.name == "star-logo")
    unfold(page, "pairs-more", "expert")
    page.locator("#preset input").click()
    page.get_by_role("option", name="Star logo").click()
    expect(page.locator("#prompt textarea")).to_have_value(star.prompt)
    expect(page.locator("#anchor").get_by_label(TEXT[f"anchor_{star.recommended['anchor']}"])).to_be_checked()
    expect(page.locator("#pairs [data-testid=cell-0-0]")).to_contain_text(star.concept.pairs[0].unsafe)
    expect(page.locator("#status")).to_contain_text(TEXT["stale"])


def test_a_row_that_cannot_be_used_gets_its_sentence_under_the_table(page: Page) -> None:
    unfold(page, "pairs-more")
    cell = page.locator("#pairs [data-testid=cell-1-1]")
    cell.dblclick()
    page.keyboard.press("Control+A")
    page.keyboard.type("red " * 40)
    page.keyboard.press("Enter")
    expect(page.locator("#rows-state")).to_contain_text("Row 2:", timeout=10_000)
    expect(page.locator("#rows-state")).to_contain_text("this model reads 24")


@pytest.mark.security
def test_prompts_are_never_run_as_html(page: Page) -> None:
    script = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
    attack = script + " red" * 20  # too long, so that it comes back in a message
    unfold(page, "pairs-more")
    cell = page.locator("#pairs [data-testid=cell-0-0]")
    cell.dblclick()
    page.keyboard.press("Control+A")
    page.keyboard.type(attack)
    page.keyboard.press("Enter")
    expect(page.locator("#rows-state")).to_contain_text("Row 1:", timeout=10_000)
    page.locator("#prompt textarea").fill(attack)
    page.locator("#run").click()
    page.wait_for_selector("#status [data-state=failed]", timeout=60_000)
    assert page.evaluate("window.pwned") is None


def test_a_setting_changed_after_a_result_marks_it_stale(page: Page) -> None:
    compare(page)
    changed = page.locator("#strip .rs-changed")
    expect(changed).to_be_hidden()
    unfold(page, "expert")
    page.locator("#method").get_by_text(TEXT["method_rv"]).click()
    expect(page.locator("#status")).to_contain_text(TEXT["stale"])
    expect(page.locator("#strip")).to_contain_text(TEXT["method_rv"])
    page.locator("#pages [role=tab]:visible").nth(1).click()
    expect(changed).to_be_visible()  # on every page


def test_a_click_on_the_map_picks_kind_and_layer(page: Page) -> None:
    unfold(page, "expert")
    page.locator("#map-make").click()
    cells = page.locator("#map button")
    # The text entry is one place; self-attention has not yet seen the concept in the first layer.
    expect(cells).to_have_count(5 * 8 + 1 - 1, timeout=120_000)
    page.locator("#map button[data-kind=cross-attention][data-layer='3']").click()
    expect(page.locator("#sites").get_by_label("cross-attention", exact=True)).to_be_checked()
    expect(page.locator("#sites").get_by_label("text", exact=True)).not_to_be_checked()
    expect(page.locator("#first-layer input[type=number]")).to_have_value("3")
    page.locator("#map button[data-kind=text][data-layer='5']").click(modifiers=["Shift"])
    expect(page.locator("#sites").get_by_label("text", exact=True)).to_be_checked()
    expect(page.locator("#last-layer input[type=number]")).to_have_value("5")
    expect(page.locator("#first-layer input[type=number]")).to_have_value("3")
    page.get_by_text(TEXT["figures"]).click()
    expect(page.locator("#figures")).to_contain_text("transformer.blocks.0.attn2.to_v", timeout=30_000)


def test_stopping_ends_the_job_and_the_next_one_works(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Workbench.make

    def slow(self: Workbench, request: EditRequest, progress: Progress = silent, **more: Any) -> Any:
        for _ in range(600):  # a minute, which Stop ends at any step
            progress(0.1, "Reading")
            time.sleep(0.1)
        return make(self, request, progress, **more)

    monkeypatch.setattr(Workbench, "make", slow)
    page.locator("#seed input").fill("4711")
    page.locator("#run").click()
    page.wait_for_selector("#status [data-state=working]", timeout=30_000)
    page.locator("#stop").click()
    page.wait_for_selector("#status [data-state=stopped]", timeout=30_000)
    page.wait_for_timeout(1500)
    assert page.locator("#status [data-state=stopped]").count() == 1
    monkeypatch.undo()
    compare(page)


@pytest.mark.security
def test_sessions_do_not_see_each_others_results(browser: Browser, url: str) -> None:
    contexts = [browser.new_context() for _ in range(2)]
    first, second = (c.new_page() for c in contexts)
    for page in (first, second):
        open_page(page, url)
    compare(first)
    expect(second.locator("#status")).to_contain_text(TEXT["example_first"])
    sources = [p.locator("#vid-edit video").get_attribute("src") for p in (first, second)]
    assert sources[0] != sources[1]
    for context in contexts:
        context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_has_no_sideways_scroll_and_comparing_comes_first(
    browser: Browser, url: str, theme: str
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    open_page(page, f"{url}?__theme={theme}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#run").bounding_box()["y"] < 844
    context.close()


# --- the endpoints for programs --------------------------------------------------------------------


@pytest.mark.security
def test_only_the_public_endpoints_are_offered(url: str) -> None:
    api = Client(url, verbose=False).view_api(return_format="dict", print_info=False)
    assert set(api["named_endpoints"]) == {"/edit", "/compare", "/evaluate", "/export"}
    assert not api["unnamed_endpoints"]


def test_every_setting_is_in_the_form_and_an_argument_of_every_endpoint(url: str) -> None:
    """And nothing but its field says so."""
    settings = {knob.name for knob in recipe_knobs()}
    config = json.loads(urlopen(f"{url}config").read())
    shown = [component["props"].get("elem_id") for component in config["components"]]
    assert all(shown.count(name) == 1 for name in settings - {"layers"} | {"first-layer", "last-layer"})
    buttons = [c["props"] for c in config["components"] if c["type"] == "downloadbutton"]
    assert all(props["elem_id"] for props in buttons), "a button that nobody laid out"
    api = Client(url, verbose=False).view_api(return_format="dict", print_info=False)
    for endpoint in api["named_endpoints"].values():
        arguments = {given["parameter_name"]: given for given in endpoint["parameters"]}
        assert all(arguments[name]["parameter_has_default"] for name in settings)


def test_a_program_changes_any_setting_by_name(url: str) -> None:
    client = Client(url, verbose=False, download_files=False)
    wanted = {"sites": "text,cross-attention", "layers": "1-2", "strength": 0.5, "center": "no"}
    _, figures = client.predict("fire", api_name="/edit", **wanted)
    assert {site.split(".")[2] for site in figures["sites"] if ".blocks." in site} == {"1", "2"}


def test_the_compare_endpoint_gives_two_videos_and_verdicts(url: str, tmp_path: Path) -> None:
    client = Client(url, verbose=False, download_files=tmp_path)
    original, unlearned, before, after = client.predict("fire", PROMPT, 7, api_name="/compare")
    paths = [Path(v["video"] if isinstance(v, dict) else v) for v in (original, unlearned)]
    recipes = [load_video(path)[1] for path in paths]
    assert [r["shows"] for r in recipes] == ["original", "unlearned"]
    assert all(r["prompt"] == PROMPT and r["sampling"]["seed"] == 7 for r in recipes)
    assert "shows fire" in before
    assert "no concept" in after


@pytest.mark.security
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("fire", "", 1), "The prompt is empty; write a prompt."),
        (("nothing", PROMPT, 1), "There is no preset 'nothing'"),
        (("fire", "red " * 60, 1), "this model reads 24: shorten the prompt."),
        (("fire", PROMPT, -5), "seed is -5; it must lie from 0"),
        (("fire", PROMPT, 1, "magic"), "method 'magic' is not known"),
        (("fire", PROMPT, 1, "whitened", 9999), "rank is 9999; it must lie from 1 to 128."),
        (("fire", PROMPT, 1, "whitened", 1, -1), "strength is -1; it must lie from 0 to 2."),
    ],
)
def test_bad_input_to_the_endpoint_gets_one_sentence(
    url: str, arguments: tuple[object, ...], sentence: str
) -> None:
    with pytest.raises(AppError) as caught:
        Client(url, verbose=False).predict(*arguments, api_name="/compare")
    assert sentence in str(caught.value)
    assert "Traceback" not in str(caught.value)


# --- the workbench ---------------------------------------------------------------------------------


def _request(workbench: Workbench, **changes: object) -> EditRequest:
    return workbench.request("fire", values=changes)


@pytest.mark.security
def test_the_shared_model_is_never_left_edited(workbench: Workbench) -> None:
    layers = workbench.cached("toyworld").model.layers
    before = {n: layer.weight.data_ptr() for n, layer in layers.items()}
    *_, last = workbench.compare(_request(workbench), PROMPT, SamplingSettings(3), session="one")
    assert last.unlearned is not None
    assert {n: layer.weight.data_ptr() for n, layer in layers.items()} == before


@pytest.mark.security
def test_a_session_that_goes_takes_its_files_along(workbench: Workbench) -> None:
    *_, last = workbench.compare(_request(workbench), PROMPT, SamplingSettings(3), session="two")
    kept = workbench.save_edit(_request(workbench), session="three")
    assert last.side_by_side is not None and last.side_by_side.exists()
    workbench.forget("two")
    assert not last.side_by_side.exists()
    assert kept.exists()
    workbench.forget("../three")  # a session id steers no path
    assert kept.exists()


def test_a_second_comparison_of_one_prompt_reuses_the_original(workbench: Workbench) -> None:
    steps: list[str] = []
    *_, _first = workbench.compare(_request(workbench), PROMPT, SamplingSettings(11), session="four")
    tell = lambda fraction, sentence: steps.append(sentence)  # noqa: E731
    start = time.monotonic()
    *_, _second = workbench.compare(
        _request(workbench, strength=0.5), PROMPT, SamplingSettings(11), tell, session="four"
    )
    told = [key for key, _ in groupby(steps)]  # a step tells twice, once for each pass of guidance
    assert sum("step 1 of" in s for s in told) == 1  # one video was made, not two
    assert time.monotonic() - start < 60


@pytest.mark.security
def test_rows_of_the_table_are_read_and_their_faults_escaped() -> None:
    assert rows_of([["a", " b "], ["", None], ["c"]]) == (("a", "b"), ("c", ""))
    message = rows_message([PairNote(), PairNote(error="bad <b>", unsafe=(("<i>", True),))])
    assert "Row 2: bad &lt;b&gt;" in message
    assert "&lt;i&gt;" in message
    assert "Row 1" not in message


def test_the_programs_of_the_readme_run_against_the_app(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What the README says about the endpoints and the MCP server, on the port of the tests."""
    folder = Path(__file__).resolve().parents[1] / "refusal_core" / "studio"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    client, agent = (snippet for snippet in snippets if "127.0.0.1:7860" in snippet)
    with ThreadPoolExecutor(1) as other:  # in this thread the browser's loop runs
        for snippet in (client, agent):
            code = compile(snippet.replace("http://127.0.0.1:7860", url.rstrip("/")), "README.md", "exec")
            other.submit(exec, code, {}).result()
    said = capfd.readouterr().out
    assert "shows fire" in said and "shows no concept" in said
    assert "['edit', 'compare', 'evaluate', 'export']" in said


def test_an_empty_seed_is_not_taken_for_another(workbench: Workbench) -> None:
    form = Form(workbench, {"seed": "seed", "start-image": "image"})
    assert form.sampling({"seed": 0, "image": None}).seed == 0
    with pytest.raises(InputError, match="The seed is empty"):
        form.sampling({"seed": None, "image": None})


def test_a_setting_that_may_be_left_out_is_left_out_by_the_form() -> None:
    """A slider has no empty state: it once sent its lowest value, a capture of one frame of 16 x 16."""
    optional = [knob for knob in recipe_knobs() if knob.optional and knob.input in ("whole", "number")]
    assert {"capture_frames", "capture_width", "neutral_count"} <= {knob.name for knob in optional}
    for knob in optional:
        made = edit.widget(knob, None)
        assert made.value is None and made.preprocess(made.postprocess(None)) is None, knob.name
