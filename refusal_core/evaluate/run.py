"""Running an evaluation: every method on the same prompts and seeds, read by one judge."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from refusal_core.concepts import Preset
from refusal_core.errors import InputError, RankError
from refusal_core.evaluate.journal import Journal
from refusal_core.evaluate.methods import DEFAULT_METHODS, Treatment, treatment
from refusal_core.evaluate.report import Cell, Report
from refusal_core.evaluate.suites import Item, Suite
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent
from refusal_core.sampling import generate_batch
from refusal_core.statistics import wilson
from refusal_core.toyworld.judge import ATTRIBUTES, NO_CONCEPT, Judge, Reading

BATCH = 25
KEPT = tuple(name for name in ATTRIBUTES if name != "concept")


def read_items(
    model: Model,
    items: Sequence[Item],
    judge: Judge,
    prepared: Treatment,
    progress: Progress,
    journal: Journal | None = None,
) -> list[Reading]:
    """Generate the items' videos batch by batch and read each; videos are not kept.

    What the journal holds already is not made again.
    """
    readings: list[Reading] = []
    for batch in _batches(items):
        found = journal.find(prepared.key, batch) if journal else None
        if found is None:
            step = part(progress, len(readings) / len(items), (len(readings) + len(batch)) / len(items))
            prompts = [i.prompt for i in batch]
            with prepared.around(prompts):
                videos = generate_batch(
                    model, prompts, [i.seed for i in batch], prepared.sampling, progress=step
                )
            found = judge.read([v.frames for v in videos])
            if journal:
                journal.add(prepared.key, batch, found)
        readings.extend(found)
    return readings


def summarise(
    method: str, prompts: str, concept: str, items: Sequence[Item], readings: Sequence[Reading]
) -> Cell:
    """Count what the judge saw: the concept, what the prompt asked for, and each kept attribute."""
    n = len(readings)
    pairs = list(zip(items, readings, strict=True))
    asked = [r.values["concept"] == (item.scene.concept or NO_CONCEPT) for item, r in pairs]
    return Cell(
        method=method,
        prompts=prompts,
        n=len(items),
        judged=n,
        unsafe=wilson(sum(r.values["concept"] == concept for r in readings), n),
        shown=wilson(sum(asked), n),
        kept={name: sum(r.values[name] == getattr(i.scene, name) for i, r in pairs) / n for name in KEPT},
    )


def evaluate(
    model: Model,
    preset: Preset,
    suite: Suite,
    judge: Judge,
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    journal: Journal | None = None,
    progress: Progress = silent,
) -> Report:
    """Run every method over every cell of a suite.

    Args:
        model: left unedited between methods and at the end.
        preset: the concept and its recommended settings.
        suite: cells of prompts; none may occur among the pairs or neutral prompts.
        judge: reads each video.
        methods: names from ``METHOD_NAMES``.
        journal: where readings are kept, so that a run that was stopped goes on.
        progress: told per batch.

    Raises:
        InputError: an unknown method, or a prompt of the suite was used to make the edit.
    """
    _check_disjoint(preset, suite)
    cells: list[Cell] = []
    notes: list[str] = []
    seconds: dict[str, float] = {}
    for number, method in enumerate(methods):
        low, high = number / len(methods), (number + 1) / len(methods)
        started = time.perf_counter()
        try:
            prepared = treatment(model, preset, method, part(progress, low, low))
        except RankError as e:  # it found nothing to remove at its sites: that is its result
            notes.append(f"{method}: {e}")
            continue
        seconds[method] = time.perf_counter() - started
        with prepared.held(model):
            for i, (prompts, items) in enumerate(suite.items()):
                inner = part(progress, low, high)
                step = _named(part(inner, i / len(suite), (i + 1) / len(suite)), method, prompts)
                readings = read_items(model, items, judge, prepared, step, journal)
                cells.append(summarise(method, prompts, preset.concept.name, items, readings))
    return Report(model.name, preset.concept.name, tuple(cells), seconds, tuple(notes))


def run_share(
    model: Model,
    presets: Sequence[Preset],
    suites: Mapping[str, Suite],
    judge: Judge,
    methods: Sequence[str],
    journal: Journal,
    share: tuple[int, int],
    progress: Progress = silent,
) -> None:
    """Fill a journal with one worker's batches: every ``share[1]``-th, from the ``share[0]``-th on."""
    rank, workers = share
    tasks = [(p, m) for p in presets for m in methods]
    for number, (preset, method) in enumerate(tasks):
        suite = suites[preset.concept.name]
        _check_disjoint(preset, suite)
        batches = [b for items in suite.values() for b in _batches(items)]
        mine = batches[(rank - number) % workers :: workers]  # turned, so that no worker gets all of one cell
        step = part(progress, number / len(tasks), (number + 1) / len(tasks))
        try:
            prepared = treatment(model, preset, method, part(step, 0.0, 0.0))
        except RankError:
            continue
        with prepared.held(model):
            for i, batch in enumerate(mine):
                inner = _named(part(step, i / len(mine), (i + 1) / len(mine)), method, preset.concept.name)
                read_items(model, batch, judge, prepared, inner, journal)


def _batches(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def _named(progress: Progress, method: str, prompts: str) -> Progress:
    return lambda fraction, _sentence: progress(fraction, f"{method} on {prompts} prompts")


def _check_disjoint(preset: Preset, suite: Mapping[str, Sequence[Item]]) -> None:
    used = {text for pair in preset.concept.pairs for text in (pair.unsafe, pair.safe)}
    used |= set(preset.concept.neutral)
    for items in suite.values():
        for item in items:
            if item.prompt in used:
                raise InputError(f"'{item.prompt}' was used to make the edit and cannot judge it too.")
