"""Auto-tune: a search over settings for what erases most and keeps most, on the tuning split alone.

The search is optuna's (the extra ``evidence``). Several processes may share its folder, each started by
hand and knowing of no other; what keeps them apart are locks of the system on files (Linux, macOS).
"""

from __future__ import annotations

import fcntl
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal_core.concepts import Preset, load_preset
from refusal_core.errors import FileError, MissingExtraError
from refusal_core.evaluate.grid import Point, Points
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.measures.journal import Journal
from refusal_core.evaluate.methods.treatments import ORIGINAL, plan_method, treatment_key
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.reports.tables import method_figures, percent
from refusal_core.evaluate.run import Reading, cells_of, check_disjoint, measure
from refusal_core.evaluate.shelf import Shelf
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.models.load import load_model
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent
from refusal_core.settings import SiteKind

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

SITES: tuple[tuple[SiteKind, ...], ...] = (
    ("text",),
    ("text-entry",),
    ("cross-attention",),
    ("text", "cross-attention"),
)
WORKER = "worker"  # the attribute of a trial that says who tries it
Objective = Callable[[Point, Progress], tuple[float, float] | None]  # erased, kept; None: nothing to measure


@dataclass(frozen=True, slots=True)
class Tuned:
    """One setting on the Pareto front, with its figures on the tuning split, shares from 0 to 1."""

    point: Point
    erased: float
    kept: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is searched, and for how long."""

    model: str
    preset: str
    trials: int  # in all, those of former runs among them
    videos: int  # a group and trial
    work: Path  # readings, and optuna's journal

    def run(self, progress: Progress = silent) -> list[Tuned]:
        """Search until there are ``trials``, and return the Pareto front, the most erasing first.

        Raises:
            MissingExtraError: optuna is not installed.
        """
        model, preset = load_model(self.model, progress=part(progress, 0.0, 0.02)), load_preset(self.preset)
        key = treatment_key(model, "tune", asdict(preset.concept))
        with worker_number(self.work) as worker:
            # Of other pairs, or another model, it is another search.
            search = Search(self.work, f"{key} {self.videos}", self.trials, worker)
            trier = _Trier(model, preset, self.videos, Journal(self.work, worker))
            search.run(trier.figures, part(progress, 0.02, 1.0))
        return front_of(search.study)


class Search:
    """The trials of a folder, each handed to one of the processes that share it."""

    def __init__(self, work: Path, name: str, trials: int, worker: int) -> None:
        self.study = _open_study(work, name)
        self._work, self._trials, self._worker = work, trials, worker

    def run(self, objective: Objective, progress: Progress = silent) -> None:
        """Try settings until the folder has all its trials, done or in the hands of a living process."""
        from optuna.trial import TrialState

        while (turn := self._next()) is not None:
            done, trial = turn
            low, high = done / self._trials, (done + 1) / self._trials
            figures = objective(_drawn(trial), part(progress, low, high))
            self.study.tell(trial, figures, state=TrialState.COMPLETE if figures else TrialState.PRUNED)

    def _next(self) -> tuple[int, Trial] | None:
        """Return how many trials there are and one more, or None where there are enough."""
        import optuna

        # Counting and asking are one step: else two processes would both begin the last trial.
        with _locked(self._work / "next.lock", wait=True):
            self._give_up_abandoned()
            trials = self.study.get_trials(deepcopy=False)
            done = sum(t.state != optuna.trial.TrialState.FAIL for t in trials)
            if done >= self._trials:
                return None
            # By the trial's number, which no two share: with one seed every process would draw the same
            # settings. A single process draws the same ones whether or not it was started anew between.
            self.study.sampler = optuna.samplers.TPESampler(seed=len(trials))
            trial = self.study.ask()
            trial.set_user_attr(WORKER, self._worker)
            return done, trial

    def _give_up_abandoned(self) -> None:
        """Mark the trials of processes that are gone as failed; another one then takes their place."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_abandoned(trial):  # since the list was read, its process may have ended well
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get(WORKER)
        if not isinstance(worker, int) or worker == self._worker:
            return True  # killed while it was asked for, or under this number before
        with _locked(_lock_of(self._work, worker)) as is_free:
            return is_free


