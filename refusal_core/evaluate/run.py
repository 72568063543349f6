"""Running an evaluation: every method on the same prompts and seeds, read by one judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from refusal_core.apply import applied
from refusal_core.baselines.negative_prompt import negative_prompt
from refusal_core.concepts import Preset
from refusal_core.edit import Edit
from refusal_core.errors import InputError
from refusal_core.evaluate.report import Cell, Report
from refusal_core.evaluate.suites import Item, Suite
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent
from refusal_core.recipe import build, method_recipe, paper_recipe
from refusal_core.sampling import generate_batch
from refusal_core.settings import METHODS, SamplingSettings
from refusal_core.statistics import wilson
from refusal_core.toyworld.judge import ATTRIBUTES, NO_CONCEPT, Judge, Reading

ALL_METHODS = ("original", *METHODS, "negative-prompt", "paper")
BATCH = 25
KEPT = tuple(name for name in ATTRIBUTES if name != "concept")


@dataclass(frozen=True, slots=True, eq=False)
class Treatment:
    """What a method does: an edit of the weights, or other sampling settings, or nothing."""

    edit: Edit | None = None
    sampling: SamplingSettings = SamplingSettings()  # noqa: RUF009 - a frozen value


def treatment(model: Model, preset: Preset, method: str, progress: Progress = silent) -> Treatment:
    """Prepare a method for a preset's concept.

    Raises:
        InputError: the method is not known.
    """
    if method == "original":
        return Treatment()
    if method == "negative-prompt":
        return Treatment(sampling=negative_prompt(preset.concept))
    for name in METHODS:
        if method == name:
            return Treatment(build(model, method_recipe(preset, model, name), progress=progress)[0])
    if method == "paper":
        return Treatment(build(model, paper_recipe(preset, model), progress=progress)[0])
    raise InputError(f"Method '{method}' is not known; choose from {', '.join(ALL_METHODS)}.")


def read_items(
    model: Model, items: Sequence[Item], judge: Judge, sampling: SamplingSettings, progress: Progress
) -> list[Reading]:
    """Generate the items' videos batch by batch and read each; videos are not kept."""
    readings: list[Reading] = []
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        step = part(progress, start / len(items), (start + len(batch)) / len(items))
        videos = generate_batch(
            model, [i.prompt for i in batch], [i.seed for i in batch], sampling, progress=step
        )
        readings.extend(judge.read([v.frames for v in videos]))
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
    methods: Sequence[str] = ALL_METHODS,
    *,
    progress: Progress = silent,
) -> Report:
    """Run every method over every cell of a suite.

    Args:
        model: left unedited between methods and at the end.
        preset: the concept and its recommended settings.
        suite: cells of prompts; none may occur among the pairs or neutral prompts.
        judge: reads each video.
        methods: names from ALL_METHODS.

    Raises:
        InputError: an unknown method, or a prompt of the suite was used to make the edit.
    """
    _check_disjoint(preset, suite)
    cells: list[Cell] = []
    total = len(methods) * len(suite)
    for number, method in enumerate(methods):
        low = number / len(methods)
        prepared = treatment(model, preset, method, part(progress, low, low))
        with applied(model, prepared.edit) if prepared.edit else nullcontext():
            for prompts, items in suite.items():
                step = _named(part(progress, len(cells) / total, (len(cells) + 1) / total), method, prompts)
                readings = read_items(model, items, judge, prepared.sampling, step)
                cells.append(summarise(method, prompts, preset.concept.name, items, readings))
    return Report(model.name, preset.concept.name, tuple(cells))


def _named(progress: Progress, method: str, prompts: str) -> Progress:
    return lambda fraction, _sentence: progress(fraction, f"{method} on {prompts} prompts")


def _check_disjoint(preset: Preset, suite: Mapping[str, Sequence[Item]]) -> None:
    used = {text for pair in preset.concept.pairs for text in (pair.unsafe, pair.safe)}
    used |= set(preset.concept.neutral)
    for items in suite.values():
        for item in items:
            if item.prompt in used:
                raise InputError(f"'{item.prompt}' was used to make the edit and cannot judge it too.")
