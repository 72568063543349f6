"""Running an evaluation: every method on the same prompts and seeds, scored by one judge.

The videos of a batch are made by every method in turn, so that each can be compared with the original
frame by frame; none is kept.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from refusal_core.concepts import Preset
from refusal_core.edit import versions
from refusal_core.errors import InputError, ModelError
from refusal_core.evaluate.attacks.embeddings import attacked_embeddings
from refusal_core.evaluate.measures.costs import Cost
from refusal_core.evaluate.measures.journal import Measured, batch_key
from refusal_core.evaluate.measures.samples import keep_sample, sample_of, sample_path
from refusal_core.evaluate.methods.cache import TreatmentCache
from refusal_core.evaluate.methods.treatments import (
    DEFAULT_METHODS,
    ORIGINAL,
    Planned,
    Treatment,
    plan_method,
)
from refusal_core.evaluate.reports.cells import Cell, summarise
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.scoring import Quality, frame_quality
from refusal_core.evaluate.setup import COMPILED, Setup
from refusal_core.evaluate.suites.files import Long, counted, without
from refusal_core.evaluate.suites.items import Group, Item, Suite, batches
from refusal_core.io.reading import shown
from refusal_core.io.video import Video
from refusal_core.models.conditioning import check_conditioning, conditioned
from refusal_core.models.model import Model
from refusal_core.progress import Progress, each, named, silent
from refusal_core.sampling import generate_batch

UNHEARD = "The videos' sound was not judged: no judge here listens."
Table = dict[tuple[str, str], list[Measured]]
"""What was measured, batch by batch, for each method and group."""


def evaluate(
    setup: Setup,
    presets: Sequence[Preset],
    suite: Suite,
    methods: Sequence[str] = DEFAULT_METHODS,
    progress: Progress = silent,
    *,
    long: Long = "cut",
) -> Report:
    """Run every method over every group of a suite.

    Args:
        setup: the model, the scoring of its videos, and what was read already. Of several processes each
            makes its share: the report is whole only once the journal is.
        presets: the concept and its recommended settings; several are erased at once.
        suite: none of its prompts may occur among the pairs or neutral prompts.
        methods: names from ``METHOD_NAMES``.
        progress: told per batch and method; may raise ``Cancelled``.
        long: what becomes of prompts that are longer than the model reads; see ``fitted``.

    Raises:
        InputError: an unknown method, a prompt of the suite was used to make the edit, or is too long.
    """
    check_disjoint(presets, suite)
    suite = _attackable(fitted(suite, setup.model, long), setup.model)
    planned = {name: plan_method(setup.model, presets, name) for name in methods}
    return run_planned(setup, "+".join(p.concept.name for p in presets), planned, suite, progress)


def run_planned(
    setup: Setup, concept: str, planned: Mapping[str, Planned], suite: Suite, progress: Progress = silent
) -> Report:
    """Run treatments by their names over every group of a suite."""
    cache = TreatmentCache(planned, setup.journal, setup.before)
    *_, table = measure(setup, cache, suite, progress)
    return report_of(setup, concept, suite, cache, table)


def measure(
    setup: Setup, cache: TreatmentCache, suite: Suite, progress: Progress = silent
) -> Iterator[Table]:
    """Make the videos of every treatment on every prompt of a suite, and score them.

    What the journal holds is not made again, nor are the batches of another share: these are left out
    unless the journal has them.

    Yields:
        The one table, each time something was added to it, and at the end: batches in their order; nothing
        for treatments that cannot be had, and nothing of an attack on one that is not in the weights.
    """
    table: Table = {(name, group.name): [] for name in cache.planned for group in suite}
    size = setup.scoring.batch if setup.model.is_small else 1  # a large model has no room for more
    order = setup.share.order(list(cache.planned))
    work = [(group, batch) for group in suite for batch in batches(group.items, size)]
    for number, ((group, items), step) in enumerate(each(progress, work)):
        batch = _Batch(setup, cache, group, items)
        for name, inner in each(step, order):
            titled = named(inner, f"{name} on {group.name} prompts")
            measured = batch.measured(name, titled, make=setup.share.has(number))
            if measured is not None:
                table[name, group.name].append(measured)
                yield table
    yield table


class _Batch:
    """One batch of prompts under all treatments; holds the original's frames while they are needed."""

    def __init__(self, setup: Setup, cache: TreatmentCache, group: Group, items: Sequence[Item]) -> None:
        self._setup, self._cache, self._group, self._items = setup, cache, group, items
        self._originals: list[Video] | None = None

    def measured(self, name: str, progress: Progress, *, make: bool) -> Measured | None:
        """Return what the journal holds of a treatment; what it lacks is made, or None returned."""
        plan, scoring, journal = self._cache.planned[name], self._setup.scoring, self._setup.journal
        aspect = f"{self._group.aspect}, attacked" if self._group.attack else self._group.aspect
        key = batch_key(plan.key, scoring.name, aspect, self._items, self._marks())
        if (known := journal.find(key)) is not None or not make:
            return known
        treatment = self._cache.take(name, progress)
        if treatment is None or (self._group.attack and not treatment.is_in_weights):
            return None  # whoever writes the embeddings leaves a filter or a negative prompt out
        videos, seconds = self._generate(treatment, progress)
        if plan.key == self._cache.original:
            self._originals = videos
        quality = self._quality(plan.key, videos, progress)
        measured = replace(scoring.score(videos, self._items, self._group, quality), seconds=seconds)
        journal.add(key, measured)
        if scoring.samples is not None and self._items[0] is self._group.items[0]:
            keep_sample(sample_path(scoring.samples, plan.key, self._group), videos)
        return measured

    def _marks(self) -> list[str]:
        """Return what makes these readings others than the usual ones: also measured, or left out."""
        compared = self._setup.scoring.quality and self._cache.original is not None
        return [*self._setup.scoring.marks, *([] if compared else ["frames not compared"])]

    def _generate(self, treatment: Treatment, progress: Progress) -> tuple[list[Video], float]:
        model = self._setup.model
        prompts, seeds = [i.prompt for i in self._items], [i.seed for i in self._items]
        around = treatment.batch_context(prompts)
        if self._group.attack:  # it comes behind whatever a method does to the text
            moved = attacked_embeddings(model, treatment.context(model), prompts, seeds, progress)
            around = conditioned(model, moved)
        started = time.perf_counter()
        with treatment.context(model), around:
            videos = generate_batch(model, prompts, seeds, treatment.sampling, cut=True, progress=progress)
        return videos, time.perf_counter() - started

    def _quality(self, key: str, videos: Sequence[Video], progress: Progress) -> Quality:
        original = self._cache.original
        if not self._setup.scoring.quality or original is None:
            return {}
        if key != original and self._originals is None:  # the journal has verdicts, no frames
            self._originals, _ = self._generate(Treatment(), progress)
        before = self._originals if key != original else None
        return frame_quality(before, videos, ordinary=self._group.ordinary)


