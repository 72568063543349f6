"""A comparison that comes from elsewhere, in a file or in a link; and the link to hand on one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from refusal_core.errors import RefusalError
from refusal_core.studio import compare, texts
from refusal_core.studio.form import Form
from refusal_core.studio.jobs import QUICK, Values, guarded
from refusal_core.studio.layout import status
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench.opening import Received, is_link, link_of, open_link, open_recipe

VERDICTS = ("vid-orig-verdict", "vid-edit-verdict")
# Only the browser knows by which address it came. Where it may not copy, the box still holds the link.
COPY = """query => {
  const link = location.origin + location.pathname + '?' + query;
  navigator.clipboard?.writeText(link).catch(() => {});
  return link;
}"""


def build() -> None:
    """Lay out where a file is dropped, and where the link appears."""
    with gr.Accordion(TEXT["open"], open=False, elem_id="open-more"):
        gr.File(
            label=TEXT["open_file"], file_types=[".mp4", ".json"], height=120, elem_id="open-file",
        )  # fmt: skip
        gr.HTML("", elem_id="open-state", elem_classes="rs-note")


def join(form: Form, undo: gr.State) -> None:
    """Let a dropped file fill the form, and a button make the link of what it asks for."""
    inputs, outputs = form.filling(undo)
    file, state, link = form.parts_of("open-file", "open-state", "link")

    def open_file(values: Values) -> Values:
        if not values[file]:
            return {state: ""}
        model, preset = values[form["model"]], values[form["preset"]]
        try:
            opened = open_recipe(form.workbench, Path(values[file]), model, preset)
        except RefusalError as e:
            return {state: f"<p role='alert' class='rs-bad'>{escaped(str(e))}</p>", file: None}
        left = texts.LEFT_OUT.format(parts=", ".join(opened.left_out)) if opened.left_out else ""
        return {
            **filled(form, opened, "opened_file"),
            **form.undoing(undo, values, preset, opened.request.preset or ""),
            state: f"<p>{escaped(' '.join((TEXT['opened'], left)))}</p>",
            file: None,
        }

    @guarded
    def make_link(values: Values) -> tuple[str, Any]:
        query = link_of(form.workbench, form.request(values), values[form["prompt"]], form.sampling(values))
        return query, gr.Textbox(visible=True)

    opened = [*outputs, form["seed"], state, file]
    file.upload(guarded(open_file), inputs | {file, form["preset"]}, opened, **QUICK)
    query = gr.Textbox(visible="hidden", label="query", elem_id="query")
    made = form["save-link"].click(make_link, form.compared, [query, link], **QUICK)
    made.success(None, query, link, js=COPY)


def filled(form: Form, opened: Received, key: str) -> Values:
    """Return the form of what was opened; nothing is run by it."""
    return {
        **form.filled(opened.request),
        **form.stale(),
        form["prompt"]: opened.prompt,
        form["seed"]: opened.seed,
        form["status"]: status("stale", key),
    }


def from_link(form: Form, request: gr.Request, model: str | None = None) -> Values | None:
    """Return the page as the link that it was opened by says it, with no result.

    None without a link, or where it is for another than this model, which was just loaded.
    """
    query = {name: str(text) for name, text in (request.query_params or {}).items()}
    if not is_link(query) or model not in (None, query.get("model")):
        return None
    try:
        opened = open_link(form.workbench, query)
    except RefusalError as e:
        offered = (
            {form["model"]: query["model"]} if query.get("model") in form.workbench.model_names() else {}
        )
        return {**offered, form["status"]: status("failed", "link_failed", str(e))}
    none = {part: compare.verdict(None) for part in form.parts_of(*VERDICTS)}
    return {**filled(form, opened, "opened_link"), form["model"]: opened.request.model, **none}


def linked_parts(form: Form) -> list[Any]:
    """Return what ``from_link`` changes."""
    return [*form.filled_parts, *form.parts_of("model", "prompt", "seed", *VERDICTS), *form.stale()]
