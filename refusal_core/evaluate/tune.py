"""Auto-tune: a search over settings for what erases most and keeps most, on the tuning split alone.

The search is optuna's (the extra ``evidence``); its journal file may be shared by several processes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal_core.concepts import Preset, load_preset
from refusal_core.errors import MissingExtraError
from refusal_core.evaluate.grid import Point, Points
from refusal_core.evaluate.journal import Journal
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.methods import ORIGINAL, plan_method, treatment_key
from refusal_core.evaluate.report import Report, erased_share, kept_share, others_share, percent
from refusal_core.evaluate.run import Reading, cells_of, check_disjoint, measure
from refusal_core.evaluate.shelf import Shelf
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.models.load import load_model
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent
from refusal_core.settings import SiteKind

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

SITES: tuple[tuple[SiteKind, ...], ...] = (
    ("text",),
    ("text-entry",),
    ("cross-attention",),
    ("text", "cross-attention"),
)
SEED = 0


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
        study = self._study(treatment_key(model, "tune", asdict(preset.concept)))
        trier = _Trier(model, preset, self.videos, Journal(self.work))
        while (done := len(study.get_trials(deepcopy=False))) < self.trials:
            low, high = done / self.trials, (done + 1) / self.trials
            trier.progress = part(progress, 0.02 + 0.98 * low, 0.02 + 0.98 * high)
            study.optimize(trier.objective, n_trials=1)
        return front_of(study)

    def _study(self, key: str) -> Study:
        try:
            import optuna
        except ImportError as e:
            raise MissingExtraError("The search needs optuna: pip install 'optuna>=4.5'.") from e
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.work.mkdir(parents=True, exist_ok=True)
        return optuna.create_study(
            study_name=f"{key} {self.videos}",  # of other pairs, or another model, it is another search
            storage=JournalStorage(JournalFileBackend(str(self.work / "optuna.journal"))),
            directions=["maximize", "maximize"],
            sampler=optuna.samplers.TPESampler(seed=SEED),
            load_if_exists=True,
        )


class _Trier:
    """Tries one setting at a time; the original's videos and the captures are made once."""

    def __init__(self, model: Model, preset: Preset, videos: int, journal: Journal) -> None:
        self.progress: Progress = silent
        self._model, self._preset, self._journal = model, preset, journal
        self._suite = toyworld_suite(preset.concept.name, videos, "tuning")
        check_disjoint((preset,), self._suite)
        self._reading = Reading(toyworld_judge(), "toyworld", quality=False)
        self._points = {sites: Points(model, preset.concept, sites) for sites in SITES}

    def objective(self, trial: Trial) -> tuple[float, float]:
        """Return (erased, kept) of a setting that optuna draws."""
        from optuna import TrialPruned

        point = _drawn(trial)
        planned = {
            ORIGINAL: plan_method(self._model, (self._preset,), ORIGINAL),
            point.name: self._points[point.sites].plan(point),
        }
        shelf = Shelf(planned, self._journal)
        table = measure(self._model, shelf, self._suite, self._reading, self._journal, progress=self.progress)
        report = Report(self._model.name, self._preset.concept.name, tuple(cells_of(table, self._suite)))
        if not report.cell(point.name, "concept"):
            raise TrialPruned(f"{point.name}: the model has no such sites, or nothing of the concept there.")
        return figures_of(report, point.name)


def figures_of(report: Report, method: str) -> tuple[float, float]:
    """Return erased, and the smaller of attributes and other concepts kept; shares from 0 to 1."""
    kept, others = kept_share(report, method), others_share(report, method)
    return erased_share(report, method) or 0.0, min(kept or 0.0, others or 0.0)


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
