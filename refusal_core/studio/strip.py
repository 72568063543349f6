"""The strip: on every page, in one line, which edit the workbench's form asks for."""

from __future__ import annotations

from typing import Any

import gradio as gr

from refusal_core.errors import RefusalError
from refusal_core.studio.form import Form
from refusal_core.studio.jobs import GLUE, Values
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench.values import EditRequest

SHOWN = ("status", "preset", "rank", "strength")
TYPED = ("pairs", "method", "also")


def strip(title: str, request: EditRequest) -> str:
    """Return model, concepts, method, rank and strength; that they were changed shows the style sheet."""
    recipe = request.recipe
    concepts = [made.concept.name.replace("-", " ") for made in (recipe, *request.further)]
    method = TEXT[f"method_{recipe.subspace.method}"]
    said = [title, " + ".join(concepts), method, f"k {recipe.subspace.rank}", f"λ {recipe.edit.strength:g}"]
    items = "".join(f"<li>{escaped(text)}</li>" for text in said)
    return f"<ul class='rs-strip'>{items}<li class='rs-changed'>{TEXT['changed']}</li></ul>"


def build(title: str, request: EditRequest) -> None:
    """Lay out the strip of an edit."""
    gr.HTML(strip(title, request), elem_id="strip")


def join(form: Form) -> None:
    """Let the strip follow the form; while that asks for no edit it stays as it is."""

    def follow(values: Values) -> Any:
        try:
            request = form.request(values)
            return strip(form.workbench.facts(request.model).title, request)
        except RefusalError:
            return gr.skip()

    events = [*(form[name].change for name in SHOWN), *(form[name].input for name in TYPED)]
    gr.on(events, follow, form.inputs, form["strip"], trigger_mode="always_last", **GLUE)
