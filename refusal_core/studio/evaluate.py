"""The evaluation page: a suite for the workbench's edit, beside the original and other methods."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr

from refusal_core.studio import texts
from refusal_core.studio.form import Form
from refusal_core.studio.jobs import Runner, SessionJob, Values, in_line
from refusal_core.studio.layout import card, message, status
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench.evaluating import MAX_VIDEOS, OFFERED, Evaluated, Outcome, Shown, SuiteRequest
from refusal_core.workbench.evaluating import evaluate as run_suite

FEW = ("placebo", "cpca", "uce")  # a control, the paper's, another's


def build(runner: Runner, form: Form) -> None:
    """Lay out the page and join it to the form."""
    with card("evaluate-card"):
        gr.HTML(f"<p>{TEXT['evaluate_lead']}</p>", elem_classes="rs-sub")
        with gr.Row():
            suites = [(TEXT[f"suite_{name}"], name) for name in ("toyworld", "adversarial")]
            suite = gr.Radio(suites, value="toyworld", label=TEXT["suite"], elem_id="suite", scale=3)
            videos = gr.Slider(
                4, MAX_VIDEOS, 8, step=4, label=TEXT["videos"], info=TEXT["videos_info"], elem_id="videos",
                scale=2,
            )  # fmt: skip
        methods = gr.CheckboxGroup(list(OFFERED), value=list(FEW), label=TEXT["methods"], elem_id="methods")
        with gr.Row():
            run = gr.Button(TEXT["evaluate_run"], variant="primary", elem_id="evaluate-run", scale=3)
            stop = gr.Button(TEXT["stop"], elem_id="evaluate-stop", scale=1, min_width=90)
        line = gr.HTML(message("evaluate_none"), elem_id="evaluate-status")
        outcome = gr.HTML("", elem_id="evaluate-outcome")
        plots = gr.HTML("", elem_id="evaluate-plots", elem_classes="rs-plots")
        with gr.Accordion(TEXT["evaluate_table"], open=False, elem_id="evaluate-more"):
            table = gr.HTML(message("evaluate_empty"), elem_id="evaluate-table")
        with gr.Row():
            page = gr.DownloadButton(TEXT["report_html"], interactive=False, elem_id="report-html")
            plain = gr.DownloadButton(TEXT["report_json"], interactive=False, elem_id="report-json")

    def evaluate(values: Values, job: SessionJob) -> Iterator[Values]:
        wanted = SuiteRequest(values[suite], int(values[videos]), tuple(values[methods]))
        off = gr.DownloadButton(interactive=False)
        yield {outcome: "", table: "", plots: "", page: off, plain: off}
        for state in job.stream(run_suite, form.request(values), wanted):
            figures = "".join(f"<figure>{svg}</figure>" for svg in state.plots)
            yield {outcome: _sentence(state.outcome), table: _table(state), plots: figures}
        buttons = {".html": page, ".json": plain}
        ready = {buttons[p.suffix]: gr.DownloadButton(value=str(p), interactive=True) for p in state.files}
        yield {line: status("done", "finished", " ".join(state.notes)), **ready}

    inputs, outputs = {*form.inputs, suite, videos, methods}, [line, outcome, table, plots, page, plain]
    runner.on(run.click, evaluate, inputs, outputs, in_line(line), show_progress_on=[line])
    runner.stop_on(stop)


def _sentence(outcome: Outcome) -> str:
    """Return what an evaluation comes to as one sentence."""
    if outcome.unlearned.judged + outcome.unlearned.not_judged == 0:
        return ""  # nothing was made yet
    said = texts.OUTCOME.format(after=_counted(outcome.unlearned), before=_counted(outcome.original))
    if outcome.placebo is not None:
        said += texts.OUTCOME_PLACEBO.format(placebo=_counted(outcome.placebo))
    if outcome.asks_ordinary:
        kept = TEXT["not_judged"] if outcome.kept is None else f"{outcome.kept:.0%}"
        said += texts.OUTCOME_KEPT.format(kept=kept)
    return f"<p class='rs-outcome'>{escaped(said)}.</p>"


def _counted(shown: Shown) -> str:
    if not shown.judged:
        return TEXT["not_judged"]
    rest = texts.NOT_JUDGED.format(count=shown.not_judged) if shown.not_judged else ""
    return texts.SHOWN_OF.format(shown=shown.shown, judged=shown.judged) + rest


def _table(state: Evaluated) -> str:
    head = "".join(f"<th scope='col'>{escaped(name)}</th>" for name in state.head)
    rows = "".join(f"<tr>{''.join(f'<td>{escaped(c)}</td>' for c in row)}</tr>" for row in state.rows)
    table = f"<table class='rs-table'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<div class='rs-scroll'>{table}</div>"
