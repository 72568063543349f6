"""The export page: the workbench's edit in every form, with the lines that use it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import gradio as gr

from refusal_core.studio import texts
from refusal_core.studio.form import Form
from refusal_core.studio.jobs import MODEL_QUEUE, Runner, SessionJob, Values, guarded
from refusal_core.studio.layout import card, message, status
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench.exporting import FORMS
from refusal_core.workbench.exporting import export as export_edit
from refusal_core.workbench.exporting import push as push_edit

ON_A_SPACE = bool(os.environ.get("SPACE_ID"))


def build(runner: Runner, form: Form) -> None:
    """Lay out the page and join it to the form."""
    forms = [f for f in FORMS if f != "weights" or not runner.workbench.only_bundled]
    with card("export-card"):
        gr.HTML(f"<p>{TEXT['export_lead']}</p>", elem_classes="rs-sub")
        with gr.Row(elem_classes="rs-end"):
            kind = gr.Radio(
                [(TEXT[f"form_{name}"], name) for name in forms],
                value="edit",
                label=TEXT["form"],
                elem_id="form",
                scale=4,
            )
            run = gr.Button(
                TEXT["export_run"], variant="primary", elem_id="export-run", scale=1, min_width=140
            )
        line = gr.HTML(message("export_none"), elem_id="export-status")
        with gr.Row():
            file = gr.DownloadButton(TEXT["export_file"], interactive=False, elem_id="export-file")
            second = gr.DownloadButton(TEXT["export_second"], visible=False, elem_id="export-second")
        snippet = gr.Code("", language="python", label=TEXT["snippet"], interactive=False, elem_id="snippet")
        with gr.Accordion(TEXT["card"], open=False, elem_id="card-more"):
            model_card = gr.Code("", language="markdown", show_label=False, interactive=False, elem_id="card")
        if ON_A_SPACE:
            _hub(runner, form)
        else:
            gr.HTML(f"<p>{TEXT['hub_login']}</p>", elem_classes="rs-note")

    def export(values: Values, job: SessionJob) -> Iterator[Values]:
        exported = job.call(export_edit, form.request(values), values[kind], session=job.session)
        paths = [str(path) for path in exported.paths]
        size = sum(path.stat().st_size for path in exported.paths) / 1024
        names = ", ".join(path.name for path in exported.paths)
        yield {
            line: status("done", "finished", f"{names}, {size:.0f} kB"),
            file: gr.DownloadButton(value=paths[0], interactive=True),
            second: gr.DownloadButton(value=paths[-1], visible=len(paths) > 1),
            snippet: exported.snippet,
            model_card: exported.card,
        }

    outputs = [line, file, second, snippet, model_card]
    runner.on(run.click, export, {*form.inputs, kind}, outputs, show_progress_on=[line])


def _hub(runner: Runner, form: Form) -> None:
    """Offer to send the edit under the visitor's own login; only a Space knows who that is."""
    gr.HTML(f"<h3>{TEXT['hub']}</h3>", elem_classes="rs-sub")
    with gr.Row(elem_classes="rs-end"):
        gr.LoginButton(scale=0)
        name = gr.Textbox(label=TEXT["hub_name"], max_length=190, elem_id="hub-name")
        send = gr.Button(TEXT["hub_push"], elem_id="hub-push", scale=0)
    line = gr.HTML("", elem_id="hub-status")

    @guarded
    def push(*given: Any, token: gr.OAuthToken | None = None, request: gr.Request | None = None) -> str:
        assert request is not None
        values, job = dict(zip(components, given, strict=True)), runner.start(request)
        key = token.token if token else None
        wanted = form.request(values), values[name] or "", key
        address = job.call(push_edit, *wanted, session=job.session)
        return f"<p>{escaped(texts.SENT.format(address=address))}</p>"

    components = [*form.inputs, name]
    send.click(push, components, line, **MODEL_QUEUE)
