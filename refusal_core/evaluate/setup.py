"""What the runs of one command share: the model, how its videos are scored, and where readings are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Protocol, TypeVar

from filelock import FileLock

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
    def model(self) -> str:
        """Name of the model."""

    @property
    def loading(self) -> LoadSettings:
        """How it is loaded."""

    @property
    def judging(self) -> Judging:
        """Who judges its videos."""


class SharedJob(Opened, Protocol[Result]):
    """What a command measures, as plain values: it can be handed to other processes."""

    @property
    def videos(self) -> int | None:
        """Videos a group; None: the usual number."""

    @property
    def work(self) -> Path | None:
        """The folder of the readings; needed where processes share."""

    @property
    def workers(self) -> int | None:
        """Processes on this machine; None: as many as help."""

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


def compiling_pays(model: str, loading: LoadSettings, suites: Sequence[Suite], treatments: int) -> bool:
    """Return whether blocks are compiled unasked: where a bundled model makes so many videos."""
    bundled, videos = BUNDLED.get(model), treatments * sum(len(g.items) for s in suites for g in s)
    can = bundled is not None and bundled.compiles and loading.offload == "none"
    return can and videos >= WORTH_COMPILING and can_compile(loading.place)
