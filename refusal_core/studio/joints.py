"""What happens on the workbench when something is changed or pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from refusal_core.errors import Cancelled, RefusalError
from refusal_core.studio import compare, edit, gpu, map, texts
from refusal_core.studio.concept import preset_choices, rows_message
from refusal_core.studio.form import Form, Values
from refusal_core.studio.frame import heading, message, status
from refusal_core.studio.jobs import GLUE, MODEL_QUEUE, QUICK, Stops, session_of, shown, stop_button
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench import (
    Comparison,
    History,
    Workbench,
    example_jobs,
    make_tiles,
    other_jobs,
    seed_jobs,
)

JobsOf = Callable[[Values], Sequence[Any]]  # from the form to the tiles to make


def join(workbench: Workbench, runs: History, form: Form, stops: Stops, example: gr.Button) -> Any:
    """Join the three steps; return the event of a comparison, for what shall follow it."""
    _join_models(workbench, form, stops)
    _join_presets(workbench, form)
    _join_views(workbench, form, stops)
    compared = _join_compare(workbench, runs, form, stops)
    _join_tiles(workbench, form, stops, example)
    return compared


def _join_models(workbench: Workbench, form: Form, stops: Stops) -> None:
    one, two, three = form.one, form.two, form.three

    def look(name: str) -> str:
        try:
            needs = workbench.needs(str(name or ""))
        except Exception as e:
            raise shown(e) from e
        words = texts.MODEL_NEEDS.format(
            title=needs.title, gigabytes=needs.gigabytes or 0.0, dtype=needs.dtype, free=needs.free
        )
        return f"<p>{escaped(words)}</p>"

    def load(
        name: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
    ) -> Values:
        try:
            model = str(name or "")
            workbench.held(model, stops.telling(request, progress))
            presets = preset_choices(workbench, model)
        except Exception as e:
            raise shown(e) from e
        last = workbench.layer_count(model) - 1
        names = edit.site_choices(workbench.site_names(model))
        kinds = list(workbench.site_kinds(model))
        words = texts.MODEL_READY.format(title=workbench.title(model), last=last)
        return {
            one.model_state: f"<p>{escaped(words)}</p>",
            one.preset: gr.Dropdown(presets, value=presets[0][1]),
            one.also: gr.CheckboxGroup(presets, value=[]),
            one.images: gr.Accordion(visible=workbench.takes_image(model)),
            two.sites: gr.CheckboxGroup(kinds, value=kinds[:1]),
            two.first: gr.Slider(maximum=last, value=0),
            two.last: gr.Slider(maximum=last, value=last),
            two.spectrum_site: gr.Dropdown(names, value=names[0][1]),
            two.spectrum: message("spectrum_wait"),
            two.map: message("map_none"),
            three.image: gr.Image(visible=workbench.takes_image(model)),
            three.status: status("stale", "stale"),
        }

    outputs = [
        one.model_state, one.preset, one.also, one.images, two.sites, two.first, two.last, two.spectrum_site,
        two.spectrum, two.map, three.image, three.status,
    ]  # fmt: skip
    one.look.click(look, one.model, one.model_state, **QUICK)
    loaded = one.load_model.click(load, one.model, outputs, show_progress_on=[one.model_state], **MODEL_QUEUE)
    fill, filled = _preset_filler(workbench, form)
    loaded.success(fill, [one.preset, one.model], filled, **GLUE)


def _preset_filler(workbench: Workbench, form: Form) -> tuple[Callable[[str, str], list[Any]], list[Any]]:
    """Return what fills the form from a preset, and what it fills."""
    one, two, three = form.one, form.two, form.three

    def fill(name: str, model: str) -> list[Any]:
        preset = next(p for p in workbench.presets(model) if p.concept.name == name)
        s, pairs = workbench.preset_request(preset, model), [(p.unsafe, p.safe) for p in preset.concept.pairs]
        kinds = [k for k in s.sites if k in workbench.site_kinds(model)]
        others = [choice for choice in preset_choices(workbench, model) if choice[1] != name]
        return [
            [list(pair) for pair in pairs], rows_message(workbench.check_pairs(pairs, model)), preset.prompt,
            s.method, kinds, s.rank, s.strength, s.anchor, gr.CheckboxGroup(others, value=[]),
            *_stale(),
        ]  # fmt: skip

    outputs = [
        one.pairs, one.rows_state, three.prompt, two.method, two.sites, two.rank, two.strength, two.anchor,
        one.also, three.status, two.title, three.title,
    ]  # fmt: skip
    return fill, outputs


def _stale() -> tuple[str, str, str]:
    """Return the status line and the headings of a changed form."""
    note = TEXT["step_compare_note"]
    return (
        status("stale", "stale"),
        heading(2, "step_edit", "stale"),
        heading(3, "step_compare", "stale", note),
    )


def _join_presets(workbench: Workbench, form: Form) -> None:
    one, two, three = form.one, form.two, form.three
    fill, outputs = _preset_filler(workbench, form)
    gr.on([one.preset.input, one.load.click], fill, [one.preset, one.model], outputs, **GLUE)
    changing = (one.pairs, one.unsafe_images, one.safe_images, one.also, one.strengths, *two.settings)
    for component in changing:
        event = component.change if isinstance(component, gr.File) else component.input
        event(_stale, None, [three.status, two.title, three.title], **GLUE)


def _join_views(workbench: Workbench, form: Form, stops: Stops) -> None:
    """The spectrum follows every move of a slider without running the model; the map is made when asked."""
    one, two = form.one, form.two
    known = {*form.inputs, two.spectrum_site}

    def redraw(values: Values) -> str:
        try:
            return map.spectrum(workbench.spectrum(form.request(values), values[two.spectrum_site]))
        except RefusalError as e:
            return f"<p class='rs-empty'>{escaped(str(e))}</p>"

    def read(values: Values, request: gr.Request) -> str:
        try:
            asked = form.request(values)
            tell = stops.telling(request)
            return map.spectrum(
                gpu.call(Workbench.read_spectrum, workbench, asked, values[two.spectrum_site], progress=tell)
            )
        except Exception as e:
            raise shown(e) from e

    def chart(
        values: Values,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
    ) -> Values:
        try:
            tell = stops.telling(request, progress)
            found = gpu.call(Workbench.map, workbench, form.request(values), progress=tell)
        except Exception as e:
            raise shown(e) from e
        return {
            two.map: map.heat_map(found),
            two.table: edit.rows_of(found),
            two.notes: "\n\n".join(found.notes),
        }

    def pick(values: Values, event: gr.EventData) -> list[Any]:
        kind, layer = str(event.kind), int(event.layer)
        low, high = (int(values[two.first]), int(values[two.last])) if event.more else (layer, layer)
        sites = [*values[two.sites], kind] if event.more and kind not in values[two.sites] else [kind]
        return [sites, min(low, layer), max(high, layer), *_stale()]

    def cosines(values: Values, request: gr.Request) -> str:
        try:
            asked, tell = form.request(values), stops.telling(request)
            return map.cosine_table(gpu.call(Workbench.cosines, workbench, asked, progress=tell))
        except Exception as e:
            raise shown(e) from e

    moved = [s.input for s in (two.rank, two.alpha, two.shrinkage, two.method, two.relative, two.center)]
    moved += [two.sites.input, two.spectrum_site.input, one.preset.change]
    gr.on(moved, redraw, known, two.spectrum, trigger_mode="always_last", **GLUE)
    two.spectrum_read.click(read, known, two.spectrum, **MODEL_QUEUE)
    two.map_make.click(chart, form.inputs, [two.map, two.table, two.notes], **MODEL_QUEUE)
    outputs = [two.sites, two.first, two.last, form.three.status, two.title, form.three.title]
    two.map.pick(pick, {two.sites, two.first, two.last}, outputs, **GLUE)
    one.cosines_run.click(cosines, form.inputs, one.cosines, **MODEL_QUEUE)


def _join_compare(workbench: Workbench, runs: History, form: Form, stops: Stops) -> Any:
    two, three = form.two, form.three
    note = TEXT["step_compare_note"]

    def run(
        values: Values,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
    ) -> Iterator[Values]:
        session = session_of(request)
        tell = stops.telling(request, progress)
        working = {three.title: heading(3, "step_compare", "working", note)}
        yield {three.status: status("working", "queued"), **_emptied(form), **working}
        try:
            asked, (prompt, seed, image) = form.request(values), form.prompt(values)
            told = {"progress": tell, "session": session}
            for found in gpu.stream(Workbench.compare, workbench, asked, prompt, seed, image=image, **told):
                if found.unlearned is not None:  # kept before it is called done: a page may be left then
                    keep(found, values[form.owner], asked, prompt)
                yield _progressed(found, form)
            edit_file = gpu.call(Workbench.save_edit, workbench, asked, **told)
            view = workbench.spectrum(asked, values[two.spectrum_site])
            yield {
                three.edit_file: gr.DownloadButton(value=edit_file, interactive=True),
                two.spectrum: map.spectrum(view),
                two.title: heading(2, "step_edit", "ready"),
                three.title: heading(3, "step_compare", "done", note),
                three.status: status("done", "done", " ".join(found.notes)),  # with the last thing done
            }
        except Cancelled:
            failed = heading(3, "step_compare", "stale", note)
            yield {three.status: status("stopped", "stopped"), three.title: failed}
        except Exception as e:
            failed = heading(3, "step_compare", "failed", note)
            yield {three.status: status("failed", "failed"), three.title: failed}
            raise shown(e) from e

    def keep(found: Comparison, owner: str, asked: Any, prompt: str) -> None:
        """Keep the run; a disk that is full, or a browser without an id, costs the history only."""
        try:
            runs.add(owner, asked, found, prompt)
        except RefusalError as e:
            gr.Warning(escaped(str(e)))

    outputs = [
        three.status, three.title, three.original, three.unlearned, three.original_verdict,
        three.unlearned_verdict, three.both, three.edit_file, two.spectrum, two.title,
    ]  # fmt: skip
    compared = gr.on(
        [three.run.click, three.prompt.submit],
        run,
        form.asked | {two.spectrum_site},
        outputs,
        show_progress_on=[three.original, three.unlearned],
        trigger_mode="once",
        **MODEL_QUEUE,
    )
    stop_button(three.stop, stops)
    return compared


def _emptied(form: Form) -> Values:
    """Return a page without results, so that nothing old is taken for new."""
    three = form.three
    return {
        three.original: None,
        three.unlearned: None,
        three.original_verdict: compare.verdict(None),
        three.unlearned_verdict: compare.verdict(None),
        three.both: gr.DownloadButton(interactive=False),
        three.edit_file: gr.DownloadButton(interactive=False),
    }


def _progressed(found: Comparison, form: Form) -> Values:
    """Return what the page shows of a comparison so far."""
    three = form.three
    if found.unlearned is None:
        assert found.original is not None
        return {
            three.status: status("working", "original_ready"),
            three.original: str(found.original.path),
            three.original_verdict: compare.verdict(found.original),
        }
    return {
        three.status: status("working", "both_ready"),
        three.unlearned: str(found.unlearned.path),
        three.unlearned_verdict: compare.verdict(found.unlearned, found.quality),
        three.both: gr.DownloadButton(value=found.side_by_side, interactive=True),
    }


def _join_tiles(workbench: Workbench, form: Form, stops: Stops, example: gr.Button) -> None:
    three = form.three

    def grid(
        jobs_of: Callable[[Values], Sequence[Any]], tiles: gr.Gallery
    ) -> Callable[..., Iterator[Values]]:
        def run(
            values: Values,
            request: gr.Request,
            progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
        ) -> Iterator[Values]:
            done = []
            try:
                tell = stops.telling(request, progress)
                jobs = jobs_of(values)
                yield {tiles: gr.Gallery(value=[], visible=True), three.status: status("working", "working")}
                told = {"progress": tell, "session": session_of(request)}
                for tile in gpu.stream(make_tiles, workbench, jobs, **told):
                    done.append(tile)
                    yield {tiles: compare.tiles_value(done)}
                yield {three.status: status("done", "finished", f"{len(done)} / {len(jobs)}")}
            except Cancelled:
                yield {three.status: status("stopped", "stopped", f"{len(done)}")}
            except Exception as e:
                yield {three.status: status("failed", "failed")}
                raise shown(e) from e

        return run

    def by_seed(values: Values) -> Sequence[Any]:
        prompt, seed, _ = form.prompt(values)
        return seed_jobs(form.request(values), prompt, seed, int(values[three.seeds]))

    def ordinary(values: Values) -> Sequence[Any]:
        return other_jobs(workbench, form.request(values), form.prompt(values)[1])

    def categories(values: Values) -> Sequence[Any]:
        return example_jobs(workbench, str(values[form.one.model]))

    inputs = form.asked | {three.seeds}
    for button, jobs_of, tiles in (
        (three.seeds_run, by_seed, three.seeds_tiles),
        (three.others_run, ordinary, three.others_tiles),
        (example, categories, three.example_tiles),
    ):
        button.click(
            grid(jobs_of, tiles),
            inputs,
            [tiles, three.status],
            show_progress_on=[three.status],
            **MODEL_QUEUE,
        )
