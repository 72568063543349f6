"""Step 3: prompt, seed, original and unlearned side by side, more seeds, and what else changed."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from refusal_core.studio import player, texts
from refusal_core.studio.concept import FIRST
from refusal_core.studio.edit import seed_range
from refusal_core.studio.frame import card, status, step_title
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench import Clip, Tile, Workbench

MAX_SEEDS = 8


@dataclass(frozen=True, slots=True)
class CompareStep:
    """The components of step 3 that other steps read or change."""

    title: gr.HTML
    prompt: gr.Textbox
    seed: gr.Number
    image: gr.Image
    run: gr.Button
    stop: gr.Button
    status: gr.HTML
    original: gr.Video
    unlearned: gr.Video
    original_verdict: gr.HTML
    unlearned_verdict: gr.HTML
    both: gr.DownloadButton
    edit_file: gr.DownloadButton
    seeds: gr.Slider
    seeds_run: gr.Button
    seeds_tiles: gr.Gallery
    others_run: gr.Button
    others_tiles: gr.Gallery
    example_tiles: gr.Gallery


def verdict(clip: Clip | None, quality: tuple[tuple[str, float], ...] = ()) -> str:
    """Return the judge's verdict as a pill and a sentence, and what was measured."""
    if clip is None:
        return f"<p>{TEXT['no_video']}</p>"
    pill = {"unsafe": "shown", "safe": "not_shown", "not judged": "not_judged"}[clip.outcome]
    measured = f"<small>{escaped(texts.QUALITY.format(**dict(quality)))}</small>" if quality else ""
    return f"<p data-outcome='{clip.outcome}'><b>{TEXT[pill]}</b>{escaped(clip.verdict)}{measured}</p>"


def tiles_value(tiles: list[Tile]) -> list[tuple[str, str]]:
    """Return tiles for a gallery; captions are shown as text."""
    return [(str(tile.clip), f"{tile.title}: {tile.unlearned.removeprefix('Judge: ')}") for tile in tiles]


def gallery(elem_id: str, columns: int = 2) -> gr.Gallery:
    """Return a gallery of small comparisons: original left, unlearned right in each."""
    return gr.Gallery(
        show_label=False,
        label="tiles",
        columns=columns,
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        interactive=False,
        elem_id=elem_id,
        elem_classes="rs-tiles",
        visible=False,
    )


def _pane(kind: str, elem_id: str) -> tuple[gr.Video, gr.HTML]:
    with gr.Column(elem_classes=["rs-pane", kind], min_width=150):
        gr.HTML(f"<p>{TEXT[kind]}</p>", elem_classes="rs-tag")
        video = gr.Video(
            show_label=False,
            label=kind,
            interactive=False,
            autoplay=True,
            loop=True,
            buttons=["download"],
            elem_id=elem_id,
        )
        words = gr.HTML(verdict(None), elem_classes="rs-verdict", elem_id=f"{elem_id}-verdict")
    return video, words


def build(workbench: Workbench) -> CompareStep:
    """Lay out step 3 with the first preset's prompt."""
    presets = workbench.presets()
    preset = next((p for p in presets if p.concept.name == FIRST), presets[0])
    with card("compare-card"):
        title = step_title(3, "step_compare", TEXT["step_compare_note"])
        prompt, seed = _asked(preset.prompt)
        image = gr.Image(
            label=TEXT["start_image"], type="filepath", visible=workbench.takes_image(), height=160,
            sources=["upload", "clipboard"], elem_id="start-image",
        )  # fmt: skip
        with gr.Row(elem_id="run-row"):
            run = gr.Button(TEXT["run"], variant="primary", size="lg", elem_id="run", scale=3, min_width=140)
            stop = gr.Button(TEXT["stop"], size="lg", elem_id="stop", scale=1, min_width=90)
        line = gr.HTML(status("idle", "idle"), elem_id="status")
        gr.HTML(player.views(), elem_id="views")
        with gr.Row(elem_id="panes", equal_height=True):
            original, original_verdict = _pane("original", "vid-orig")
            unlearned, unlearned_verdict = _pane("unlearned", "vid-edit")
        gr.HTML(player.bar(with_views=False), elem_id="player")
        with gr.Row():
            both = gr.DownloadButton(TEXT["save_both"], interactive=False, elem_id="save-both", min_width=140)
            edit_file = gr.DownloadButton(
                TEXT["save_edit"], interactive=False, elem_id="save-edit", min_width=140
            )
        if words := workbench.vocabulary():
            with gr.Accordion(TEXT["words"], open=False, elem_id="words-more"):
                known = " ".join(f"<code>{escaped(word)}</code>" for word in words)
                gr.HTML(f"<p>{TEXT['words_info']}</p><p>{known}</p>", elem_id="words")
    with card("more-card"):
        more = _more()
    return CompareStep(
        title, prompt, seed, image, run, stop, line, original, unlearned, original_verdict,
        unlearned_verdict, both, edit_file, *more,
    )  # fmt: skip


def _asked(text: str) -> tuple[gr.Textbox, gr.Number]:
    with gr.Row(equal_height=True):
        prompt = gr.Textbox(
            text, label=TEXT["prompt"], info=TEXT["prompt_info"], max_length=500, elem_id="prompt", scale=4,
            min_width=260,
        )  # fmt: skip
        seed = gr.Number(
            7, label=TEXT["seed"], info=TEXT["seed_info"], precision=0, elem_id="seed", scale=1,
            min_width=110, **seed_range(),
        )  # fmt: skip
    return prompt, seed


def _more() -> tuple[gr.Slider, gr.Button, gr.Gallery, gr.Button, gr.Gallery, gr.Gallery]:
    with gr.Row(elem_classes="rs-end"):
        seeds = gr.Slider(
            2, MAX_SEEDS, 4, step=1, label=TEXT["seeds"], info=TEXT["seeds_info"], elem_id="seeds", scale=3
        )
        seeds_run = gr.Button(TEXT["seeds_run"], elem_id="seeds-run", scale=1, min_width=150)
    seeds_tiles = gallery("seeds-tiles")
    with gr.Row(elem_classes="rs-end"):
        gr.HTML(f"<h3>{TEXT['others']}</h3><p>{TEXT['others_info']}</p>", elem_classes="rs-sub")
        others_run = gr.Button(TEXT["others_run"], elem_id="others-run", scale=0, min_width=170)
    others_tiles = gallery("others-tiles")
    example_tiles = gallery("example-tiles")
    return seeds, seeds_run, seeds_tiles, others_run, others_tiles, example_tiles
