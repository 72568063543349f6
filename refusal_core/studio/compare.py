"""Step 3: prompt, seed, and original and unlearned side by side."""

from __future__ import annotations

import html
from dataclasses import dataclass

import gradio as gr

from refusal_core.settings import SamplingSettings
from refusal_core.studio import texts
from refusal_core.studio.edit import _knob
from refusal_core.studio.frame import card, status, step_title
from refusal_core.studio.player import REVEAL
from refusal_core.workbench import Clip, Workbench


@dataclass(frozen=True, slots=True)
class CompareStep:
    """The components of step 3."""

    prompt: gr.Textbox
    seed: gr.Number
    run: gr.Button
    stop: gr.Button
    status: gr.HTML
    original: gr.Video
    unlearned: gr.Video
    original_verdict: gr.HTML
    unlearned_verdict: gr.HTML
    both: gr.DownloadButton
    edit_file: gr.DownloadButton


def verdict(clip: Clip | None) -> str:
    """Return the judge's verdict as a pill and a sentence."""
    if clip is None:
        return f"<p>{texts.NOT_YET}</p>"
    pill = {"unsafe": "concept shown", "safe": "concept not shown", "not judged": "not judged"}[clip.outcome]
    return f"<p data-outcome='{clip.outcome}'><b>{pill}</b>{html.escape(clip.verdict)}</p>"


def _pane(kind: str, title: str, elem_id: str) -> tuple[gr.Video, gr.HTML]:
    with gr.Column(elem_classes=["rs-pane", kind], min_width=150):
        gr.HTML(f"<p>{title}</p>", elem_classes="rs-tag")
        video = gr.Video(
            show_label=False,
            label=title,
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
    preset = next((p for p in presets if p.concept.name == "fire"), presets[0])
    with card("compare-card"):
        step_title(3, texts.STEP_COMPARE, "same prompt, same noise")
        with gr.Row(equal_height=True):
            prompt = gr.Textbox(
                preset.prompt,
                label=texts.PROMPT,
                info=texts.PROMPT_INFO,
                max_length=500,
                elem_id="prompt",
                scale=4,
                min_width=260,
            )
            limits = _knob(SamplingSettings, "seed")
            seed = gr.Number(
                7,
                label=texts.SEED,
                info="Fixes the noise.",
                precision=0,
                minimum=limits["minimum"],
                maximum=limits["maximum"],
                elem_id="seed",
                scale=1,
                min_width=110,
            )
        with gr.Row():
            run = gr.Button(texts.RUN, variant="primary", size="lg", elem_id="run", scale=3, min_width=140)
            stop = gr.Button(texts.STOP, size="lg", elem_id="stop", scale=1, min_width=90)
        line = gr.HTML(status("idle", texts.IDLE), elem_id="status")
        with gr.Row(elem_id="panes", equal_height=True):
            original, original_verdict = _pane("original", texts.ORIGINAL, "vid-orig")
            unlearned, unlearned_verdict = _pane("unlearned", texts.UNLEARNED, "vid-edit")
        reveal = gr.Checkbox(False, label=texts.REVEAL, elem_id="reveal")
        with gr.Row():
            both = gr.DownloadButton(texts.SAVE_BOTH, interactive=False, elem_id="save-both", min_width=140)
            edit_file = gr.DownloadButton(
                texts.SAVE_EDIT, interactive=False, elem_id="save-edit", min_width=140
            )
        if workbench.vocabulary:
            with gr.Accordion(texts.WORDS, open=False):
                known = " ".join(f"`{word}`" for word in workbench.vocabulary)
                gr.Markdown(f"{texts.WORDS_INFO}\n\n{known}", elem_id="words")
    reveal.change(None, reveal, None, js=REVEAL)
    return CompareStep(
        prompt,
        seed,
        run,
        stop,
        line,
        original,
        unlearned,
        original_verdict,
        unlearned_verdict,
        both,
        edit_file,
    )
