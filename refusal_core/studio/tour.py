"""A guided tour in four steps, on a first visit or when asked for. Runs in the browser only."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from refusal_core.studio.texts import h

PLACES = ("#concept-card", "#edit-card", "#run", "#pages > .tab-wrapper")
SCRIPT = (Path(__file__).parent / "tour.js").read_text(encoding="utf-8")


def add(app: gr.Blocks, button: gr.Button) -> None:
    """Add the tour's texts, hidden, and what starts it."""
    steps = "".join(
        f"<li data-place='{place}'>{h(f'tour_{number}')}</li>" for number, place in enumerate(PLACES, start=1)
    )
    words = "".join(
        f"<span data-word='{word}'>{h(f'tour_{word}')}</span>" for word in ("next", "end", "skip")
    )
    gr.HTML(f"<ol hidden>{steps}</ol><p hidden>{words}</p>", elem_id="tour-texts", container=False)
    app.load(None, js=f"() => {{ {SCRIPT} if (!localStorage.getItem('rs-toured')) rsTour(); }}")
    button.click(None, js="() => window.rsTour()")
