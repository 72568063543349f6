"""The sweep page: two settings against each other, a cell loads its setting into the workbench."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from refusal_core.errors import Cancelled
from refusal_core.studio import compare, gpu
from refusal_core.studio.form import Form, Values
from refusal_core.studio.frame import card, message, status
from refusal_core.studio.jobs import GLUE, MODEL_QUEUE, Stops, session_of, shown, stop_button
from refusal_core.studio.texts import TEXT
from refusal_core.workbench import AXES, Tile, Workbench, make_tiles, parse_axis, sweep_jobs


def build(workbench: Workbench, form: Form, stops: Stops) -> None:
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

    def sweep(
        values: Values,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
    ) -> Iterator[Values]:
        done: list[Tile] = []
        try:
            tell = stops.telling(request, progress)
            pairs = ((rows, row_values), (columns, column_values))
            axes = [(values[axis], parse_axis(values[axis], values[text])) for axis, text in pairs]
            prompt, seed, _ = form.prompt(values)
            jobs = sweep_jobs(form.request(values), axes, prompt, seed)
            wide = gr.Gallery(value=[], visible=True, columns=len(axes[1][1]))
            yield {line: status("working", "working"), tiles: wide, kept: []}
            told = {"progress": tell, "session": session_of(request)}
            for tile in gpu.stream(make_tiles, workbench, jobs, **told):
                done.append(tile)
                more = f"{len(done)} / {len(jobs)}"
                settings = [made.setting for made in done]
                yield {
                    line: status("working", "working", more),
                    tiles: compare.tiles_value(done),
                    kept: settings,
                }
            yield {line: status("done", "finished", f"{len(done)} / {len(jobs)}")}
        except Cancelled:
            yield {line: status("stopped", "stopped", f"{len(done)}")}
        except Exception as e:
            yield {line: status("failed", "failed")}
            raise shown(e) from e

    def load(settings: list[Any], event: gr.SelectData) -> tuple[Any, ...]:
        setting = dict(settings[event.index]) if event.index < len(settings) else {}
        sliders = [setting.get(name, gr.skip()) for name in AXES]
        return (*sliders, status("done", "sweep_loaded"), status("stale", "stale"))

    inputs = {*form.asked, rows, row_values, columns, column_values}
    run.click(sweep, inputs, [line, tiles, kept], show_progress_on=[line], **MODEL_QUEUE)
    stop_button(stop, stops)
    two = form.two
    outputs = [two.rank, two.strength, two.alpha, two.shrinkage, line, form.three.status]
    tiles.select(load, kept, outputs, **GLUE)


def _axis(key: str, name: str, values: str) -> tuple[gr.Dropdown, gr.Textbox]:
    with gr.Column(min_width=240):
        axis = gr.Dropdown(list(AXES), value=name, label=TEXT[key], elem_id=key)
        text = gr.Textbox(
            values, label=TEXT["axis_values"], info=TEXT["axis_info"], max_length=80, elem_id=f"{key}-values"
        )
    return axis, text
