"""The endpoints for programs, as strict as the form; with gradio's MCP server they are tools as well.

Their arguments are made from the settings' knobs. Hidden components stand for them and for the results:
only components carry files.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from refusal_core.errors import InputError
from refusal_core.settings import Knob, SamplingSettings, recipe_knobs
from refusal_core.studio.jobs import MODEL_QUEUE, Runner, SessionJob, session_of, shown
from refusal_core.workbench.evaluating import SuiteRequest
from refusal_core.workbench.evaluating import evaluate as run_suite
from refusal_core.workbench.exporting import export as export_edit
from refusal_core.workbench.values import EditRequest
from refusal_core.workbench.workbench import Workbench

PUBLIC = {**MODEL_QUEUE, "api_visibility": "public"}
FIRST = ("method", "rank", "strength")  # of the settings, for programs that give them by place
Work = Callable[[EditRequest, SessionJob, dict[str, Any]], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What an endpoint does; its docstring says so to programs."""

    work: Work
    arguments: Mapping[str, Any]  # components, beside those of the preset and the settings
    results: list[gr.components.Component]


def add(runner: Runner) -> None:
    """Add ``/edit``, ``/compare``, ``/evaluate`` and ``/export``."""
    with gr.Column(visible=False):
        _add(runner, Endpoint(edit, {}, [gr.File(label="edit"), gr.JSON(label="figures")]))
        prompt = {
            "prompt": gr.Textbox(label="prompt", info="what to show"),
            "seed": gr.Number(0, label="seed", precision=0, info="of the noise; both videos share it"),
        }
        videos = [gr.Video(label="original"), gr.Video(label="unlearned")]
        verdicts = [gr.Textbox(label="original verdict"), gr.Textbox(label="unlearned verdict")]
        _add(runner, Endpoint(compare, prompt, [*videos, *verdicts]))
        suite = {
            "videos": gr.Number(8, label="videos", info="in each group, 1 to 200"),
            "suite": gr.Textbox("toyworld", label="suite", info="toyworld or adversarial"),
        }
        _add(runner, Endpoint(evaluate, suite, [gr.JSON(label="table"), gr.File(label="report")]))
        form = {"form": gr.Textbox("edit", label="form", info="edit, lora, comfyui or weights")}
        files = [gr.File(label="files", file_count="multiple"), gr.Textbox(label="snippet")]
        _add(runner, Endpoint(export, form, files))


def edit(request: EditRequest, job: SessionJob, _given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Make an edit file that removes a preset's concept from the model."""
    estimate = job.call(Workbench.estimate, request)
    path = job.call(Workbench.save_edit, request, session=job.session)
    sites = {r.site: {"d_prime": r.d_prime, "kept_share": r.kept_share} for r in estimate.rows}
    return str(path), {"sites": sites, "notes": list(estimate.notes)}


def compare(request: EditRequest, job: SessionJob, given: dict[str, Any]) -> tuple[str, str, str, str]:
    """Make the original and the unlearned video of a prompt, on the same noise."""
    sampling = SamplingSettings(_whole(given["seed"], "seed"))
    *_, result = job.stream(Workbench.compare, request, given["prompt"], sampling)
    before, after = result.original, result.unlearned
    return str(before.path), str(after.path), before.verdict, after.verdict


def evaluate(request: EditRequest, job: SessionJob, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Judge an edit on many prompts: how often the concept is shown, how much of the rest is kept."""
    wanted = SuiteRequest(given["suite"] or "", _whole(given["videos"], "videos"))
    *_, state = job.stream(run_suite, request, wanted)
    report = next(path for path in state.files if path.suffix == ".json")
    return {"head": list(state.head), "rows": [list(row) for row in state.rows]}, str(report)


def export(request: EditRequest, job: SessionJob, given: dict[str, Any]) -> tuple[list[str], str]:
    """Write an edit in a form that other programs load, with the lines that use it."""
    form = given["form"] or ""
    if form == "weights" and job.workbench.only_bundled:
        raise InputError("Whole weights are not exported here; export a LoRA or the edit file.")
    exported = job.call(export_edit, request, form, session=job.session)
    return [str(path) for path in exported.paths], exported.snippet


def _whole(value: Any, name: str) -> int:
    """Return a number that a program sent; JSON as Python reads it has some that are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} must be a number.")
    if value != int(value):
        raise InputError(f"{name} must be a whole number.")
    return int(value)


def _argument(knob: Knob) -> gr.components.Component:
    """Return what stands for a setting; left out it is the preset's."""
    if knob.input in ("whole", "number"):
        return gr.Number(None, label=knob.name, info=f"{knob.help} {knob.low:g} to {knob.high:g}.")
    known = f" One of {', '.join(knob.choices)}." if knob.choices else ""
    return gr.Textbox("", label=knob.name, info=knob.help + known)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a program gave. Rank 0 stands for the preset's, too: it once had to."""
    chosen = {knob.name: given[knob.name] for knob in recipe_knobs()}
    return {n: v for n, v in chosen.items() if v not in (None, "") and not (n == "rank" and v == 0)}


def _add(runner: Runner, endpoint: Endpoint) -> None:
    """Add one endpoint, named as its function; a known failure is one sentence, any other a number to report.

    A client that cancels ends the work at its next step, and only then is the next job's turn.
    """
    knobs = sorted(
        recipe_knobs(), key=lambda knob: FIRST.index(knob.name) if knob.name in FIRST else len(FIRST)
    )
    arguments: dict[str, Any] = {
        "preset": gr.Textbox(label="preset", info="name of a preset, such as fire"),
        **endpoint.arguments,
        **{knob.name: _argument(knob) for knob in knobs},
    }

    async def run(request: gr.Request, **given: Any) -> tuple[Any, ...]:
        def work() -> tuple[Any, ...]:
            wanted = runner.workbench.request(given["preset"], values=_settings(given))
            return endpoint.work(wanted, job, given)

        try:
            job = runner.start(request)
            running = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                runner.stops.stop(session_of(request))
                await asyncio.wait([running])
                raise
        except Exception as e:
            raise shown(e) from e

    name = endpoint.work.__name__
    run.__name__, run.__doc__ = name, _described(endpoint.work, arguments)
    run.__signature__ = _signature(arguments)  # type: ignore[attr-defined]
    gr.Button(name).click(run, None, endpoint.results, inputs_kwargs=arguments, api_name=name, **PUBLIC)


def _described(work: Work, arguments: Mapping[str, Any]) -> str:
    """Return the docstring that tells programs of the arguments."""
    lines = [f"    {name}: {component.info}" for name, component in arguments.items()]
    return "\n".join((work.__doc__ or "", "", "Args:", *lines))


def _signature(arguments: Mapping[str, Any]) -> inspect.Signature:
    """Return the signature by which Gradio knows what may be left out: the settings."""
    kind, known = inspect.Parameter, {knob.name for knob in recipe_knobs()}
    named = [
        kind(name, kind.KEYWORD_ONLY, default=None if name in known else kind.empty) for name in arguments
    ]
    return inspect.Signature([kind("request", kind.POSITIONAL_OR_KEYWORD, annotation=gr.Request), *named])
