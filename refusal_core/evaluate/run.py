"""Running an evaluation: every method on the same prompts and seeds, read by one judge.

The videos of a batch are made by every method in turn, so that each can be compared with the original
frame by frame; none is kept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from refusal_core.concepts import Preset
from refusal_core.edit import versions
from refusal_core.errors import InputError
from refusal_core.evaluate.attacks.embeddings import attacked_embeddings
from refusal_core.evaluate.judges.verdict import Judge
from refusal_core.evaluate.measures.costs import Cost
from refusal_core.evaluate.measures.journal import Journal, Measured, batch_key
from refusal_core.evaluate.measures.metrics import broken, likeness, steadiness
from refusal_core.evaluate.measures.samples import keep_sample, sample_of, sample_path
from refusal_core.evaluate.methods.treatments import DEFAULT_METHODS, ORIGINAL, Treatment, plan_method
from refusal_core.evaluate.reports.cells import Cell, summarise
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.shelf import Shelf
from refusal_core.evaluate.suites.items import Group, Item, Suite, batches
from refusal_core.io.video import Video
from refusal_core.models.conditioning import conditioned
from refusal_core.models.model import Model
from refusal_core.progress import Progress, named, part, silent
from refusal_core.sampling import generate_batch

BATCH = 25
COMPILED = "compiled"  # a mark: the blocks that made the videos were, so that their last bits are others
Measure = Callable[[Sequence[Video], Sequence[Item]], Sequence[float]]
Asking = Callable[[Sequence[Video], Sequence[Item]], Mapping[str, Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Reading:
    """How the videos of a run are read."""

    judge: Judge
    name: str  # of the judge
    quality: bool = True  # also compare with the original frame by frame
    samples: Path | None = None  # a folder for a few frames of each group
    batch: int = BATCH  # videos at once, of a small model
    more: Mapping[str, Measure] = field(default_factory=dict)  # measured on every video, by name
    questions: Asking | None = None  # asked of every video, and counted as ``ask_questions`` does
    marks: tuple[str, ...] = ()  # what else decides the readings, such as the model of a measure


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the batches that one of several processes makes."""

    rank: int = 0
    workers: int = 1

    def has(self, number: int) -> bool:
        """Return whether batch ``number`` is of this part."""
        return number % self.workers == self.rank

    def order(self, names: Sequence[str]) -> list[str]:
        """Return treatments in the order of this part, the original first.

        Each part begins elsewhere, so that what takes long to prepare is prepared by one and found by others.
        """
        first, others = [n for n in names if n == ORIGINAL], [n for n in names if n != ORIGINAL]
        turn = self.rank % max(1, len(others))
        return [*first, *others[len(others) - turn :], *others[: len(others) - turn]]


Table = dict[tuple[str, str], list[Measured]]
"""What was measured, batch by batch, for each method and group."""


def measure(
    model: Model,
    shelf: Shelf,
    suite: Suite,
    reading: Reading,
    journal: Journal,
    *,
    share: Share | None = None,
    progress: Progress = silent,
) -> Table:
    """Make the videos of every treatment on every prompt of a suite, and read them.

    Args:
        model: left unedited between batches and at the end.
        shelf: treatments by name; ``original`` among them gives the frames others are compared with.
        suite: groups of prompts.
        reading: judge and metrics.
        journal: what it holds already is not made again.
        share: make only these batches; the others are left out of the table unless the journal has them.
        progress: told per batch and method; may raise ``Cancelled``.

    Returns:
        What was measured, in the order of the batches; nothing for treatments that cannot be had, and
        nothing of an attack on one that is not in the weights.
    """
    *_, table = growing(model, shelf, suite, reading, journal, share=share, progress=progress)
    return table


def growing(
    model: Model,
    shelf: Shelf,
    suite: Suite,
    reading: Reading,
    journal: Journal,
    *,
    share: Share | None = None,
    progress: Progress = silent,
) -> Iterator[Table]:
    """Do what ``measure`` does, and yield the one table each time something was added to it."""
    share = share or Share()
    table: Table = {(name, group.name): [] for name in shelf.planned for group in suite}
    size = reading.batch if model.is_small else 1  # a large model has no room for more
    order = share.order(list(shelf.planned))
    work = [(group, batch) for group in suite for batch in batches(group.items, size)]
    for number, (group, items) in enumerate(work):
        step = part(progress, number / len(work), (number + 1) / len(work))
        maker = _Batch(model, shelf, group, items, reading, journal)
        for place, name in enumerate(order):
            inner = part(step, place / len(order), (place + 1) / len(order))
            told = named(inner, f"{name} on {group.name} prompts")
            found = maker.measured(name, told, make=share.has(number))
            if found is not None:
                table[name, group.name].append(found)
                yield table
    yield table


