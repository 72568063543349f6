"""The sweep page: two settings against each other, a cell loads its setting into the workbench."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio import FileData

from refusal_core.studio import texts
from refusal_core.studio.compare import PILLS
from refusal_core.studio.form import KNOBS, Form
from refusal_core.studio.jobs import GLUE, Runner, SessionJob, Values, in_line
from refusal_core.studio.layout import card, message, status
from refusal_core.studio.texts import TEXT
from refusal_core.workbench.tiles import AXES, CellJob, cell_settings, make_cells, parse_axis
from refusal_core.workbench.values import JudgedVideo

Axes = Sequence[tuple[str, Sequence[float]]]  # the settings down and across, with their values
VIDEO = """<video src="{{video.url}}" {{#if clear}}data-clear{{/if}} autoplay loop muted playsinline></video>
<b data-outcome="{{outcome}}">{{pill}}</b>"""
# Filled in by Handlebars, which escapes: verdicts are text of a judge.
GRID = """{{#if value}}<div class="rs-sweep">
<figure title="{{value.original.verdict}}"><figcaption>{{value.title}}</figcaption>
{{#with value.original}}VIDEO{{/with}}</figure>
<div class="rs-scroll"><table class="rs-grid"><caption>{{value.caption}}</caption>
<thead><tr><td></td>{{#each value.columns}}<th scope="col">{{this}}</th>{{/each}}</tr></thead>
<tbody>{{#each value.rows}}<tr><th scope="row">{{head}}</th>{{#each cells}}<td>{{#if video}}
<button type="button" data-cell="{{place}}" aria-label="{{name}}: {{pill}}" title="{{verdict}}">VIDEO</button>
{{/if}}</td>{{/each}}</tr>{{/each}}</tbody>
</table></div></div>{{/if}}""".replace("VIDEO", VIDEO)
PICK = """
const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
element.addEventListener('play', e => calm && e.target.pause(), true);
element.addEventListener('playing', ({target: cell}) => { // all in step with the original
  const {currentTime: time} = element.querySelector('video');
  if (Math.abs(cell.currentTime - time) > 0.1) cell.currentTime = time;
}, true);
element.addEventListener('click', e => {
  const cell = e.target.closest('button[data-cell]');
  if (cell) trigger('pick', {place: +cell.dataset.cell});
});
"""


def build(runner: Runner, form: Form) -> None:
    """Lay out the page and join it to the form."""
    with card("sweep-card"):
        gr.HTML(f"<p>{TEXT['sweep_lead']}</p>", elem_classes="rs-sub")
        with gr.Row():
            rows, row_values = _axis("axis_rows", "rank", "1,2,4")
            columns, column_values = _axis("axis_columns", "strength", "0.5,1")
        with gr.Row():
            run = gr.Button(TEXT["sweep_run"], variant="primary", elem_id="sweep-run", scale=3)
            stop = gr.Button(TEXT["stop"], elem_id="sweep-stop", scale=1, min_width=90)
        line = gr.HTML(message("sweep_none"), elem_id="sweep-status")
        grid = gr.HTML(html_template=GRID, js_on_load=PICK, elem_id="sweep-grid")
        kept = gr.State([])

    def sweep(values: Values, job: SessionJob) -> Iterator[Values]:
        pairs = ((rows, row_values), (columns, column_values))
        axes = [(values[axis], parse_axis(values[axis], values[text])) for axis, text in pairs]
        settings, videos = cell_settings(axes), list[JudgedVideo]()
        shared = CellJob(form.request(values), values[form["prompt"]], form.sampling(values))
        yield {grid: None, kept: settings}
        for video in job.stream(make_cells, shared, settings):
            videos.append(video)
            count = f"{len(videos) - 1} / {len(settings)}"
            yield {line: status("working", "working", count), grid: _grid(axes, settings, videos)}
        yield {line: status("done", "finished", count)}

    def load(settings: Sequence[Mapping[str, float]], event: gr.EventData) -> Values:
        setting = settings[int(event.place)]
        told = status("done", "sweep_loaded", _name(setting))
        return form.set(setting) | {line: told, form["status"]: status("stale", "stale")}

    inputs = {*form.compared, rows, row_values, columns, column_values}
    runner.on(run.click, sweep, inputs, [line, grid, kept], in_line(line), show_progress_on=[line])
    runner.stop_on(stop)
    outputs = [*(form[name] for name in AXES), line, form["status"]]
    grid.pick(load, kept, outputs, **GLUE)


def _grid(
    axes: Axes, settings: Sequence[Mapping[str, float]], videos: Sequence[JudgedVideo]
) -> dict[str, Any]:
    """Return what the template shows: the original, and each cell that is made, row by row."""
    (first, rows), (second, columns) = axes
    cells = [
        {
            "place": place,
            "name": _name(setting),
            **(_shown(videos[place + 1]) if place + 1 < len(videos) else {}),
        }
        for place, setting in enumerate(settings)
    ]
    width = len(columns)
    return {
        "title": TEXT["original"],
        "original": _shown(videos[0]),
        "caption": texts.SWEEP_AXES.format(rows=_label(first), columns=_label(second)),
        "columns": [_head(second, value) for value in columns],
        "rows": [
            {"head": _head(first, value), "cells": cells[i * width : (i + 1) * width]}
            for i, value in enumerate(rows)
        ],
    }


def _shown(video: JudgedVideo) -> dict[str, Any]:
    return {
        "video": FileData(path=str(video.path)).model_dump(),  # Gradio adds where it is served
        "clear": video.harmless or video.outcome == "safe",  # all else is blurred
        "outcome": video.outcome,
        "pill": TEXT[PILLS[video.outcome]],
        "verdict": video.verdict,
    }


def _label(name: str) -> str:
    knob = KNOBS[name]
    return f"{knob.label} ({knob.symbol})" if knob.symbol else knob.label


def _head(name: str, value: float) -> str:
    return f"{KNOBS[name].symbol} {value:g}".strip()


def _name(setting: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())


def _axis(key: str, name: str, values: str) -> tuple[gr.Dropdown, gr.Textbox]:
    with gr.Column(min_width=240):
        axis = gr.Dropdown(list(AXES), value=name, label=TEXT[key], elem_id=key)
        text = gr.Textbox(
            values, label=TEXT["axis_values"], info=TEXT["axis_info"], max_length=80, elem_id=f"{key}-values"
        )
    return axis, text
