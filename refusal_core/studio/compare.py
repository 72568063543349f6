"""The comparison: prompt and seed; original and unlearned side by side; more seeds, what else changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import gradio as gr

from refusal_core.settings import SamplingSettings, knobs
from refusal_core.studio import player, texts
from refusal_core.studio.edit import widget
from refusal_core.studio.layout import card, status, step_title
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench.values import JudgedVideo, ModelFacts, RunCard, Tile

MAX_SEEDS = 8
PILLS = {"unsafe": "shown", "safe": "not_shown", "not judged": "not_judged"}


def verdict(video: JudgedVideo | None, quality: tuple[tuple[str, float], ...] = ()) -> str:
    """Return the judge's verdict as a pill and a sentence, and what was measured."""
    if video is None:
        return f"<p>{TEXT['no_video']}</p>"
    seen = video.seen if len(video.seen) > 1 else [("", video.outcome)]  # a name where it tells them apart
    pills = "".join(
        f"<b data-outcome='{outcome}'>{escaped(f'{name}: ' if name else '')}{TEXT[PILLS[outcome]]}</b>"
        for name, outcome in seen
    )
    measured = f"<small>{escaped(texts.QUALITY.format(**dict(quality)))}</small>" if quality else ""
    facts = f"data-outcome='{video.outcome}' data-frame='{video.frame_seconds:g}'"
    if video.harmless:
        facts += " data-clear data-harmless"
    elif video.outcome == "safe":
        facts += " data-clear"  # all else is blurred
    return f"<p {facts}>{pills}{escaped(video.verdict)}{measured}</p>"


def tiles_value(tiles: list[Tile]) -> list[tuple[str, str]]:
    """Return tiles for a gallery; captions are shown as text."""
    return [(str(tile.clip), f"{tile.title}: {tile.unlearned.removeprefix('Judge: ')}") for tile in tiles]


def gallery(elem_id: str, columns: int = 2) -> gr.Gallery:
    """Return a gallery of small comparisons: original left, unlearned right in each."""
    return gr.Gallery(
        show_label=False, label="tiles", columns=columns, object_fit="contain", allow_preview=False,
        buttons=[], interactive=False, elem_id=elem_id, elem_classes="rs-tiles", visible=False,
    )  # fmt: skip


def _pane(kind: str, elem_id: str, video: JudgedVideo | None) -> None:
    with gr.Column(elem_classes=["rs-pane", kind], min_width=150):
        gr.HTML(f"<p>{TEXT[kind]}</p>", elem_classes="rs-tag")
        gr.Video(
            show_label=False, label=kind, interactive=False,
            autoplay=True, loop=True, buttons=["download"], elem_id=elem_id,
        )  # fmt: skip
        gr.HTML(verdict(video), elem_classes="rs-verdict", elem_id=f"{elem_id}-verdict")


def ask(facts: ModelFacts, prompt: str) -> None:
    """Lay out what is compared, with the first preset's prompt."""
    with card("prompt-card"):
        gr.Textbox(prompt, label=TEXT["prompt"], max_lines=4, elem_id="prompt")
        gr.Image(
            label=TEXT["start_image"], type="filepath", visible=facts.takes_image, height=160,
            sources=["upload", "clipboard"], elem_id="start-image",
        )  # fmt: skip
        with gr.Row(elem_id="run-row"):
            (knob,) = (knob for knob in knobs(SamplingSettings) if knob.name == "seed")
            widget(replace(knob, help=""), 7, scale=1, min_width=84)
            gr.Button(TEXT["run"], variant="primary", elem_id="run", scale=3, min_width=120)
            gr.Button(TEXT["stop"], elem_id="stop", scale=1, min_width=72)
        if facts.vocabulary:
            with gr.Accordion(TEXT["words"], open=False, elem_id="words-more"):
                known = " ".join(f"<code>{escaped(word)}</code>" for word in facts.vocabulary)
                gr.HTML(f"<p>{TEXT['words_info']}</p><p>{known}</p>", elem_id="words")


def build(shown: RunCard | None, beside: Callable[[], None]) -> None:
    """Lay out the result, with an example where there is one; ``beside`` adds to the right of the videos."""
    with card("compare-card"):
        with gr.Row(elem_id="result-head"):
            step_title(3, "step_compare", TEXT["step_compare_note"])
            gr.HTML(player.views(), elem_id="views")
        with gr.Row(elem_id="result"):
            with gr.Column(elem_id="stage", min_width=300):
                with gr.Row(elem_id="panes", equal_height=True):
                    _pane("original", "vid-orig", shown.original if shown else None)
                    _pane("unlearned", "vid-edit", shown.unlearned if shown else None)
                gr.HTML(player.bar(), elem_id="player")
            beside()
        with gr.Row(elem_id="outcome"):
            gr.HTML(status("idle", "example_first" if shown else "idle"), elem_id="status")
            for key, elem_id in (("save_both", "save-both"), ("save_edit", "save-edit")):
                gr.DownloadButton(
                    TEXT[key], size="sm", interactive=False, elem_id=elem_id, min_width=130, scale=0
                )
            gr.Button(TEXT["save_link"], size="sm", elem_id="save-link", min_width=100, scale=0)
        gr.Textbox(label=TEXT["link"], visible=False, interactive=False, buttons=["copy"], elem_id="link")


def more() -> None:
    """Lay out what may follow a comparison: other seeds, and prompts without the concept."""
    with gr.Accordion(TEXT["check_more"], open=False, elem_id="more"):
        with gr.Row(elem_classes="rs-end"):
            about = {"label": TEXT["seeds"], "info": TEXT["seeds_info"]}
            gr.Slider(2, MAX_SEEDS, 4, step=1, elem_id="seeds", scale=3, **about)  # type: ignore[arg-type]
            gr.Button(TEXT["seeds_run"], elem_id="seeds-run", scale=1, min_width=150)
        gallery("seeds-tiles")
        with gr.Row(elem_classes="rs-end"):
            gr.HTML(f"<h3>{TEXT['others']}</h3><p>{TEXT['others_info']}</p>", elem_classes="rs-sub")
            gr.Button(TEXT["others_run"], elem_id="others-run", scale=0, min_width=170)
        gallery("others-tiles")