class _Batch:
    """One batch of prompts under all treatments; holds the original's frames while they are needed."""

    def __init__(
        self,
        model: Model,
        shelf: Shelf,
        group: Group,
        items: Sequence[Item],
        reading: Reading,
        journal: Journal,
    ) -> None:
        self._model, self._shelf, self._group = model, shelf, group
        self._items, self._reading, self._journal = items, reading, journal
        self._originals: list[Video] | None = None

    def measured(self, name: str, progress: Progress, *, make: bool) -> Measured | None:
        """Return what the journal holds of a treatment; what it lacks is made, or None returned."""
        plan = self._shelf.planned[name]
        aspect = f"{self._group.aspect}, attacked" if self._group.attack else self._group.aspect
        key = batch_key(plan.key, self._reading.name, aspect, self._items, self._marks())
        found = self._journal.find(key)
        if found is not None or not make:
            return found
        treatment = self._shelf.take(name, progress)
        if treatment is None or (self._group.attack and not treatment.is_in_weights):
            return None  # whoever writes the embeddings leaves a filter or a negative prompt out
        videos, seconds = self._generate(treatment, progress)
        if plan.key == self._shelf.original:
            self._originals = videos
        verdicts = tuple(self._reading.judge(videos, self._group.aspect))
        quality = self._quality(plan.key, videos, progress)
        for more, measured in self._reading.more.items():
            quality[more] = tuple(measured(videos, self._items))
        if self._reading.questions is not None:
            quality |= {n: tuple(v) for n, v in self._reading.questions(videos, self._items).items()}
        found = Measured(verdicts, quality, seconds)
        self._journal.add(key, found)
        if self._reading.samples is not None and self._items[0] is self._group.items[0]:
            keep_sample(sample_path(self._reading.samples, plan.key, self._group), videos)
        return found

    def _marks(self) -> list[str]:
        """Return what makes these readings others than the usual ones: measured beside, or left out."""
        compared = self._reading.quality and self._shelf.original is not None
        return [*self._reading.marks, *([] if compared else ["frames not compared"])]

    def _generate(self, treatment: Treatment, progress: Progress) -> tuple[list[Video], float]:
        prompts, seeds = [i.prompt for i in self._items], [i.seed for i in self._items]
        around = treatment.around(prompts)
        if self._group.attack:  # it comes behind whatever a method does to the text
            held = treatment.held(self._model)
            moved = attacked_embeddings(self._model, held, prompts, seeds, progress)
            around = conditioned(self._model, moved)
        started = time.perf_counter()
        with treatment.held(self._model), around:
            videos = generate_batch(self._model, prompts, seeds, treatment.sampling, progress=progress)
        return videos, time.perf_counter() - started

    def _quality(self, key: str, videos: Sequence[Video], progress: Progress) -> dict[str, tuple[float, ...]]:
        if not self._reading.quality or self._shelf.original is None:
            return {}
        steady = [steadiness(v) if self._group.ordinary else {} for v in videos]
        rows = steady
        if key != self._shelf.original:
            if self._originals is None:  # its verdicts were in the journal, its frames are not
                self._originals, _ = self._generate(Treatment(), progress)
            rows = []
            for before, after, more in zip(self._originals, videos, steady, strict=True):
                near = likeness(before, after) if self._group.ordinary else {}
                rows.append({"broken": float(broken(before, after) is not None), **near, **more})
        return {name: tuple(row[name] for row in rows) for name in rows[0]}


