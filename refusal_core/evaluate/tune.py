"""Auto-tune: a search over settings for what erases most and keeps most, on the tuning split alone.

The search is optuna's (the extra ``evidence``). Several processes may share its folder, each started by
hand and knowing of no other; what keeps them apart are locks of the system on files. (Optuna's heartbeats
need a database: it opens in seconds, counts the trials of the dead for a while and overshoots their number.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from refusal_core.concepts import Preset, load_preset
from refusal_core.errors import FileError, MissingExtraError
from refusal_core.evaluate.grid import Point, PointPlanner
from refusal_core.evaluate.judging import Judging
from refusal_core.evaluate.methods.treatments import ORIGINAL, plan_method, treatment_key
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.reports.tables import method_figures, percent
from refusal_core.evaluate.run import check_disjoint, run_planned
from refusal_core.evaluate.setup import Setup, Share, open_setup
from refusal_core.evaluate.suites.made import made_suite
from refusal_core.models.load import LoadSettings
from refusal_core.progress import Progress, part, silent
from refusal_core.settings import SiteKind

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import BaseTrial, FrozenTrial, Trial

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
    loading: LoadSettings = LoadSettings()  # noqa: RUF009 - frozen values
    judging: Judging = Judging(quality=False)  # noqa: RUF009

    def run(self, progress: Progress = silent) -> list[Tuned]:
        """Search until there are ``trials``, and return the Pareto front, the most erasing first.

        Raises:
            MissingExtraError: optuna is not installed.
        """
        preset = load_preset(self.preset, self.model)
        with worker_number(self.work) as worker:
            setup = open_setup(self, self.work, Share(worker), part(progress, 0.0, 0.02))
            key = treatment_key(setup.model, "tune", asdict(preset.concept))
            # Of other pairs, or another model, it is another search.
            search = Search(self.work, f"{key} {self.videos}", self.trials, worker)
            search.run(_Trier(setup, preset, self.videos).figures, part(progress, 0.02, 1.0))
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
        with FileLock(self._work / "next.lock"):
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
        try:
            with FileLock(_lock_of(self._work, worker), blocking=False):
                return True
        except Timeout:
            return False


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
    whether it is locked says whether its worker lives.

    Raises:
        FileError: the folder cannot be written.
    """
    for number in itertools.count():
        lock = FileLock(_lock_of(work, number), blocking=False)
        try:
            work.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            continue
        except OSError as e:
            raise FileError(f"{work.name} cannot be used ({e.strerror or e}); choose another.") from e
        try:
            yield number
        finally:
            lock.release()
        return


def _lock_of(work: Path, worker: int) -> Path:
    return work / f"{worker}.lock"


class _Trier:
    """Tries one setting at a time; the original's videos and the captures are made once."""

    def __init__(self, setup: Setup, preset: Preset, videos: int) -> None:
        self._setup = replace(setup, scoring=replace(setup.scoring, samples=None))
        self._preset = preset
        self._suite = made_suite("toyworld", setup.model.name)(preset.concept.name, videos, "tuning")
        check_disjoint((preset,), self._suite)
        self._planners = {sites: PointPlanner(setup.model, preset.concept, sites) for sites in SITES}

    def figures(self, point: Point, progress: Progress) -> tuple[float, float] | None:
        """Return (erased, kept) of a setting; None: no such sites, or nothing of the concept there."""
        planned = {
            ORIGINAL: plan_method(self._setup.model, (self._preset,), ORIGINAL),
            point.name: self._planners[point.sites].plan(point),
        }
        report = run_planned(self._setup, self._preset.concept.name, planned, self._suite, progress)
        return figures_of(report, point.name) if report.cell(point.name, "concept") else None


def figures_of(report: Report, method: str) -> tuple[float, float]:
    """Return erased, and the smaller of attributes and other concepts kept; shares from 0 to 1."""
    shares = method_figures(report, method)
    return shares["erased"] or 0.0, min(shares["kept"] or 0.0, shares["others"] or 0.0)


def _drawn(trial: BaseTrial) -> Point:
    sites = SITES[trial.suggest_int("sites", 0, len(SITES) - 1)]
    return Point(
        method="whitened",
        sites=sites,
        layers="all",
        rank=trial.suggest_int("rank", 1, 8, log=True),
        strength=round(trial.suggest_float("strength", 0.6, 1.4, step=0.1), 2),
        alpha=1.0,
        anchor="mean" if trial.suggest_categorical("anchor", ["zero", "mean"]) == "mean" else "zero",
        shrinkage=trial.suggest_categorical("shrinkage", [0.002, 0.02, 0.2]),
    )


def front_of(study: Study) -> list[Tuned]:
    """Return the trials that no other beats in both figures, the most erasing first; equal ones once."""
    import optuna

    best: dict[tuple[float, float], Tuned] = {}
    for trial in study.best_trials:
        erased, kept = trial.values
        best.setdefault((erased, kept), Tuned(_drawn(optuna.trial.FixedTrial(trial.params)), erased, kept))
    return sorted(best.values(), key=lambda t: (-t.erased, -t.kept))


def table_of(front: list[Tuned]) -> list[list[Any]]:
    """Return the front as rows for a table."""
    return [[t.point.name, percent(t.erased), percent(t.kept)] for t in front]
