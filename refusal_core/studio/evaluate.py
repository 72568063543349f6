"""The evaluation page: a suite for the workbench's edit, beside the original and other methods."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr

from refusal_core.errors import Cancelled
from refusal_core.studio import gpu
from refusal_core.studio.form import Form, Values
from refusal_core.studio.frame import card, message, status
from refusal_core.studio.jobs import MODEL_QUEUE, Stops, session_of, shown, stop_button
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench import MAX_EVALUATED, OFFERED_METHODS, Evaluated, Workbench
from refusal_core.workbench import evaluate as run_suite

FEW = ("rv", "cpca", "uce")


def build(workbench: Workbench, form: Form, stops: Stops) -> None:
    """Lay out the page and join it to the form."""
    with card("evaluate-card"):
        gr.HTML(f"<p>{TEXT['evaluate_lead']}</p>", elem_classes="rs-sub")
        with gr.Row():
            suite = gr.Radio(
                [(TEXT["suite_toyworld"], "toyworld"), (TEXT["suite_adversarial"], "adversarial")],
                value="toyworld",
                label=TEXT["suite"],
                elem_id="suite",
                scale=3,
            )
            videos = gr.Slider(
                4,
                MAX_EVALUATED,
                8,
                step=4,
                label=TEXT["videos"],
                info=TEXT["videos_info"],
                elem_id="videos",
                scale=2,
            )
        methods = gr.CheckboxGroup(
            list(OFFERED_METHODS), value=list(FEW), label=TEXT["methods"], elem_id="methods"
        )
        with gr.Row():
            run = gr.Button(TEXT["evaluate_run"], variant="primary", elem_id="evaluate-run", scale=3)
            stop = gr.Button(TEXT["stop"], elem_id="evaluate-stop", scale=1, min_width=90)
        line = gr.HTML(message("evaluate_none"), elem_id="evaluate-status")
        table = gr.HTML("", elem_id="evaluate-table")
        plots = gr.HTML("", elem_id="evaluate-plots", elem_classes="rs-plots")
        with gr.Row():
            page = gr.DownloadButton(TEXT["report_html"], interactive=False, elem_id="report-html")
            plain = gr.DownloadButton(TEXT["report_json"], interactive=False, elem_id="report-json")

    def evaluate(
        values: Values,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
    ) -> Iterator[Values]:
        off = gr.DownloadButton(interactive=False)
        try:
            tell = stops.telling(request, progress)
            asked = form.request(values), values[suite], int(values[videos]), tuple(values[methods])
            yield {line: status("working", "working"), table: "", plots: "", page: off, plain: off}
            told = {"progress": tell, "session": session_of(request)}
            for found in gpu.stream(run_suite, workbench, *asked, **told):
                yield {table: _table(found), plots: "".join(f"<figure>{svg}</figure>" for svg in found.plots)}
            ready = _buttons(found, page, plain)
            yield {line: status("done", "finished", " ".join(found.notes)), **ready}
        except Cancelled:
            yield {line: status("stopped", "stopped")}
        except Exception as e:
            yield {line: status("failed", "failed")}
            raise shown(e) from e

    inputs = {*form.inputs, suite, videos, methods}
    run.click(evaluate, inputs, [line, table, plots, page, plain], show_progress_on=[line], **MODEL_QUEUE)
    stop_button(stop, stops)


def _buttons(found: Evaluated, page: gr.DownloadButton, plain: gr.DownloadButton) -> Values:
    by_suffix = {".html": page, ".json": plain}
    return {by_suffix[p.suffix]: gr.DownloadButton(value=str(p), interactive=True) for p in found.files}


def _table(found: Evaluated) -> str:
    head = "".join(f"<th scope='col'>{escaped(name)}</th>" for name in found.head)
    rows = "".join(f"<tr>{''.join(f'<td>{escaped(c)}</td>' for c in row)}</tr>" for row in found.rows)
    table = f"<table class='rs-table'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<div class='rs-scroll'>{table}</div>"
