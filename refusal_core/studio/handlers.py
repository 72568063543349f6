"""What happens on the workbench when something is changed or pressed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from refusal_core.errors import RefusalError
from refusal_core.settings import SubspaceSettings, knobs
from refusal_core.studio import charts, compare, edit, opening, texts
from refusal_core.studio.concept import rows_message, rows_of
from refusal_core.studio.form import Form
from refusal_core.studio.jobs import GLUE, QUICK, Runner, SessionJob, Values, guarded, in_line
from refusal_core.studio.layout import Chip, State, heading, message, status
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench.history import History
from refusal_core.workbench.phrasing import phrase_preset
from refusal_core.workbench.tiles import TileJob, make_tiles, other_jobs, seed_jobs
from refusal_core.workbench.values import Comparison, EditRequest
from refusal_core.workbench.workbench import Workbench

JobsOf = Callable[[Values], Sequence[TileJob]]  # from the form to the tiles to make
RESULTS = ("vid-orig", "vid-edit", "vid-orig-verdict", "vid-edit-verdict", "save-both", "save-edit")
CHIPS: dict[State, Chip] = {"working": "working", "stopped": "stale", "failed": "failed", "done": "done"}


def join(runner: Runner, runs: History, form: Form) -> Any:
    """Join the three steps; return the event of a comparison, for what shall follow it."""
    undo = gr.State({"now": form["preset"].value})
    opening.join(form, undo)
    _join_models(runner, form, undo)
    _join_presets(form, undo)
    _join_phrase(form, undo)
    _join_views(runner, form)
    compared = _join_compare(runner, runs, form)
    _join_tiles(runner, form)
    return compared


def _join_models(runner: Runner, form: Form, undo: gr.State) -> None:
    workbench = runner.workbench

    @guarded
    def look(name: str) -> str:
        needs = workbench.needs(str(name or ""))
        words = texts.MODEL_NEEDS.format(
            title=needs.title, gigabytes=needs.gigabytes or 0.0, dtype=needs.dtype, free=needs.free
        )
        return f"<p>{escaped(words)}</p>"

    def load(values: Values, job: SessionJob) -> Iterator[Values]:
        model = str(values[form["model"]] or "")
        workbench.cached(model, job.progress)
        facts = workbench.facts(model)
        words = texts.MODEL_READY.format(title=facts.title, last=facts.layer_count - 1)
        yield {
            form["model-state"]: f"<p>{escaped(words)}</p>",
            form["spectrum"]: message("spectrum_wait"),
            form["map"]: message("map_none"),
        }

    outputs = form.parts_of("model-state", "spectrum", "map")
    shown_on = [form["model-state"]]
    form["model-look"].click(look, form["model"], form["model-state"], **QUICK)
    loaded = runner.on(form["model-load"].click, load, [form["model"]], outputs, show_progress_on=shown_on)

    def by_link(model: str, request: gr.Request) -> Values:
        return opening.from_link(form, request, model) or {}

    filled = _fill_from_preset(form, loaded.success, undo)
    filled.success(by_link, form["model"], opening.linked_parts(form), **GLUE)  # it waited for its model


def _fill_from_preset(form: Form, event: Callable[..., Any], undo: gr.State) -> Any:
    """Fill the form from its preset at an event, or from its model's first one; ``undo`` holds the old."""
    workbench = form.workbench

    def fill(values: Values) -> Values:
        model, name = values[form["model"]], values[form["preset"]]
        names = [preset.concept.name for preset in workbench.presets(model)]
        name = name if name in names else names[0]
        return {
            **form.filled(workbench.request(name, model)),
            **form.stale(),
            form["prompt"]: workbench.preset(name, model).prompt,
            **form.undoing(undo, values, values[undo]["now"], name),
        }

    return event(fill, *form.filling(undo), **GLUE)