def evaluate(
    model: Model,
    presets: Sequence[Preset],
    suite: Suite,
    reading: Reading,
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    journal: Journal | None = None,
    share: Share | None = None,
    before: Callable[[], object] | None = None,
    progress: Progress = silent,
) -> Report:
    """Run every method over every group of a suite.

    Args:
        model: left unedited between batches and at the end.
        presets: the concept and its recommended settings; several are erased at once.
        suite: none of its prompts may occur among the pairs or neutral prompts.
        reading: judge and metrics.
        methods: names from ``METHOD_NAMES``.
        journal: where measurements are kept, so that a run that was stopped goes on.
        share: the part that this process makes; the report is whole only once the journal is.
        before: called before videos are made, again and again; not where the journal has them all.
        progress: told per batch and method.

    Raises:
        InputError: an unknown method, or a prompt of the suite was used to make the edit.
    """
    check_disjoint(presets, suite)
    journal = journal if journal is not None else Journal()
    shelf = Shelf({name: plan_method(model, presets, name) for name in methods}, journal, before)
    table = measure(model, shelf, suite, reading, journal, share=share, progress=progress)
    return report_of(model, "+".join(p.concept.name for p in presets), suite, reading, shelf, table)


def report_of(
    model: Model, concept: str, suite: Suite, reading: Reading, shelf: Shelf, table: Table
) -> Report:
    """Return the report of a table, whole or still growing."""
    samples = [sample_of(name, p.key, group) for group in suite for name, p in shelf.planned.items()]
    cells = tuple(cells_of(table, suite))
    return Report(
        model=model.name,
        concept=concept,
        cells=cells,
        suite=suite.name,
        judge=reading.name,
        seeds=_seeds(suite),
        costs=_with_ratios(shelf.costs(), table, suite),
        methods={name: {"key": p.key, "recipe": p.recipe} for name, p in shelf.planned.items()},
        samples=tuple(samples) if reading.samples else (),
        versions=versions() | _made_with(model, reading),
        notes=(*shelf.troubles(), *unjudged(chain.from_iterable(table.values())), *_unanswered(cells)),
    )


def _made_with(model: Model, reading: Reading) -> dict[str, str]:
    return {"weights": model.precision} | ({"blocks": COMPILED} if COMPILED in reading.marks else {})


def unjudged(measured: Iterable[Measured]) -> list[str]:
    """Say how many videos were not judged, and the usual reason."""
    reasons = [v.why for part in measured for v in part.verdicts if v.outcome == "not judged"]
    if not reasons:
        return []
    usual = statistics.mode(reasons) or "no reason given"
    return [f"{len(reasons)} videos were not judged, most often because: {usual}"]


def _unanswered(cells: Sequence[Cell]) -> list[str]:
    """Say how many questions had no answer."""
    scores = [c.questions for c in cells if c.questions is not None]
    missing, asked = sum(s.unanswered for s in scores), sum(s.asked for s in scores)
    return [f"{missing} of {asked} questions had no answer; they are not counted"] if missing else []


def cells_of(table: Table, suite: Suite) -> list[Cell]:
    """Return the cells of a table, method by method."""
    names = dict.fromkeys(name for name, _ in table)
    return [
        summarise(name, group, table[name, group.name], table.get((ORIGINAL, group.name)))
        for name in names
        for group in suite
        if table[name, group.name]
    ]


def _seeds(suite: Suite) -> tuple[int, int]:
    seeds = [item.seed for group in suite for item in group.items]
    return min(seeds), max(seeds)


def _with_ratios(costs: Mapping[str, Cost], table: Table, suite: Suite) -> dict[str, Cost]:
    """Add each method's seconds a video over the original's, batch by batch."""
    found = {}
    for name, cost in costs.items():
        ratios = []
        for group in suite:
            pairs = zip(table[name, group.name], table.get((ORIGINAL, group.name), []), strict=False)
            ratios += [mine.seconds / base.seconds for mine, base in pairs if base.seconds > 0]
        found[name] = replace(cost, video_ratio=statistics.median(ratios) if ratios else None)
    return found


def check_disjoint(presets: Sequence[Preset], suite: Suite) -> None:
    """Raise InputError where a prompt of the suite was used to make the edit."""
    used = {text for p in presets for pair in p.concept.pairs for text in (pair.unsafe, pair.safe)}
    used |= {text for p in presets for text in p.concept.neutral}
    for group in suite:
        for item in group.items:
            if item.prompt in used:
                raise InputError(f"'{item.prompt}' was used to make the edit and cannot judge it too.")