def report_of(setup: Setup, concept: str, suite: Suite, cache: TreatmentCache, table: Table) -> Report:
    """Return the report of a table, whole or still growing."""
    scoring, planned = setup.scoring, cache.planned
    seeds = [item.seed for group in suite for item in group.items]
    samples = [sample_of(name, plan.key, group) for group in suite for name, plan in planned.items()]
    cells = tuple(cells_of(table, suite))
    blocks = {"blocks": COMPILED} if COMPILED in scoring.marks else {}
    return Report(
        model=setup.model.name,
        concept=concept,
        cells=cells,
        suite=suite.name,
        judge=scoring.name,
        seeds=(min(seeds), max(seeds)),
        costs=_with_ratios(cache.costs(), table, suite),
        methods={name: {"key": plan.key, "recipe": plan.recipe} for name, plan in planned.items()},
        samples=tuple(samples) if scoring.samples else (),
        versions=versions() | {"weights": setup.model.precision} | blocks,
        notes=(
            *suite.notes,
            *cache.troubles(),
            *unjudged(chain.from_iterable(table.values())),
            *_unanswered(cells),
            *([UNHEARD] if setup.model.family.makes_sound else []),
        ),
    )


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
    missing, every = sum(s.unanswered for s in scores), sum(s.asked for s in scores)
    return [f"{missing} of {every} questions had no answer; they are not counted"] if missing else []