def _join_presets(form: Form, undo: gr.State) -> None:
    # Not ``input``, which also comes where the menu is merely passed.
    chosen = functools.partial(gr.on, [form["preset"].select, form["load-preset"].click])
    _fill_from_preset(form, chosen, undo)

    def restore(state: dict[str, Any], model: str) -> Values:
        before = state["before"]
        rows = rows_message(form.workbench.check_pairs(rows_of(before["pairs"]), model))
        return {
            **{form[name]: value for name, value in before.items()},
            **form.stale(),
            form["rows-state"]: rows,
            form["undo-preset"]: gr.Button(interactive=False),
            undo: {"now": before["preset"]},
        }

    form["undo-preset"].click(restore, [undo, form["model"]], form.filling(undo)[1], **GLUE)
    typed = [*form.parts_of("pairs", "also", "strengths", *edit.LAYERS), *form.settings.values()]
    given = [part.change for part in form.parts_of("images_unsafe", "images_safe")]
    for event in (*(part.input for part in typed), *given):
        event(form.stale, None, list(form.stale()), **GLUE)


def _join_phrase(form: Form, undo: gr.State) -> None:
    """Let a phrase write the table of pairs, the prompt and the rank; what they held can be brought back."""

    @guarded
    def write(values: Values) -> Values:
        model = str(values[form["model"]] or "")
        made = phrase_preset(str(values[form["phrase"]] or ""), values[form["phrase-kind"]], model)
        rows = [(pair.unsafe, pair.safe) for pair in made.concept.pairs]
        return {
            form["pairs"]: rows,
            form["rows-state"]: rows_message(form.workbench.check_pairs(rows, model)),
            form["prompt"]: made.prompt,
            **form.undoing(undo, values, values[form["preset"]], values[form["preset"]]),
            **form.set(made.recommended),
            **form.stale(),
        }

    inputs, outputs = form.filling(undo)
    inputs |= {*form.parts_of("phrase", "phrase-kind")}
    form["phrase-write"].click(write, inputs, outputs, **QUICK)


def _join_views(runner: Runner, form: Form) -> None:
    """The spectrum follows every move of a slider without running the model; the map is made when asked."""
    workbench = runner.workbench
    known = {*form.inputs, form["site"]}

    def redraw(values: Values) -> str:
        try:
            return charts.spectrum(workbench.spectrum(form.request(values), values[form["site"]]))
        except RefusalError as e:
            return f"<p class='rs-empty'>{escaped(str(e))}</p>"

    def read(values: Values, job: SessionJob) -> Iterator[Values]:
        view = job.call(Workbench.spectrum, form.request(values), values[form["site"]])
        yield {form["spectrum"]: charts.spectrum(view)}

    def chart(values: Values, job: SessionJob) -> Iterator[Values]:
        estimate = job.call(Workbench.estimate_everywhere, form.request(values))
        notes = "\n\n".join(estimate.notes)
        table = edit.rows_of(estimate)
        yield {form["map"]: charts.heat_map(estimate), form["figures"]: table, form["notes"]: notes}

    def cosines(values: Values, job: SessionJob) -> Iterator[Values]:
        yield {form["cosines"]: charts.cosine_table(job.call(Workbench.cosines, form.request(values)))}

    def pick(values: Values, event: gr.EventData) -> Values:
        kind, layer, (sites, first, last) = str(event.kind), int(event.layer), picked
        if not event.more:
            return {sites: [kind], first: layer, last: layer} | form.stale()
        kinds = list(dict.fromkeys([*values[sites], kind]))
        low, high = min(int(values[first]), layer), max(int(values[last]), layer)
        return {sites: kinds, first: low, last: high} | form.stale()

    moved = [form[name].input for name in ("sites", "site", *(k.name for k in knobs(SubspaceSettings)))]
    moved.append(form["preset"].change)
    gr.on(moved, redraw, known, form["spectrum"], trigger_mode="always_last", **GLUE)
    runner.on(form["spectrum-read"].click, read, known, [form["spectrum"]])
    runner.on(form["map-make"].click, chart, form.inputs, form.parts_of("map", "figures", "notes"))
    runner.on(form["cosines-run"].click, cosines, form.inputs, [form["cosines"]])
    picked = form.parts_of("sites", *edit.LAYERS)
    form["map"].pick(pick, set(picked), [*picked, *form.stale()], **GLUE)