def _open_study(work: Path, name: str) -> Study:
    try:
        import optuna
    except ImportError as e:
        raise MissingExtraError("The search needs optuna: pip install 'optuna>=4.5'.") from e
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(work / "optuna.journal"))),
        directions=["maximize", "maximize"],
        load_if_exists=True,
    )


@contextmanager
def worker_number(work: Path) -> Iterator[int]:
    """Hold the lowest number that no living process holds, for the duration of a block.

    A lock on a file, as nobody hands out numbers, and process ids are used again, and by other machines:
    the system drops the lock when the process ends, however it ends. So a number is soon used again, and
    whether it is held says whether its worker lives.

    Raises:
        FileError: the folder cannot be written.
    """
    for number in itertools.count():
        with _locked(_lock_of(work, number)) as is_mine:
            if is_mine:
                yield number
                return


def _lock_of(work: Path, worker: int) -> Path:
    return work / f"{worker}.lock"


@contextmanager
def _locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a file for the duration of a block, which is given False where another process has it.

    The file stays: one removed and made again would be another, locked apart from it.
    """
    is_mine = True
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            is_mine = False
    except OSError as e:
        raise FileError(f"{path.parent.name} cannot be used ({e.strerror or e}); choose another.") from e
    with file:
        yield is_mine


class _Trier:
    """Tries one setting at a time; the original's videos and the captures are made once."""

    def __init__(self, model: Model, preset: Preset, videos: int, journal: Journal) -> None:
        self._model, self._preset, self._journal = model, preset, journal
        self._suite = toyworld_suite(preset.concept.name, videos, "tuning")
        check_disjoint((preset,), self._suite)
        self._reading = Reading(toyworld_judge(), "toyworld", quality=False)
        self._points = {sites: Points(model, preset.concept, sites) for sites in SITES}

    def figures(self, point: Point, progress: Progress) -> tuple[float, float] | None:
        """Return (erased, kept) of a setting; None: no such sites, or nothing of the concept there."""
        planned = {
            ORIGINAL: plan_method(self._model, (self._preset,), ORIGINAL),
            point.name: self._points[point.sites].plan(point),
        }
        shelf = Shelf(planned, self._journal)
        table = measure(self._model, shelf, self._suite, self._reading, self._journal, progress=progress)
        report = Report(self._model.name, self._preset.concept.name, tuple(cells_of(table, self._suite)))
        if not report.cell(point.name, "concept"):
            return None
        return figures_of(report, point.name)


def figures_of(report: Report, method: str) -> tuple[float, float]:
    """Return erased, and the smaller of attributes and other concepts kept; shares from 0 to 1."""
    shares = method_figures(report, method)
    return shares["erased"] or 0.0, min(shares["kept"] or 0.0, shares["others"] or 0.0)


def _drawn(trial: Trial) -> Point:
    sites = SITES[trial.suggest_int("sites", 0, len(SITES) - 1)]
    return Point(
        method="whitened",
        sites=sites,
        layers="all",
        rank=trial.suggest_int("rank", 1, 8, log=True),
        strength=round(trial.suggest_float("strength", 0.6, 1.4, step=0.1), 2),
        alpha=1.0,
        anchor=trial.suggest_categorical("anchor", ["zero", "mean"]),
        shrinkage=trial.suggest_categorical("shrinkage", [0.002, 0.02, 0.2]),
    )


def front_of(study: Study) -> list[Tuned]:
    """Return the trials that no other beats in both figures, the most erasing first; equal ones once."""
    import optuna

    found: dict[tuple[float, float], Tuned] = {}
    for trial in study.best_trials:
        erased, kept = trial.values
        again = optuna.trial.FixedTrial(trial.params)
        found.setdefault((erased, kept), Tuned(_drawn(again), erased, kept))  # type: ignore[arg-type]
    return sorted(found.values(), key=lambda t: (-t.erased, -t.kept))


def table_of(front: list[Tuned]) -> list[list[Any]]:
    """Return the front as rows for a table."""
    return [[t.point.name, percent(t.erased), percent(t.kept)] for t in front]