def cells_of(table: Table, suite: Suite) -> list[Cell]:
    """Return the cells of a table, method by method."""
    names = dict.fromkeys(name for name, _ in table)
    return [
        summarise(name, group, table[name, group.name], table.get((ORIGINAL, group.name)))
        for name in names
        for group in suite
        if table[name, group.name]
    ]


def _with_ratios(costs: Mapping[str, Cost], table: Table, suite: Suite) -> dict[str, Cost]:
    """Add each method's seconds a video over the original's, batch by batch."""
    complete = {}
    for name, cost in costs.items():
        pairs = chain.from_iterable(
            zip(table[name, group.name], table.get((ORIGINAL, group.name), []), strict=False)
            for group in suite
        )
        ratios = [part.seconds / base.seconds for part, base in pairs if base.seconds > 0]
        complete[name] = replace(cost, video_ratio=statistics.median(ratios) if ratios else None)
    return complete


def made_from(presets: Sequence[Preset]) -> set[str]:
    """Return every prompt that an edit of these presets is made from."""
    pairs = [text for p in presets for pair in p.concept.pairs for text in (pair.unsafe, pair.safe)]
    return {*pairs, *(text for p in presets for text in p.concept.neutral)}


def unused(suite: Suite, presets: Sequence[Preset]) -> Suite:
    """Return a suite without the prompts that made the edit, which cannot judge it too; a note names them.

    Raises:
        InputError: there is no other.
    """
    used = made_from(presets)
    unfit = dict.fromkeys(item for group in suite for item in group.items if item.prompt in used)
    return without(suite, unfit, "made the edit, cannot judge it too, and are left out")


def fitted(suite: Suite, model: Model, long: Long) -> Suite:
    """Return a suite as a model can read it, with a note on prompts of more tokens than it reads.

    Args:
        suite: any.
        model: whose tokens are counted.
        long: whether such prompts are cut where the pipeline cuts them, left out, or refused.

    Raises:
        InputError: there are such prompts and they are refused, or nothing else is left.
    """
    limit = model.defaults.text_length
    items = list(dict.fromkeys(item for group in suite for item in group.items))
    lengths = map(len, model.tokens([item.prompt for item in items]))
    over = dict.fromkeys(i for i, tokens in zip(items, lengths, strict=True) if tokens > limit)
    if not over:
        return suite
    what = f"have more than the {limit} tokens that this model reads"
    if long == "refuse":
        raise InputError(f"{counted(over, what)}; shorten them, or choose --long cut or skip.")
    if long == "skip":
        return without(suite, over, f"{what} and are left out")
    return replace(suite, notes=(*suite.notes, counted(over, f"{what} and are cut there")))


def _attackable(suite: Suite, model: Model) -> Suite:
    """Return a suite without groups under attack where the model's text cannot be moved; a note says why."""
    if not any(group.attack for group in suite):
        return suite
    try:
        check_conditioning(model, "The attack")
    except ModelError as why:
        groups = tuple(group for group in suite if not group.attack)
        return replace(suite, groups=groups, notes=(*suite.notes, str(why)))
    return suite


def check_disjoint(presets: Sequence[Preset], suite: Suite) -> None:
    """Raise InputError where a prompt of the suite was used to make the edit."""
    used = made_from(presets)
    for item in (item for group in suite for item in group.items):
        if item.prompt in used:
            raise InputError(f"'{shown(item.prompt)}' was used to make the edit and cannot judge it too.")
