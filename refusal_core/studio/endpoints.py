"""The endpoints for programs, as strict as the form; with gradio's MCP server they are tools as well.

Hidden components stand for their arguments and results: only components carry files.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from refusal_core.errors import InputError
from refusal_core.progress import Progress
from refusal_core.studio import gpu
from refusal_core.studio.jobs import MODEL_QUEUE, Stops, session_of, shown
from refusal_core.workbench import EditRequest, Workbench, export_edit
from refusal_core.workbench import evaluate as run_suite

PUBLIC = {**MODEL_QUEUE, "api_visibility": "public"}


def add(workbench: Workbench, stops: Stops) -> None:
    """Add ``/edit``, ``/compare``, ``/evaluate`` and ``/export``."""
    with gr.Column(visible=False):
        _add_edit(workbench, stops)
        _add_compare(workbench, stops)
        _add_evaluate(workbench, stops)
        _add_export(workbench, stops)


def _request(workbench: Workbench, preset: str, method: Any, rank: Any, strength: Any) -> EditRequest:
    chosen = next((p for p in workbench.presets() if p.concept.name == preset), None)
    if chosen is None:
        names = ", ".join(p.concept.name for p in workbench.presets())
        raise InputError(f"There is no preset '{str(preset)[:60]}'; choose one of {names}.")
    asked = workbench.preset_request(chosen, workbench.default_model)
    return replace(
        asked,
        method=method or asked.method,
        rank=_whole(rank, "rank") or asked.rank,
        strength=_number(strength, "strength"),
    )


def _number(value: Any, name: str) -> float:
    """Return a number that a program sent; JSON as Python reads it has some that are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} must be a number.")
    return float(value)


def _whole(value: Any, name: str) -> int:
    number = _number(value, name)
    if number != int(number):
        raise InputError(f"{name} must be a whole number.")
    return int(number)


def _settings() -> list[gr.components.Component]:
    """Return the arguments that every endpoint has; the last three may be left out."""
    return [
        gr.Textbox(label="preset"), gr.Textbox("", label="method"), gr.Number(0, label="rank", precision=0),
        gr.Number(1.0, label="strength"),
    ]  # fmt: skip


async def _guarded(stops: Stops, request: gr.Request, work: Callable[[Progress], Any]) -> Any:
    """Run an endpoint's work in a thread; a known failure is one sentence, any other a number to report.

    A client that cancels ends the work at its next step, and only then is the next job's turn.
    """
    try:
        tell = stops.telling(request)
        running = asyncio.ensure_future(asyncio.to_thread(work, tell))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stops.stop(session_of(request))
            await asyncio.wait([running])
            raise
    except Exception as e:
        raise shown(e) from e


def _add_edit(workbench: Workbench, stops: Stops) -> None:
    async def edit(
        preset: str, method: str, rank: float, strength: float, request: gr.Request
    ) -> tuple[str, dict[str, Any]]:
        """Make an edit file that removes a preset's concept from the model.

        Args:
            preset: name of a preset, such as fire.
            method: whitened, cpca, pca or rv; empty for the preset's.
            rank: directions removed, 1 to 128; 0 for the preset's.
            strength: 0 nothing, 1 all of the direction.
        """

        def work(tell: Progress) -> tuple[str, dict[str, Any]]:
            asked = _request(workbench, preset, method, rank, strength)
            found = gpu.call(Workbench.estimate, workbench, asked, progress=tell)
            told = {"progress": tell, "session": session_of(request)}
            path = gpu.call(Workbench.save_edit, workbench, asked, **told)
            sites = {r.site: {"d_prime": r.d_prime, "kept_share": r.kept_share} for r in found.rows}
            return str(path), {"sites": sites, "notes": list(found.notes)}

        return await _guarded(stops, request, work)

    gr.Button("edit").click(
        edit, _settings(), [gr.File(label="edit"), gr.JSON(label="figures")], api_name="edit", **PUBLIC
    )