def _join_compare(runner: Runner, runs: History, form: Form) -> Any:
    def show(state: State, key: str) -> Values:
        title = heading("step_compare", CHIPS[state], TEXT["step_compare_note"])
        started = _emptied(form) if state == "working" else {}
        return {
            form["status"]: status(state, "queued" if started else key),
            form["title-3"]: title,
            **started,
        }

    def run(values: Values, job: SessionJob) -> Iterator[Values]:
        request, prompt = form.request(values), values[form["prompt"]]
        for result in job.stream(Workbench.compare, request, prompt, form.sampling(values)):
            if result.unlearned is not None:  # kept before it is called done: a page may be left then
                keep(result, values[form["owner"]], request, prompt)
            yield _progressed(result, form)
        edit_file = job.call(Workbench.save_edit, request, session=job.session)
        view = runner.workbench.spectrum(request, values[form["site"]])
        yield show("done", "done") | {
            form["save-edit"]: gr.DownloadButton(value=edit_file, interactive=True),
            form["spectrum"]: charts.spectrum(view),
            form["title-2"]: heading("step_edit", "ready"),
            form["status"]: status("done", "done", " ".join(result.notes)),  # with the last thing done
        }

    def keep(result: Comparison, owner: str, request: EditRequest, prompt: str) -> None:
        """Keep the run; a disk that is full, or a browser without an id, costs the history only."""
        try:
            runs.add(owner, request, result, prompt)
        except RefusalError as e:
            gr.Warning(escaped(str(e)))

    # Named here, not taken from ``_emptied``: a button made while the page is laid out becomes part of it.
    outputs = form.parts_of(*RESULTS, "status", "spectrum", "title-2", "title-3")
    event = functools.partial(gr.on, [form["run"].click, form["prompt"].submit])
    # Only where the video comes last: progress must not hide the original, which is there long before.
    shown_on = {"show_progress_on": form.parts_of("vid-edit"), "trigger_mode": "once"}
    runner.stop_on(form["stop"])
    return runner.on(event, run, form.compared | {form["site"]}, outputs, show, **shown_on)


def _emptied(form: Form) -> Values:
    """Return a page without results, so that nothing old is taken for new."""
    return {
        form["vid-orig"]: None,
        form["vid-edit"]: None,
        form["vid-orig-verdict"]: compare.verdict(None),
        form["vid-edit-verdict"]: compare.verdict(None),
        form["save-both"]: gr.DownloadButton(interactive=False),
        form["save-edit"]: gr.DownloadButton(interactive=False),
    }


def _progressed(result: Comparison, form: Form) -> Values:
    """Return what the page shows of a comparison so far."""
    if result.unlearned is None:
        assert result.original is not None
        return {
            form["status"]: status("working", "original_ready"),
            form["vid-orig"]: str(result.original.path),
            form["vid-orig-verdict"]: compare.verdict(result.original),
        }
    return {
        form["status"]: status("working", "both_ready"),
        form["vid-edit"]: str(result.unlearned.path),
        form["vid-edit-verdict"]: compare.verdict(result.unlearned, result.quality),
        form["save-both"]: gr.DownloadButton(value=result.side_by_side, interactive=True),
    }


def _join_tiles(runner: Runner, form: Form) -> None:
    workbench = runner.workbench

    def grid(jobs_of: JobsOf, tiles: gr.Gallery) -> Callable[..., Iterator[Values]]:
        def make(values: Values, job: SessionJob) -> Iterator[Values]:
            jobs, done = jobs_of(values), []
            yield {tiles: gr.Gallery(value=[], visible=True)}
            for tile in job.stream(make_tiles, jobs):
                done.append(tile)
                more = status("working", "working", f"{len(done)} / {len(jobs)}")
                yield {tiles: compare.tiles_value(done), form["status"]: more}
            yield {form["status"]: status("done", "finished", f"{len(done)} / {len(jobs)}")}

        return make

    def by_seed(values: Values) -> Sequence[TileJob]:
        first, count = form.sampling(values).seed, int(values[form["seeds"]])
        return seed_jobs(form.request(values), values[form["prompt"]], first, count)

    def ordinary(values: Values) -> Sequence[TileJob]:
        return other_jobs(workbench, form.request(values), form.sampling(values).seed)

    inputs, line = form.compared | {form["seeds"]}, form["status"]
    for button, jobs_of, name in (
        ("seeds-run", by_seed, "seeds-tiles"),
        ("others-run", ordinary, "others-tiles"),
    ):
        make, outputs = grid(jobs_of, form[name]), [form[name], line]
        runner.on(form[button].click, make, inputs, outputs, in_line(line), show_progress_on=[line])
