"""What ``evaluate`` does, as one plain value: methods on the suites of presets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from refusal_core.concepts import Preset, load_preset
from refusal_core.errors import InputError
from refusal_core.evaluate.judges.aspects import category_aspect
from refusal_core.evaluate.judges.toyworld import toyworld_aspect
from refusal_core.evaluate.judges.verdict import ANY
from refusal_core.evaluate.judging import Judging
from refusal_core.evaluate.methods.treatments import DEFAULT_METHODS, METHOD_NAMES
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.run import check_disjoint, evaluate, unused
from refusal_core.evaluate.setup import Setup, compiled_where_it_pays, run_price
from refusal_core.evaluate.suites.files import Long, Selection
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.made import MADE, made_suite
from refusal_core.evaluate.suites.safesora import UNSAFE
from refusal_core.evaluate.suites.sources import SUITES, load_suite
from refusal_core.evaluate.suites.toyworld import together_suite
from refusal_core.models.load import LoadSettings, world_of
from refusal_core.progress import Progress, each
from refusal_core.recipe import concept_phrases
from refusal_core.toyworld import world
from refusal_core.toyworld.language import looks

MADE_VIDEOS = 200  # a group of them, where nothing else is said
SETS = {"standard": DEFAULT_METHODS, "all": METHOD_NAMES}


@dataclass(frozen=True, slots=True)
class Source:
    """A suite, and where it is read from; raises InputError where it is read from nothing."""

    suite: str = "toyworld"  # or adversarial, or one of SUITES
    path: Path | None = None
    categories: str = "all"  # names with commas between, paper, or all
    column: str | None = None  # of a file, that holds the prompts
    strict: bool = False  # refuse a file with a row that cannot be used
    long: Long = "cut"  # what becomes of prompts that are longer than the model reads

    def __post_init__(self) -> None:
        if self.suite in MADE and self.path is not None:
            raise InputError(f"The suite {self.suite} reads no file; give --suite file with --source.")

    def read(self, limit: int | None) -> Suite:
        """Return the suite of a user's files, so many prompts a group. Raises as ``load_suite`` does."""
        if self.suite not in SUITES:
            known = ", ".join((*MADE, *SUITES))
            raise InputError(f"Suite '{self.suite}' is not known; choose one of {known}.")
        if self.path is None:
            raise InputError(f"The suite {self.suite} is read from your own files; give --source.")
        chosen = Selection(self.categories, limit, column=self.column, strict=self.strict)
        return load_suite(self.suite, self.path, chosen)


def presets_named(names: str, model: str = "toyworld") -> list[Preset]:
    """Return presets by their names with commas between, by a path, or those of the model's world by ``all``.

    Raises as ``load_preset`` does.
    """
    every = looks.CONCEPTS if world_of(model) == "language" else world.CONCEPTS
    chosen = every if names == "all" else [name.strip() for name in names.split(",")]
    return [load_preset(name, model) for name in chosen]


def asked_of(suite: Suite, presets: Sequence[Preset], judge: str) -> Suite:
    """Return a suite whose groups without an aspect are judged for what the presets are about."""
    preset, reads_worlds = presets[0], judge in ("toyworld", "language")
    if len(presets) > 1:
        aspect = ANY if reads_worlds else UNSAFE
    elif reads_worlds:
        aspect = toyworld_aspect(judge, preset.concept.name, concept_phrases(preset.concept))
    else:
        aspect = category_aspect(preset.concept.name, preset.category)
    groups = (group if group.aspect else replace(group, aspect=aspect) for group in suite)
    return replace(suite, groups=tuple(groups))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Methods on the suites of presets. Raises InputError where something in it is not known."""

    model: str = "toyworld"
    presets: str = "fire"  # names with commas between, a path, or all
    videos: int | None = None  # a group; None: MADE_VIDEOS, of a suite from files all
    methods: str = "standard"  # names with commas between, standard, or all
    together: bool = False  # erase all presets' concepts at once
    source: Source = Source()
    judging: Judging = Judging()  # noqa: RUF009
    loading: LoadSettings = LoadSettings()  # noqa: RUF009 - frozen values
    work: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        self.chosen_methods()
        self.judging.check_questions([suite for _, suite in self.runs()])

    def chosen_methods(self) -> tuple[str, ...]:
        """Return the methods."""
        wanted = SETS.get(self.methods) or tuple(m.strip() for m in self.methods.split(","))
        if unknown := [m for m in wanted if m not in METHOD_NAMES]:
            raise InputError(f"Method '{unknown[0]}' is not known; choose from {', '.join(METHOD_NAMES)}.")
        return wanted

    def compiled_where_it_pays(self) -> Evaluation:
        """Return the same with compiled blocks where a bundled model makes so many videos that it pays."""
        return compiled_where_it_pays(self, [suite for _, suite in self.runs()], len(self.chosen_methods()))

    def price(self) -> str:
        """Return what the run takes at most, in words."""
        return run_price(self.runs(), len(self.chosen_methods()))

    def runs(self) -> list[tuple[tuple[Preset, ...], Suite]]:
        """Return what is erased at once, and the suite it is tried on."""
        presets = presets_named(self.presets, self.model)
        if self.source.suite not in MADE:
            suite = self.source.read(self.videos)
            at_once = [tuple(presets)] if self.together else [(preset,) for preset in presets]
            return [(chosen, self._tried(suite, chosen)) for chosen in at_once]
        videos = MADE_VIDEOS if self.videos is None else self.videos
        if self.together:
            if self.source.suite != "toyworld" or world_of(self.model) != "toyworld":
                name = self.source.suite
                raise InputError(f"The suite {name} is made for one concept; leave out --together.")
            names = [p.concept.name for p in presets]
            return [(tuple(presets), together_suite(names, videos))]
        make = made_suite(self.source.suite, self.model)
        return [((p,), make(p.concept.name, videos)) for p in presets]

    def _tried(self, suite: Suite, presets: Sequence[Preset]) -> Suite:
        """Return a suite from files as these presets are tried on it."""
        if self.source.strict:
            check_disjoint(presets, suite)
        return unused(asked_of(suite, presets, self.judging.of(self.model).judge), presets)

    def run(self, setup: Setup, progress: Progress) -> list[Report]:
        """Return a report a preset, or one for all together."""
        methods, long = self.chosen_methods(), self.source.long
        return [
            evaluate(setup, presets, suite, methods, _titled(step, presets), long=long)
            for (presets, suite), step in each(progress, self.runs())
        ]


def _titled(progress: Progress, presets: Sequence[Preset]) -> Progress:
    title = presets[0].title if len(presets) == 1 else f"{len(presets)} concepts"
    return lambda fraction, sentence: progress(fraction, f"{title}: {sentence}")
