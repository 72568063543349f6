"""What ``evaluate`` does, as one plain value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from refusal_core.concepts import Preset, load_preset
from refusal_core.errors import InputError
from refusal_core.evaluate.journal import Journal
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.methods import DEFAULT_METHODS, METHOD_NAMES
from refusal_core.evaluate.report import Report
from refusal_core.evaluate.run import Reading, Share, evaluate
from refusal_core.evaluate.suites.adversarial import adversarial_suite
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.toyworld import together_suite, toyworld_suite
from refusal_core.models.load import load_model
from refusal_core.progress import Progress, part
from refusal_core.toyworld import world

SUITES = {"toyworld": toyworld_suite, "adversarial": adversarial_suite}
SETS = {"standard": DEFAULT_METHODS, "all": METHOD_NAMES}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Methods on the suites of presets. Raises InputError where something in it is not known."""

    model: str = "toyworld"
    presets: str = "fire"  # names with commas between, a path, or all
    videos: int = 200  # a group
    methods: str = "standard"  # names with commas between, standard, or all
    together: bool = False  # erase all presets' concepts at once
    suite: str = "toyworld"  # or adversarial
    work: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        self.chosen_methods()
        self.runs()

    def chosen_presets(self) -> list[Preset]:
        """Return the presets."""
        names = world.CONCEPTS if self.presets == "all" else [p.strip() for p in self.presets.split(",")]
        return [load_preset(name) for name in names]

    def chosen_methods(self) -> tuple[str, ...]:
        """Return the methods."""
        wanted = SETS.get(self.methods) or tuple(m.strip() for m in self.methods.split(","))
        if unknown := [m for m in wanted if m not in METHOD_NAMES]:
            raise InputError(f"Method '{unknown[0]}' is not known; choose from {', '.join(METHOD_NAMES)}.")
        return wanted

    def runs(self) -> list[tuple[tuple[Preset, ...], Suite]]:
        """Return what is erased at once, and the suite it is tried on."""
        presets = self.chosen_presets()
        if self.together:
            names = [p.concept.name for p in presets]
            return [(tuple(presets), together_suite(names, self.videos))]
        if self.suite not in SUITES:
            raise InputError(f"Suite '{self.suite}' is not known; choose one of {', '.join(SUITES)}.")
        return [((p,), SUITES[self.suite](p.concept.name, self.videos)) for p in presets]

    def arguments(self) -> list[str]:
        """Return the command line of another process."""
        words = ["evaluate", "--model", self.model, "--preset", self.presets, "--videos", str(self.videos)]
        words += ["--suite", self.suite, "--methods", self.methods]
        return [*words, *(["--together"] if self.together else [])]

    def run(self, work: Path | None, share: Share | None, progress: Progress) -> list[Report]:
        """Return a report a preset, or one for all together."""
        model = load_model(self.model, progress=part(progress, 0.0, 0.01))
        reading = Reading(toyworld_judge(), "toyworld", samples=work / "samples" if work else None)
        journal = Journal(work, share.rank if share else 0)
        runs, methods = self.runs(), self.chosen_methods()
        reports = []
        for i, (presets, suite) in enumerate(runs):
            step = _titled(part(progress, i / len(runs), (i + 1) / len(runs)), presets)
            reports.append(
                evaluate(model, presets, suite, reading, methods, journal=journal, share=share, progress=step)
            )
        return reports


def _titled(progress: Progress, presets: Sequence[Preset]) -> Progress:
    title = presets[0].title if len(presets) == 1 else f"{len(presets)} concepts"
    return lambda fraction, sentence: progress(fraction, f"{title}: {sentence}")
