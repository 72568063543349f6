"""What the runs of one command share: the model, how its videos are scored, and where readings are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock

from refusal_core.concepts import Preset
from refusal_core.evaluate.judging import Judging
from refusal_core.evaluate.measures.journal import Journal
from refusal_core.evaluate.methods.treatments import ORIGINAL
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.suites.items import Suite
from refusal_core.models.compiling import can_compile
from refusal_core.models.load import BUNDLED, LoadSettings, load_model
from refusal_core.models.model import Model
from refusal_core.progress import Progress, silent
from refusal_core.sampling import generate_batch

COMPILED = "compiled"  # a mark: the blocks that made the videos were, so that their last bits are others
WORTH_COMPILING = 5000  # videos of a bundled model; compiling takes as long as about 500
Result = TypeVar("Result", covariant=True)
Compiling = TypeVar("Compiling", bound="Opened")


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the batches that one of several processes makes."""

    rank: int = 0
    workers: int = 1

    def has(self, number: int) -> bool:
        """Return whether batch ``number`` is of this part."""
        return number % self.workers == self.rank % self.workers

    def order(self, names: Sequence[str]) -> list[str]:
        """Return treatments in the order of this part, the original first.

        Each part begins elsewhere, so that what takes long to prepare is prepared by one and found by others.
        """
        first, others = [n for n in names if n == ORIGINAL], [n for n in names if n != ORIGINAL]
        turn = self.rank % max(1, len(others))
        return [*first, *others[len(others) - turn :], *others[: len(others) - turn]]


@dataclass(frozen=True, slots=True)
class Setup:
    """A model, the scoring of its videos, and the readings that are there already."""

    model: Model  # left unedited between batches and at the end
    scoring: Scoring
    journal: Journal = field(default_factory=Journal)  # so that a run that was stopped goes on
    share: Share = Share()
    before: Callable[[], object] | None = None  # called before videos are made, again and again

    def merging(self) -> Setup:
        """Return the setup of whoever merges what all processes have written, and makes what is missing."""
        return replace(self, journal=Journal(self.journal.folder, self.share.rank), share=Share())


class Opened(Protocol):
    """What says which model is loaded, and who judges its videos."""

    @property
    def model(self) -> str: ...
    @property
    def loading(self) -> LoadSettings: ...
    @property
    def judging(self) -> Judging: ...


class SharedJob(Opened, Protocol[Result]):
    """What a command measures, as plain values: it can be handed to other processes.

    ``videos`` are those of a group, None the usual number; ``work`` is the folder of the readings, needed
    where processes share; ``workers`` are processes on this machine, None as many as help.
    """

    @property
    def videos(self) -> int | None: ...
    @property
    def work(self) -> Path | None: ...
    @property
    def workers(self) -> int | None: ...

    def run(self, setup: Setup, progress: Progress) -> Result:
        """Do the part that is the setup's share."""


def open_setup(
    job: Opened, work: Path | None, share: Share | None = None, progress: Progress = silent
) -> Setup:
    """Load a job's model and its judge, and read the readings in ``work``.

    Raises:
        RefusalError: whatever ``load_model``, ``Judging.scoring`` and ``Journal`` raise.
    """
    share = share or Share()
    scoring = job.judging.of(job.model).scoring(work / "samples" if work else None)
    model = load_model(job.model, job.loading, progress=progress)
    setup = Setup(model, scoring, Journal(work, share.rank, again=job.judging.again), share)
    if not job.loading.compiled:
        return setup
    marked = replace(scoring, marks=(*scoring.marks, COMPILED))
    return replace(setup, scoring=marked, before=cache(partial(_compile, setup)))


def _compile(setup: Setup) -> None:
    """Compile: of several processes one does, the others find what it wrote."""
    work, size = setup.journal.folder, setup.scoring.batch if setup.model.is_small else 1
    with FileLock(work / "turn.lock") if work is not None else nullcontext():
        generate_batch(setup.model, ["a video"] * size, range(size))


def run_price(runs: Sequence[tuple[Sequence[Preset], Suite]], treatments: int) -> str:
    """Return what a run takes at most, before anything is loaded: videos, and prompts that its edits read."""
    prompts = sum(len(group.items) for _, suite in runs for group in suite)
    concepts = {preset.concept.name: preset.concept for presets, _ in runs for preset in presets}.values()
    pairs = sum(2 * len(concept.pairs) for concept in concepts)
    neutral = len({prompt for concept in concepts for prompt in concept.neutral})
    videos = f"At most {treatments * prompts} videos: {treatments} treatments of {prompts} prompts"
    return f"{videos}; an edit reads {pairs} prompts of pairs and, once, {neutral} neutral ones"


def compiled_where_it_pays(job: Compiling, suites: Sequence[Suite], treatments: int) -> Compiling:
    """Return a job with compiled blocks where a bundled model makes so many videos that it pays."""
    bundled, videos = BUNDLED.get(job.model), treatments * sum(len(g.items) for s in suites for g in s)
    can = bundled is not None and bundled.compiles and job.loading.offload == "none"
    pays = can and videos >= WORTH_COMPILING and can_compile(job.loading.place)
    if not pays or job.loading.compiled is not None:  # what was asked for stays
        return job
    return replace(job, loading=replace(job.loading, compiled=True))  # type: ignore[type-var]  # a dataclass
