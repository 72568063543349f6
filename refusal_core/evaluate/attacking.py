"""What ``attack`` does, as one plain value: attacks on the methods of presets, each with its budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from refusal_core.concepts import Preset
from refusal_core.edit import versions
from refusal_core.errors import InputError
from refusal_core.evaluate.attacks.curves import PLAIN, AttackReport, Curve, price_of, stand_of
from refusal_core.evaluate.attacks.protocol import ATTACKS, VERSION, Budget, attacks_named
from refusal_core.evaluate.evaluation import Evaluation, Source
from refusal_core.evaluate.field import Aim, Field
from refusal_core.evaluate.judging import Judging
from refusal_core.evaluate.measures.journal import Measured
from refusal_core.evaluate.methods.cache import TreatmentCache
from refusal_core.evaluate.methods.treatments import METHOD_NAMES, ORIGINAL, plan_method
from refusal_core.evaluate.run import check_disjoint, fitted, unjudged
from refusal_core.evaluate.setup import Setup
from refusal_core.evaluate.suites.items import Suite, batches
from refusal_core.models.conditioning import check_conditioning
from refusal_core.models.load import LoadSettings
from refusal_core.progress import Progress, each

CONTROLS = (ORIGINAL, "placebo")  # the ceiling and the floor: in every table


@dataclass(frozen=True, slots=True)
class Attacking:
    """Attacks on methods, for the concepts of presets. Raises InputError where something is not known."""

    model: str = "toyworld"
    presets: str = "fire"  # names with commas between, a path, or all
    methods: str = "whitened"  # names with commas between
    attacks: str = "all"
    budget: Budget = "short"
    prompts: int = 8  # of a concept, a video each
    seed: int = 0  # of what an attack draws
    source: Source = Source()  # noqa: RUF009 - frozen values
    judging: Judging = Judging()  # noqa: RUF009
    loading: LoadSettings = LoadSettings()  # noqa: RUF009
    work: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        attacks_named(self.attacks)
        self.chosen_methods()

    @property
    def videos(self) -> None:
        """However few they are: gradients take so long that more processes help."""

    def chosen_methods(self) -> tuple[str, ...]:
        """Return the methods, the controls first."""
        wanted = [name.strip() for name in self.methods.split(",")]
        if unknown := [name for name in wanted if name not in METHOD_NAMES]:
            raise InputError(f"Method '{unknown[0]}' is not known; choose from {', '.join(METHOD_NAMES)}.")
        return tuple(dict.fromkeys((*CONTROLS, *wanted)))

    def runs(self) -> list[tuple[Preset, Suite]]:
        """Return each preset with the one group of prompts that asks for its concept."""
        whole = Evaluation(self.model, self.presets, self.prompts, source=self.source, judging=self.judging)
        found = []
        for (preset, *_), suite in whole.runs():
            check_disjoint([preset], suite)
            asking = next(group for group in suite if not group.ordinary)
            found.append((preset, replace(suite, groups=(asking,))))
        return found

    def run(self, setup: Setup, progress: Progress) -> list[AttackReport]:
        """Return a report a preset; of several processes each does its share."""
        runs = self.runs()
        check_conditioning(setup.model, "An attack")
        return [self._attacked(setup, *run, step) for run, step in each(progress, runs)]

    def _attacked(self, setup: Setup, preset: Preset, suite: Suite, progress: Progress) -> AttackReport:
        suite = fitted(suite, setup.model, self.source.long)
        (group,) = suite
        methods, attacks = self.chosen_methods(), attacks_named(self.attacks)
        planned = {name: plan_method(setup.model, [preset], name) for name in methods}
        cache = TreatmentCache(planned, setup.journal, setup.before)
        size = setup.scoring.batch if setup.model.is_small else 1
        aim = Aim(setup, cache, preset.concept, group.aspect, attacks, self.budget, self.seed)
        fields = [Field(aim, items) for items in batches(group.items, size)]
        bouts = [(f, a, m) for f in fields for a in (PLAIN, *attacks) for m in methods]
        for number, ((field, attack, method), step) in enumerate(each(progress, bouts)):
            if setup.share.has(number):
                field.attack(method, attack, step)
        return self._report(aim, preset, suite, fields)

    def _report(self, aim: Aim, preset: Preset, suite: Suite, fields: Sequence[Field]) -> AttackReport:
        methods, planned, model = self.chosen_methods(), aim.cache.planned, aim.setup.model
        found: dict[tuple[str, str], list[tuple[int, list[Measured]]]] = {}
        for attack in (PLAIN, *aim.attacks):
            for method in methods:
                rows = [(s, [f.measured(method, attack, s) for f in fields]) for s in aim.checkpoints(attack)]
                found[method, attack] = [(s, [m for m in row if m is not None]) for s, row in rows]
        curves = [
            Curve(m, a, tuple(stand_of(s, row) for s, row in found[m, PLAIN] + found[m, a] if row))
            for a in aim.attacks
            for m in methods
        ]
        drawn = [curve for curve in curves if len(curve.stands) > 1]
        by_text = [curve for curve in drawn if not ATTACKS[curve.attack].by_picture]
        troubles = dict.fromkeys(trouble for f in fields for trouble in f.troubles)
        measured = (m for stands in found.values() for _, row in stands for m in row)
        return AttackReport(
            protocol=VERSION,
            budget=self.budget,
            model=model.name,
            concept=preset.concept.name,
            judge=aim.setup.scoring.name,
            videos=len(suite.groups[0].items),
            seed=self.seed,
            curves=tuple(drawn),
            prices={m: price_of(by_text, m) for m in methods if any(c.method == m for c in by_text)},
            methods={m: {"key": plan.key, "recipe": plan.recipe} for m, plan in planned.items()},
            versions=versions() | {"weights": model.precision},
            notes=(*suite.notes, *aim.cache.troubles(), *troubles, *unjudged(measured)),
        )
