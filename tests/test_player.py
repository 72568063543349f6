"""The player on a small page of its own, driven by a real headless Chromium."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect
from screenshots import free_port

from refusal_core.io.video import Video, load_video, save_video
from refusal_core.studio import player
from refusal_core.studio.compare import verdict
from refusal_core.studio.theme import theme
from refusal_core.workbench.values import JudgedVideo

# Gradio and its client raise warnings of their own libraries, which are not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")
FRAMES, FRAME = 17, 1 / 8
AMBER, TEAL, PINK = (200, 120, 40), (20, 110, 100), (220, 90, 160)
PANES = ("#vid-orig", "#vid-edit")
LOOK = (
    "#vid-orig, #vid-edit { aspect-ratio: 1; height: auto !important; }"
    "#panes { flex-wrap: nowrap; } #panes > * { min-width: 0 !important; }"
)
# Each frame carries its number in five blocks, white for 1: it is read back from the pixels.
READ = """
window.shown = selector => {
  const canvas = document.createElement('canvas'), video = document.querySelector(selector + ' video');
  if (!video || video.readyState < 2 || video.seeking) return null;
  Object.assign(canvas, {width: 32, height: 32});
  const context = canvas.getContext('2d');
  context.imageSmoothingEnabled = false;
  context.drawImage(video, 0, 0, 32, 32);
  return [0, 1, 2, 3, 4].reduce(
    (sum, bit) => sum + (context.getImageData(3 + 6 * bit, 4, 1, 1).data[1] > 180 ? 2 ** bit : 0), 0);
};
window.both = frame => shown('#vid-orig') === frame && shown('#vid-edit') === frame;
window.videos = () => [...document.querySelectorAll('#vid-orig video, #vid-edit video')];
window.ready = count => videos().length === count && videos().every(v => v.readyState >= 2 && !v.seeking);
"""


def _clip(folder: Path, name: str, colour: tuple[int, int, int]) -> str:
    frames = np.zeros((FRAMES, 32, 32, 3), np.uint8)
    frames[:] = colour
    for number in range(FRAMES):
        for bit in range(5):
            level = 255 if number >> bit & 1 else 0
            frames[number, 2:7, 1 + 6 * bit : 6 + 6 * bit] = level
    return str(save_video(Video(frames, 8.0), folder / f"{name}.mp4"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("clips")
    colours = {"original": AMBER, "unlearned": TEAL, "other": PINK}
    return {name: _clip(folder, name, colour) for name, colour in colours.items()}


def _page(clips: dict[str, str]) -> gr.Blocks:
    first, second, third = clips.values()
    results = {"new": (second, third), "equal": (first, first), "alone": (first, None), "none": (None, None)}
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Textbox(label="Typed", elem_id="typed")
        gr.HTML(player.views())
        with gr.Row(elem_id="panes"):
            videos = []
            for kind, value, elem_id in (("original", first, "vid-orig"), ("unlearned", second, "vid-edit")):
                with gr.Column(elem_classes=["rs-pane", kind], min_width=100):
                    videos.append(
                        gr.Video(value, show_label=False, autoplay=True, loop=True, interactive=False,
                                 elem_id=elem_id)
                    )  # fmt: skip
        gr.HTML(player.bar())
        for name, values in results.items():
            gr.Button(name, elem_id=name).click(lambda v=values: v, None, videos)
        page.load(None, js=player.SCRIPT)
    return page


@pytest.fixture(scope="module")
def url(clips: dict[str, str]) -> Iterator[str]:
    page = _page(clips)
    _, address, _ = page.launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", server_port=free_port(), theme=theme(),
        css=LOOK + player.STYLE, run_history=False, enable_monitoring=False,
        allowed_paths=[str(Path(clips["original"]).parent)],
    )  # fmt: skip
    yield address
    page.close()


def _open(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.add_init_script(READ)
    page.goto(url)
    page.wait_for_function("ready(2) && document.querySelector('.rs-transport')?.dataset.view === 'side'")
    return page


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A fresh page, playing; the test fails on any console error."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    errors: list[str] = []
    context.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    context.on("weberror", lambda e: errors.append(str(e.error)))
    fresh = _open(context, url)
    fresh.wait_for_function("videos().every(v => !v.paused)")
    yield fresh
    context.close()
    assert not errors


def _button(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def _scrub(page: Page, frame: int) -> None:
    page.locator("[data-rs=scrub]").fill(str(frame * FRAME))


def _rest(page: Page, frame: int) -> None:
    """Pause both videos on a frame."""
    _button(page, "Pause")
    _scrub(page, frame)
    _wait_for_frame(page, frame)


def _wait_for_frame(page: Page, frame: int) -> None:
    page.wait_for_function(f"videos().every(v => v.paused) && both({frame})", timeout=10_000)
    expect(page.locator("[data-rs=frame-number]")).to_have_text(f"frame {frame + 1} of {FRAMES}")


def _reveal(page: Page) -> None:
    page.locator("[data-rs=blur]").click()
    expect(page.locator("body")).to_have_attribute("data-rs-reveal", "on")


def _pixel(page: Page, x: float, y: float = 0.7) -> tuple[int, ...]:
    """Return the colour that the stage shows at a place given as shares of its size."""
    image = Image.open(io.BytesIO(page.locator("[data-rs=frame]").screenshot(animations="disabled")))
    return image.convert("RGB").getpixel((int(x * image.width), int(y * image.height)))


def _is_near(seen: tuple[int, ...], colour: tuple[int, int, int]) -> bool:
    return max(abs(a - b) for a, b in zip(seen, colour, strict=True)) < 12


# --- in step ---------------------------------------------------------------------------------------


def test_both_videos_stay_within_a_frame_of_each_other_also_through_the_seam(page: Page) -> None:
    apart = page.evaluate(
        """() => new Promise(done => {
          const apart = []; let last = 0, seams = 0;
          const look = () => {
            const [a, b] = videos(), ahead = Math.abs(a.currentTime - b.currentTime);
            apart.push(Math.min(ahead, a.duration - ahead));
            if (a.currentTime < last) seams += 1;
            last = a.currentTime;
            seams < 2 ? requestAnimationFrame(look) : done(apart.sort((x, y) => x - y));
          };
          look();
        })"""
    )
    assert len(apart) > 20
    assert apart[-1] <= FRAME
    assert apart[len(apart) // 2] < FRAME / 3
    page.evaluate("videos()[1].currentTime = (videos()[0].currentTime + 1) % 2")  # knocked out of step
    page.wait_for_function(
        "(() => { const [a, b] = videos(), ahead = Math.abs(a.currentTime - b.currentTime);"
        f" return videos().every(v => !v.paused) && Math.min(ahead, a.duration - ahead) < {FRAME / 3}; }})()"
    )


def test_pausing_leaves_both_on_the_frame_that_was_told(page: Page) -> None:
    page.wait_for_function("videos()[0].currentTime > 0.5")
    _button(page, "Pause")
    page.wait_for_function("videos().every(v => v.paused && !v.seeking)")
    told = int(page.locator("[data-rs=frame-number]").text_content().split()[1]) - 1
    _wait_for_frame(page, told)
    for pane in PANES:  # a click on either video is a click on both
        page.locator(f"{pane} video").click()
        page.wait_for_function("videos().every(v => !v.paused)")
        page.locator(f"{pane} video").click()
        page.wait_for_function("videos().every(v => v.paused)")


def test_a_click_counts_though_something_else_happens_before_its_event(page: Page) -> None:
    """What a video tells of its last seek may come between the click and the start."""
    _rest(page, 10)
    page.evaluate("() => { videos()[0].click(); videos()[0].dispatchEvent(new Event('seeked')); }")
    page.wait_for_function("videos().every(v => !v.paused)")
    page.evaluate("() => { videos()[0].click(); videos()[1].dispatchEvent(new Event('seeked')); }")
    page.wait_for_function("videos().every(v => v.paused)")


def test_a_click_pauses_though_both_rest_for_a_moment_to_get_in_step(page: Page) -> None:
    page.wait_for_function("videos()[0].currentTime > 0.5")
    page.evaluate("""() => {
        const video = videos()[0];
        video.dispatchEvent(new KeyboardEvent('keydown', { key: 'Shift', bubbles: true }));
        video.dispatchEvent(new Event('seeking'));  // as of a jump by hand: both stop until they are there
        if (!video.paused) throw new Error('not brought in step');
        video.click();
    }""")
    expect(page.locator("[data-rs=play]")).to_have_attribute("aria-label", "Play")
    page.wait_for_timeout(600)
    assert page.evaluate("videos().every(v => v.paused)")


def test_scrubbing_puts_both_on_one_frame_and_playing_goes_on_from_there(page: Page) -> None:
    _rest(page, 10)
    expect(page.locator("[data-rs=time]")).to_have_text("0:01.25 / 0:02.12")
    box = page.locator("[data-rs=scrub]").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2)
    page.mouse.down()
    for share in (0.7, 0.1, 0.5):  # the frames in between may be skipped, the last one may not
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
    _wait_for_frame(page, 8)
    page.mouse.up()
    _button(page, "Play")
    _scrub(page, 3)
    page.wait_for_function("videos().every(v => !v.paused && v.currentTime >= 3 / 8)")


def test_a_step_is_exactly_one_frame_and_goes_round(page: Page) -> None:
    _rest(page, 15)
    for name, frame in (("forward", 16), ("forward", 0), ("back", 16), ("back", 15)):
        _button(page, f"One frame {name}")
        _wait_for_frame(page, frame)
    for _ in range(5):  # faster than the videos can follow: none is lost
        page.keyboard.press(",")
    _wait_for_frame(page, 10)


def test_speed_holds_for_both_and_for_the_next_videos(page: Page) -> None:
    # the one behind may run a few per cent faster for a moment
    slow = "videos().length === 2 && videos().every(v => Math.abs(v.playbackRate / {} - 1) < 0.07)"
    for name, speed in (("¼×", 0.25), ("2×", 2)):  # noqa: RUF001
        _button(page, f"Speed {name}")
        page.wait_for_function(slow.format(speed))
        expect(page.get_by_role("button", name=f"Speed {name}")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("[")
    page.keyboard.press("[")
    page.wait_for_function(slow.format(0.5))
    page.locator("#new").click()
    page.wait_for_function("ready(2) && videos()[0].src.includes('unlearned.mp4')")
    page.wait_for_function(slow.format(0.5))


def test_one_video_alone_is_driven_too_and_the_second_joins_it(page: Page) -> None:
    page.locator("#none").click()
    expect(page.get_by_role("button", name="Play")).to_be_disabled()
    page.locator("#alone").click()
    page.wait_for_function("ready(1)")
    expect(page.get_by_role("button", name="Wipe")).to_be_disabled()
    _button(page, "Pause")
    _scrub(page, 6)
    page.wait_for_function("shown('#vid-orig') === 6")
    page.locator("#equal").click()
    page.wait_for_function("ready(2)")
    _wait_for_frame(page, 6)


def test_frames_are_counted_at_the_rate_of_the_video(page: Page) -> None:
    """The page says it beside the original; here the video of 17 eighths of a second is one of 4 a second."""
    _rest(page, 4)
    page.evaluate(
        """() => document.body.insertAdjacentHTML(
          'beforeend', "<div id='vid-orig-verdict'><p data-frame='0.25'></p></div>")"""
    )
    _button(page, "One frame forward")
    expect(page.locator("[data-rs=frame-number]")).to_have_text("frame 6 of 9")
    page.wait_for_function("Math.abs(videos()[0].currentTime - 1.375) < 0.01")


# --- the keyboard ----------------------------------------------------------------------------------


def test_keys_drive_the_player_but_not_while_typing(page: Page) -> None:
    page.keyboard.press("k")
    page.wait_for_function("videos().every(v => v.paused)")
    page.locator(".rs-transport").focus()
    page.keyboard.press(" ")
    page.wait_for_function("videos().every(v => !v.paused)")
    _rest(page, 4)
    page.keyboard.press(".")  # on the slider: no typing
    _wait_for_frame(page, 5)
    bar, body = page.locator(".rs-transport"), page.locator("body")
    for key, view in (("w", "wipe"), ("d", "difference"), ("d", "side")):
        page.keyboard.press(key)
        expect(bar).to_have_attribute("data-view", view)
    page.keyboard.press("b")
    expect(body).to_have_attribute("data-rs-reveal", "on")
    page.locator("#typed textarea, #typed input").first.click()
    page.keyboard.type("k,.wdb[]? ")
    expect(page.locator("#typed textarea, #typed input").first).to_have_value("k,.wdb[]? ")
    expect(bar).to_have_attribute("data-view", "side")
    expect(body).to_have_attribute("data-rs-reveal", "on")
    _wait_for_frame(page, 5)


def test_the_list_of_keys_opens_and_closes(page: Page) -> None:
    keys, hint = page.locator("#rs-keys"), page.get_by_role("button", name="Keys", exact=True)
    hint.click()
    expect(keys).to_be_visible()
    expect(hint).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    expect(hint).to_be_focused()
    page.keyboard.press("?")
    expect(keys).to_be_visible()
    page.locator("#vid-orig").click(position={"x": 5, "y": 60})
    expect(keys).to_be_hidden()


def test_every_control_has_a_name_and_is_reached_by_tab_with_a_visible_ring(page: Page) -> None:
    _button(page, "Wipe")
    every = "[...document.querySelectorAll('.rs-player button, .rs-player input')]"
    controls = f"{every}.filter(e => e.checkVisibility())"
    unnamed = f"{controls}.filter(e => !(e.getAttribute('aria-label') || e.textContent).trim()).length"
    assert page.evaluate(unnamed) == 0
    count = page.evaluate(f"{controls}.length")
    assert count == 3 + 2 + 1 + 1 + 3 + 4
    page.get_by_role("button", name="Side by side").focus()
    reached = set()
    for _ in range(40):  # through the panes as well, should they hold anything
        reached.add(page.evaluate(f"{controls}.indexOf(document.activeElement)"))
        if page.evaluate("document.activeElement.matches('.rs-player *')"):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
        page.keyboard.press("Tab")
    assert reached >= set(range(count))


# --- the views -------------------------------------------------------------------------------------


def test_wipe_shows_the_original_on_the_left_and_the_unlearned_on_the_right(page: Page) -> None:
    _rest(page, 9)
    _reveal(page)
    _button(page, "Wipe")
    expect(page.locator("[data-rs=stage]")).to_have_attribute("data-frame", "9")
    assert _is_near(_pixel(page, 0.2), AMBER)
    assert _is_near(_pixel(page, 0.8), TEAL)
    divider = page.get_by_label("Divider between original and unlearned")
    divider.fill("90")
    assert _is_near(_pixel(page, 0.8), AMBER)
    box = page.locator("[data-rs=frame]").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + 200)
    page.mouse.up()
    expect(divider).to_have_value("10")
    assert _is_near(_pixel(page, 0.2), TEAL)
    divider.press("ArrowRight")
    expect(divider).to_have_value("11")


def test_difference_is_zero_for_equal_videos_and_true_for_others(page: Page, clips: dict[str, str]) -> None:
    _rest(page, 5)
    _button(page, "Difference")
    _reveal(page)
    mean = page.locator("[data-rs=mean]")
    decoded = [load_video(Path(clips[name]))[0].frames[5] @ [0.2126, 0.7152, 0.0722] for name in
               ("original", "unlearned")]  # fmt: skip
    true = float(np.abs(decoded[0] - decoded[1]).mean())
    assert true > 10
    told = float(mean.text_content().split()[2])
    assert abs(told - true) < 2  # a browser turns YUV into RGB in a way of its own
    different = _pixel(page, 0.5)
    page.locator("#equal").click()
    page.wait_for_function("ready(2) && videos()[1].src.includes('original.mp4')")
    expect(mean).to_have_text("mean difference 0.0 of 255")
    assert _is_near(_pixel(page, 0.5), (0x44, 0x01, 0x54))  # the lower end of the map
    assert not _is_near(different, (0x44, 0x01, 0x54))


def test_what_shows_the_original_is_blurred_until_asked_for(page: Page) -> None:
    blur = "getComputedStyle(document.querySelector('canvas[data-rs={}]')).filter"
    for view, canvas in (("Wipe", "original"), ("Difference", "difference")):
        _button(page, view)
        assert "blur" in page.evaluate(blur.format(canvas))
        assert page.evaluate(blur.format("unlearned")) == "none"
        page.keyboard.press("b")
        page.wait_for_function(f"{blur.format(canvas)} === 'none'")
        page.keyboard.press("b")
        page.wait_for_function(f"{blur.format(canvas)} !== 'none'")


def test_new_videos_keep_view_divider_and_place(page: Page) -> None:
    _rest(page, 7)
    _reveal(page)
    _button(page, "Wipe")
    page.get_by_label("Divider between original and unlearned").fill("30")
    page.evaluate("window.before = videos()")
    page.locator("#none").click()
    expect(page.locator(".rs-transport")).to_have_attribute("data-view", "side")
    page.locator("#new").click()
    page.wait_for_function("ready(2) && !before.some(v => videos().includes(v))")
    expect(page.locator(".rs-transport")).to_have_attribute("data-view", "wipe")
    _wait_for_frame(page, 7)
    expect(page.get_by_label("Divider between original and unlearned")).to_have_value("30")
    page.wait_for_function("document.querySelector('[data-rs=stage]').dataset.frame === '7'")
    assert _is_near(_pixel(page, 0.2), TEAL)
    assert _is_near(_pixel(page, 0.4), PINK)


def test_only_a_new_frame_is_drawn(page: Page) -> None:
    _button(page, "Wipe")
    page.evaluate(
        """() => {
          const draw = CanvasRenderingContext2D.prototype.drawImage;
          window.draws = 0;
          CanvasRenderingContext2D.prototype.drawImage = function (...all) {
            window.draws += 1;
            return draw.apply(this, all);
          };
          window.after = images => new Promise(
            done => { const wait = () => (images-- ? requestAnimationFrame(wait) : done(draws)); wait(); });
        }"""
    )
    page.wait_for_function("draws > 4")
    _rest(page, 3)
    page.wait_for_function("document.querySelector('[data-rs=stage]').dataset.frame === '3'")
    page.evaluate("window.draws = 0")
    page.get_by_label("Divider between original and unlearned").fill("20")
    assert page.evaluate("after(30)") == 0


def test_who_asked_for_less_motion_gets_no_autoplay(browser: Browser, url: str) -> None:
    context = browser.new_context(reduced_motion="reduce")
    page = _open(context, url)
    page.wait_for_function("videos().every(v => v.paused) && both(0)")
    _button(page, "Play")
    page.wait_for_function("videos().every(v => !v.paused)")
    context.close()


def test_a_phone_has_no_sideways_scroll_and_large_targets(browser: Browser, url: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = _open(context, url)
    for view in ("Side by side", "Wipe", "Difference"):
        _button(page, view)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for control in page.locator(".rs-player button:visible, .rs-player input:visible").all():
            assert control.bounding_box()["height"] >= 44
    context.close()


# --- what Python returns ---------------------------------------------------------------------------


def test_the_length_of_a_frame_is_the_videos_own() -> None:
    shown = JudgedVideo(Path("a.mp4"), "Judge: shows fire", "unsafe", 5.0, frame_seconds=1 / 16)
    assert "data-frame='0.0625'" in verdict(shown)


@pytest.mark.security
def test_the_script_asks_nobody_and_writes_no_html() -> None:
    for text in (player.SCRIPT, player.STYLE):
        assert not any(word in text for word in ("http", "innerHTML", "fetch(", "@import", "url("))