def _add_compare(workbench: Workbench, stops: Stops) -> None:
    async def compare(
        preset: str,
        prompt: str,
        seed: float,
        method: str,
        rank: float,
        strength: float,
        request: gr.Request,
    ) -> tuple[str, str, str, str]:
        """Make the original and the unlearned video of a prompt, on the same noise.

        Args:
            preset: name of a preset, such as fire.
            prompt: what to show.
            seed: of the noise; both videos share it.
            method: whitened, cpca, pca or rv; empty for the preset's.
            rank: directions removed, 1 to 128; 0 for the preset's.
            strength: 0 nothing, 1 all of the direction.
        """

        def work(tell: Progress) -> tuple[str, str, str, str]:
            asked = _request(workbench, preset, method, rank, strength)
            told = {"progress": tell, "session": session_of(request)}
            *_, found = gpu.stream(Workbench.compare, workbench, asked, prompt, _whole(seed, "seed"), **told)
            before, after = found.original, found.unlearned
            assert before is not None and after is not None
            return str(before.path), str(after.path), before.verdict, after.verdict

        return await _guarded(stops, request, work)

    preset, method, rank, strength = _settings()
    inputs = [
        preset,
        gr.Textbox(label="prompt"),
        gr.Number(0, label="seed", precision=0),
        method,
        rank,
        strength,
    ]
    outputs = [
        gr.Video(label="original"), gr.Video(label="unlearned"), gr.Textbox(label="original verdict"),
        gr.Textbox(label="unlearned verdict"),
    ]  # fmt: skip
    gr.Button("compare").click(compare, inputs, outputs, api_name="compare", **PUBLIC)


def _add_evaluate(workbench: Workbench, stops: Stops) -> None:
    async def evaluate(
        preset: str,
        videos: float,
        suite: str,
        method: str,
        rank: float,
        strength: float,
        request: gr.Request,
    ) -> tuple[dict[str, Any], str]:
        """Judge an edit on many prompts: how often the concept is shown, how much of the rest is kept.

        Args:
            preset: name of a preset, such as fire.
            videos: in each group, 1 to 200.
            suite: toyworld or adversarial.
            method: whitened, cpca, pca or rv; empty for the preset's.
            rank: directions removed, 1 to 128; 0 for the preset's.
            strength: 0 nothing, 1 all of the direction.
        """

        def work(tell: Progress) -> tuple[dict[str, Any], str]:
            asked = _request(workbench, preset, method, rank, strength)
            told = {"progress": tell, "session": session_of(request)}
            count = _whole(videos, "videos")
            *_, found = gpu.stream(run_suite, workbench, asked, suite, count, (), **told)
            report = next(path for path in found.files if path.suffix == ".json")
            return {"head": list(found.head), "rows": [list(row) for row in found.rows]}, str(report)

        return await _guarded(stops, request, work)

    preset, method, rank, strength = _settings()
    inputs = [
        preset,
        gr.Number(8, label="videos"),
        gr.Textbox("toyworld", label="suite"),
        method,
        rank,
        strength,
    ]
    outputs = [gr.JSON(label="table"), gr.File(label="report")]
    gr.Button("evaluate").click(evaluate, inputs, outputs, api_name="evaluate", **PUBLIC)


def _add_export(workbench: Workbench, stops: Stops) -> None:
    async def export(
        preset: str, form: str, method: str, rank: float, strength: float, request: gr.Request
    ) -> tuple[list[str], str]:
        """Write an edit in a form that other programs load, with the lines that use it.

        Args:
            preset: name of a preset, such as fire.
            form: edit, lora, comfyui or weights.
            method: whitened, cpca, pca or rv; empty for the preset's.
            rank: directions removed, 1 to 128; 0 for the preset's.
            strength: 0 nothing, 1 all of the direction.
        """

        def work(tell: Progress) -> tuple[list[str], str]:
            asked = _request(workbench, preset, method, rank, strength)
            if form == "weights" and workbench.only_bundled:
                raise InputError("Whole weights are not exported here; export a LoRA or the edit file.")
            told = {"progress": tell, "session": session_of(request)}
            found = gpu.call(export_edit, workbench, asked, form or "", **told)
            return [str(path) for path in found.paths], found.snippet

        return await _guarded(stops, request, work)

    preset, method, rank, strength = _settings()
    inputs = [preset, gr.Textbox("edit", label="form"), method, rank, strength]
    outputs = [gr.File(label="files", file_count="multiple"), gr.Textbox(label="snippet")]
    gr.Button("export").click(export, inputs, outputs, api_name="export", **PUBLIC)
