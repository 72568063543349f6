"""The page: three steps, and the handlers that join them."""

from __future__ import annotations

import html
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from refusal_core.errors import Cancelled, RefusalError
from refusal_core.progress import Progress
from refusal_core.studio import compare, concept, edit, texts
from refusal_core.studio.bars import bars
from refusal_core.studio.concept import GLUE, rows_message, rows_of
from refusal_core.studio.frame import status
from refusal_core.studio.player import SYNC
from refusal_core.studio.theme import CSS, theme
from refusal_core.workbench import EditRequest, Workbench

logger = logging.getLogger(__name__)
MODEL_QUEUE = {"concurrency_id": "model", "concurrency_limit": 1}


def launch_kwargs() -> dict[str, Any]:
    """Return how the app is always launched: look and security in one place."""
    return {
        "theme": theme(),
        "css": CSS,
        "share": False,
        "show_error": False,
        "allowed_paths": [],
        "max_file_size": "5mb",
        "enable_monitoring": False,
        "run_history": False,  # on by default, it would store every prompt in the browser
        "strict_cors": True,
        "ssr_mode": False,
        "pwa": False,
        "footer_links": ["api"],
        "state_session_capacity": 500,
    }


class Stops:
    """One stop flag a session, read between denoising steps."""

    def __init__(self) -> None:
        self._flags: dict[str, threading.Event] = {}

    def start(self, session: str) -> threading.Event:
        """Return a fresh flag for a session's new job."""
        self._flags[session] = threading.Event()
        return self._flags[session]

    def stop(self, session: str) -> None:
        """Raise the flag of a session's running job."""
        if session in self._flags:
            self._flags[session].set()

    def forget(self, session: str) -> None:
        """Stop what still runs for a session that has gone."""
        self.stop(session)
        self._flags.pop(session, None)


def _telling(progress: gr.Progress, flag: threading.Event) -> Progress:
    def tell(fraction: float, sentence: str) -> None:
        if flag.is_set():
            raise Cancelled(texts.STOPPED)
        progress(fraction, desc=sentence)

    return tell


def _shown(error: Exception) -> gr.Error:
    """Turn an error into what the user sees: its sentence, or a number to report."""
    if isinstance(error, RefusalError):
        # Gradio shows it as HTML: a prompt inside could load an image from elsewhere.
        sentence = html.escape(str(error), quote=False)
        return gr.Error(sentence, duration=None, print_exception=False)
    number = uuid.uuid4().hex[:8]
    logger.error("report number %s", number, exc_info=error)
    return gr.Error(texts.UNEXPECTED.format(number=number), duration=None, print_exception=False)


def build_app(workbench: Workbench) -> gr.Blocks:
    """Return the app for a workbench; launch it with ``launch_kwargs()``."""
    stops = Stops()
    with gr.Blocks(
        title=texts.TITLE, analytics_enabled=False, delete_cache=(1800, 7200), fill_width=True
    ) as app:
        title = f"<h1>{texts.TITLE}<span class='rs-badge'>{html.escape(workbench.model_title)}</span></h1>"
        gr.HTML(f"{title}<p>{texts.LEAD}</p>", elem_classes="rs-head")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=5, min_width=320, elem_id="left"):
                one = concept.build(workbench)
                two = edit.build(workbench)
            with gr.Column(scale=6, min_width=320, elem_id="right"):
                three = compare.build(workbench)
        gr.Markdown(texts.SAFETY, elem_classes="rs-foot")
        _join_presets(workbench, one, two, three)
        _join_estimate(workbench, one, two, stops)
        _join_compare(workbench, one, two, three, stops)
        _add_endpoints(workbench)
        app.load(None, js=SYNC)
        app.unload(_forgetting(workbench, stops))
    app.queue(max_size=20, default_concurrency_limit=4)
    return app


def _forgetting(workbench: Workbench, stops: Stops) -> Callable[[gr.Request], None]:
    def forget(request: gr.Request) -> None:
        stops.forget(request.session_hash or "")
        workbench.forget(request.session_hash or "")

    return forget


def _join_presets(
    workbench: Workbench, one: concept.ConceptStep, two: edit.EditStep, three: compare.CompareStep
) -> None:
    presets = {p.concept.name: p for p in workbench.presets()}

    def load(name: str) -> list[Any]:
        preset = presets[name]
        s, pairs = preset.recommended, [[p.unsafe, p.safe] for p in preset.concept.pairs]
        state = rows_message([None] * len(pairs))
        stale = status("stale", texts.STALE)
        return [pairs, state, preset.prompt, s.method, list(s.sites), s.rank, s.strength, s.anchor, stale]

    outputs = [
        one.pairs, one.rows_state, three.prompt, two.method, two.sites, two.rank, two.strength,
        two.anchor, three.status,
    ]  # fmt: skip
    gr.on([one.preset.input, one.load.click], load, one.preset, outputs, **GLUE)
    for component in (one.pairs, *two.settings):
        component.input(lambda: status("stale", texts.STALE), None, three.status, **GLUE)


def _request(values: dict[Any, Any], one: concept.ConceptStep, two: edit.EditStep) -> EditRequest:
    return EditRequest(
        preset=values[one.preset],
        pairs=rows_of(values[one.pairs]),
        method=values[two.method],
        sites=tuple(values[two.sites]),
        layers=f"{int(values[two.first])}-{int(values[two.last])}",
        rank=int(values[two.rank]),
        strength=float(values[two.strength]),
        anchor=values[two.anchor],
    )


