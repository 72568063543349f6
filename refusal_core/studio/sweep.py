"""The sweep page: two settings against each other, a cell loads its setting into the workbench."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from refusal_core.studio import compare
from refusal_core.studio.form import Form
from refusal_core.studio.jobs import GLUE, Runner, SessionJob, Values, in_line
from refusal_core.studio.layout import card, message, status
from refusal_core.studio.texts import TEXT
from refusal_core.workbench.tiles import AXES, make_tiles, parse_axis, sweep_jobs
from refusal_core.workbench.values import Tile


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
        tiles = compare.gallery("sweep-tiles")
        kept = gr.State([])

    def sweep(values: Values, job: SessionJob) -> Iterator[Values]:
        pairs = ((rows, row_values), (columns, column_values))
        axes = [(values[axis], parse_axis(values[axis], values[text])) for axis, text in pairs]
        prompt, seed = values[form["prompt"]], form.sampling(values).seed
        jobs, done = sweep_jobs(form.request(values), axes, prompt, seed), list[Tile]()
        yield {tiles: gr.Gallery(value=[], visible=True, columns=len(axes[1][1])), kept: []}
        for tile in job.stream(make_tiles, jobs):
            done.append(tile)
            count = f"{len(done)} / {len(jobs)}"
            yield {
                line: status("working", "working", count),
                tiles: compare.tiles_value(done),
                kept: [made.setting for made in done],
            }
        yield {line: status("done", "finished", count)}

    def load(settings: list[Any], event: gr.SelectData) -> Values:
        setting = dict(settings[event.index]) if event.index < len(settings) else {}
        loaded = {line: status("done", "sweep_loaded"), form["status"]: status("stale", "stale")}
        return form.set(setting) | loaded

    inputs = {*form.compared, rows, row_values, columns, column_values}
    runner.on(run.click, sweep, inputs, [line, tiles, kept], in_line(line), show_progress_on=[line])
    runner.stop_on(stop)
    outputs = [*(form[name] for name in AXES), line, form["status"]]
    tiles.select(load, kept, outputs, **GLUE)


def _axis(key: str, name: str, values: str) -> tuple[gr.Dropdown, gr.Textbox]:
    with gr.Column(min_width=240):
        axis = gr.Dropdown(list(AXES), value=name, label=TEXT[key], elem_id=key)
        text = gr.Textbox(
            values, label=TEXT["axis_values"], info=TEXT["axis_info"], max_length=80, elem_id=f"{key}-values"
        )
    return axis, text