def _join_estimate(workbench: Workbench, one: concept.ConceptStep, two: edit.EditStep, stops: Stops) -> None:
    def estimate(
        values: dict[Any, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
    ) -> list[Any]:
        tell = _telling(progress, stops.start(request.session_hash or ""))
        try:
            found = workbench.estimate(_request(values, one, two), tell)
        except Exception as e:
            raise _shown(e) from e
        return [bars(found), edit.rows_of(found), "\n\n".join(found.notes)]

    inputs = {one.preset, one.pairs, *two.settings}
    two.estimate.click(
        estimate, inputs, [two.plot, two.table, two.notes], api_visibility="private", **MODEL_QUEUE
    )


def _join_compare(
    workbench: Workbench,
    one: concept.ConceptStep,
    two: edit.EditStep,
    three: compare.CompareStep,
    stops: Stops,
) -> None:
    def run(
        values: dict[Any, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
    ) -> Iterator[dict[Any, Any]]:
        session = request.session_hash or ""
        tell = _telling(progress, stops.start(session))
        empty = {three.original: None, three.unlearned: None}
        words = {
            three.original_verdict: compare.verdict(None),
            three.unlearned_verdict: compare.verdict(None),
        }
        closed = {
            three.both: gr.DownloadButton(interactive=False),
            three.edit_file: gr.DownloadButton(interactive=False),
        }
        yield {three.status: status("working", texts.QUEUED)} | empty | words | closed
        try:
            asked, seed = _request(values, one, two), int(values[three.seed] or 0)
            for found in workbench.compare(asked, values[three.prompt], seed, tell, session=session):
                yield _progressed(found, three)
            edit_file = workbench.save_edit(asked, tell, session=session)
            yield {three.edit_file: gr.DownloadButton(value=edit_file, interactive=True)}
        except Cancelled:
            yield {three.status: status("stopped", texts.STOPPED)}
        except Exception as e:
            yield {three.status: status("failed", texts.FAILED)}
            raise _shown(e) from e

    def stop(request: gr.Request) -> str:
        stops.stop(request.session_hash or "")
        return status("stopped", texts.STOPPED)

    inputs = {one.preset, one.pairs, *two.settings, three.prompt, three.seed}
    outputs = [
        three.status, three.original, three.unlearned, three.original_verdict, three.unlearned_verdict,
        three.both, three.edit_file,
    ]  # fmt: skip
    job = gr.on(
        [three.run.click, three.prompt.submit],
        run,
        inputs,
        outputs,
        api_visibility="private",
        show_progress_on=[three.original, three.unlearned],
        trigger_mode="once",
        **MODEL_QUEUE,
    )
    three.stop.click(stop, None, three.status, cancels=[job], **GLUE)


def _progressed(found: Any, three: compare.CompareStep) -> dict[Any, Any]:
    """Return what the page shows of a comparison so far."""
    if found.unlearned is None:
        return {
            three.status: status("working", texts.ORIGINAL_READY),
            three.original: str(found.original.path),
            three.original_verdict: compare.verdict(found.original),
        }
    note = " ".join((texts.DONE, *found.notes))
    return {
        three.status: status("done", note),
        three.unlearned: str(found.unlearned.path),
        three.unlearned_verdict: compare.verdict(found.unlearned),
        three.both: gr.DownloadButton(value=found.side_by_side, interactive=True),
    }


def _add_endpoints(workbench: Workbench) -> None:
    """Add the endpoints for programs: hidden components, as only components carry files."""
    presets = {p.concept.name: p for p in workbench.presets()}

    def api_compare(
        preset: str, prompt: str, seed: float, method: str, rank: float, strength: float, request: gr.Request
    ) -> tuple[str, str, str, str]:
        """Make the original and the unlearned video of a prompt, with a preset's pairs.

        Args:
            preset: name of a preset.
            prompt: what to show.
            seed: of the noise; both videos share it.
            method: whitened, cpca, pca or rv.
            rank: directions kept, 1 to 128.
            strength: 0 nothing, 1 all of the direction.
        """
        try:
            asked = _api_request(presets, preset, method, rank, strength)
            session = request.session_hash or uuid.uuid4().hex
            *_, found = workbench.compare(asked, prompt, int(seed), session=session)
        except Exception as e:
            raise _shown(e) from e
        return (
            str(found.original.path),
            str(found.unlearned.path),
            found.original.verdict,
            found.unlearned.verdict,
        )

    with gr.Column(visible=False):
        inputs = [
            gr.Textbox(label="preset"), gr.Textbox(label="prompt"), gr.Number(label="seed", precision=0),
            gr.Textbox("whitened", label="method"), gr.Number(1, label="rank"),
            gr.Number(1.0, label="strength"),
        ]  # fmt: skip
        outputs = [
            gr.Video(label="original"), gr.Video(label="unlearned"),
            gr.Textbox(label="original verdict"), gr.Textbox(label="unlearned verdict"),
        ]  # fmt: skip
        gr.Button("compare").click(
            api_compare, inputs, outputs, api_name="compare", api_visibility="public", **MODEL_QUEUE
        )


def _api_request(
    presets: dict[str, Any], name: str, method: Any, rank: float, strength: float
) -> EditRequest:
    if name not in presets:
        raise RefusalError(f"There is no preset '{name[:60]}'; choose one of {', '.join(presets)}.")
    chosen = presets[name]
    return EditRequest(
        preset=name,
        pairs=tuple((p.unsafe, p.safe) for p in chosen.concept.pairs),
        method=method,
        sites=chosen.recommended.sites,
        layers=chosen.recommended.layers,
        rank=int(rank),
        strength=float(strength),
        anchor=chosen.recommended.anchor,
    )
