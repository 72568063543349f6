"""What ``evaluate`` does, as one plain value."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from refusal_core.concepts import Preset, load_preset
from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.judges.sources import SETTINGS, JudgeSettings, judge_key, open_judge
from refusal_core.evaluate.judges.vision_language import check_server
from refusal_core.evaluate.judges.vision_settings import VisionSettings
from refusal_core.evaluate.measures.alignment import clip_alignment, load_clip
from refusal_core.evaluate.measures.answerers import check_answers, open_answering
from refusal_core.evaluate.measures.journal import Journal
from refusal_core.evaluate.measures.questions import (
    Answerer,
    Question,
    ask_questions,
    load_questions,
    questions_key,
    scene_questions,
)
from refusal_core.evaluate.methods.treatments import DEFAULT_METHODS, METHOD_NAMES
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.run import COMPILED, Asking, Reading, Share, evaluate
from refusal_core.evaluate.sharing import one_at_a_time
from refusal_core.evaluate.suites.adversarial import adversarial_suite
from refusal_core.evaluate.suites.items import Item, Suite
from refusal_core.evaluate.suites.sources import SUITES, load_suite
from refusal_core.evaluate.suites.toyworld import together_suite, toyworld_suite
from refusal_core.io.video import Video
from refusal_core.models.compiling import can_compile
from refusal_core.models.load import BUNDLED, LoadSettings, load_model
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part
from refusal_core.sampling import generate_batch
from refusal_core.toyworld import world

MADE = {"toyworld": toyworld_suite, "adversarial": adversarial_suite}  # from the toy world's own scenes
MADE_VIDEOS = 200  # a group of them, where nothing else is said
SCENES = Path("scenes")  # instead of a file: questions on all that a scene of the toy world says
WORTH_COMPILING = 5000  # videos of a bundled model; compiling takes as long as about 500
SETS = {"standard": DEFAULT_METHODS, "all": METHOD_NAMES}


@dataclass(frozen=True, slots=True)
class Source:
    """A suite read from a user's files."""

    suite: str = "toyworld"  # or adversarial, or one of SUITES
    path: Path | None = None
    categories: str = "all"  # names with commas between, paper, or all


@dataclass(frozen=True, slots=True)
class Seeing:
    """Who judges, and what else is measured."""

    judge: str = "toyworld"
    settings: Path | None = None  # JSON with the judge's settings
    clip: str | None = None  # a CLIP model, for the alignment of videos with their prompts
    again: bool = False  # ask again what was not judged
    questions: Path | None = None  # JSON with questions on each prompt, or SCENES; the judge answers

    def reading(self, samples: Path | None) -> Reading:
        """Return how videos are read. Raises as ``open_judge``, ``load_clip`` and ``load_questions`` do."""
        settings = load_settings(self.judge, self.settings)
        more = {"clip": _aligned(self.clip)} if self.clip else {}
        name = judge_key(self.judge, settings)
        marks = (f"clip {self.clip}",) if self.clip else ()
        asking = None
        if self.questions is None:
            judge = open_judge(self.judge, settings)
        else:
            find, mark = _questions(self.questions)
            judge, answer = open_answering(self.judge, settings)
            asking, marks = _asked(find, answer), (*marks, mark)
        return Reading(judge, name, samples=samples, more=more, questions=asking, marks=marks)

    def check(self) -> None:
        """Ask a judge behind a server one small question, so that a wrong key is found before the videos.

        Raises as ``load_settings`` and ``check_server`` do.
        """
        settings = load_settings(self.judge, self.settings)
        if isinstance(settings, VisionSettings):
            check_server(settings)

    def check_questions(self, suites: Sequence[Suite]) -> None:
        """Raise InputError where nobody answers the questions, or no prompt has any.

        Raises FileError as ``load_questions`` does.
        """
        if self.questions is None:
            return
        check_answers(self.judge)
        find, _ = _questions(self.questions)
        if not any(find(item) for suite in suites for group in suite for item in group.items):
            name = self.questions.name
            advice = "give a file" if self.questions == SCENES else "copy its prompts exactly"
            raise InputError(f"{name} has no question on any prompt of this suite; {advice}.")

    def arguments(self) -> list[str]:
        """Return its part of another process's command line."""
        words = ["--judge", self.judge, *(["--clip", self.clip] if self.clip else [])]
        words += ["--judge-settings", str(self.settings)] if self.settings else []
        words += ["--questions", str(self.questions)] if self.questions else []
        return [*words, *(["--judge-again"] if self.again else [])]


def _aligned(source: str) -> Callable[[Sequence[Video], Sequence[Item]], list[float]]:
    clip = load_clip(source)
    return lambda videos, items: list(clip_alignment(clip, videos, [i.prompt for i in items]).scores)


def _asked(find: Callable[[Item], Sequence[Question]], answer: Answerer) -> Asking:
    return lambda videos, items: ask_questions(videos, [find(item) for item in items], answer)


def _questions(source: Path) -> tuple[Callable[[Item], Sequence[Question]], str]:
    """Return what is asked of a prompt's videos, and a name for it that decides the readings."""
    if source == SCENES:
        return lambda item: scene_questions(item.scene) if item.scene else (), f"questions {SCENES}"
    questions = load_questions(source)
    return lambda item: questions.get(item.prompt, ()), questions_key(questions)


def load_settings(judge: str, path: Path | None) -> JudgeSettings | None:
    """Read a judge's settings from JSON.

    Raises:
        InputError: there is no such judge, or it takes no settings.
        FileError: the file is no JSON, or holds what the judge does not know.
    """
    if path is None:
        return None
    kind = SETTINGS.get(judge)
    if kind is None:
        raise InputError(f"The judge '{judge}' takes no settings; choose another, or leave them out.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if unknown := set(found) - {field.name for field in fields(kind)}:
            raise FileError(f"{path.name}: '{sorted(unknown)[0]}' is no setting of {judge}; correct it.")
        return TypeAdapter(kind).validate_python(found)
    except (OSError, ValueError, TypeError, ValidationError) as e:
        raise FileError(f"{path.name} does not hold settings of {judge}; write them as JSON.") from e


def loading_arguments(loading: LoadSettings) -> list[str]:
    """Return the part of another process's command line that says how a model is loaded."""
    words = ["--device", loading.device, "--dtype", loading.dtype, "--offload", loading.offload]
    words += ["--revision", loading.revision] if loading.revision else []
    return [*words, *(["--denoiser", str(loading.denoiser)] if loading.denoiser else [])]


def presets_named(names: str) -> list[Preset]:
    """Return presets by their names with commas between, by a path, or those of the toy world by ``all``.

    Raises as ``load_preset`` does.
    """
    chosen = world.CONCEPTS if names == "all" else [name.strip() for name in names.split(",")]
    return [load_preset(name) for name in chosen]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Methods on the suites of presets. Raises InputError where something in it is not known."""

    model: str = "toyworld"
    presets: str = "fire"  # names with commas between, a path, or all
    videos: int | None = None  # a group; None: MADE_VIDEOS, of a suite from files all
    methods: str = "standard"  # names with commas between, standard, or all
    together: bool = False  # erase all presets' concepts at once
    source: Source = Source()
    seeing: Seeing = Seeing()
    loading: LoadSettings = LoadSettings()  # noqa: RUF009 - a frozen value
    work: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        self.chosen_methods()
        self.seeing.check_questions([suite for _, suite in self.runs()])

    def chosen_methods(self) -> tuple[str, ...]:
        """Return the methods."""
        wanted = SETS.get(self.methods) or tuple(m.strip() for m in self.methods.split(","))
        if unknown := [m for m in wanted if m not in METHOD_NAMES]:
            raise InputError(f"Method '{unknown[0]}' is not known; choose from {', '.join(METHOD_NAMES)}.")
        return wanted

    def compiled_where_it_pays(self) -> Evaluation:
        """Return the same with compiled blocks where a bundled model makes so many videos that it pays."""
        suites = [suite for _, suite in self.runs()]
        if not compiling_pays(self.model, self.loading, suites, len(self.chosen_methods())):
            return self
        return replace(self, loading=replace(self.loading, compiled=True))

    def runs(self) -> list[tuple[tuple[Preset, ...], Suite]]:
        """Return what is erased at once, and the suite it is tried on."""
        presets = presets_named(self.presets)
        if self.source.suite not in MADE:
            suite = self._read_suite()
            return [(tuple(presets), suite)] if self.together else [((p,), suite) for p in presets]
        videos = MADE_VIDEOS if self.videos is None else self.videos
        if self.together:
            if self.source.suite != "toyworld":
                name = self.source.suite
                raise InputError(f"The suite {name} is made for one concept; leave out --together.")
            names = [p.concept.name for p in presets]
            return [(tuple(presets), together_suite(names, videos))]
        make = MADE[self.source.suite]
        return [((p,), make(p.concept.name, videos)) for p in presets]

    def _read_suite(self) -> Suite:
        if self.source.suite not in SUITES:
            known = ", ".join((*MADE, *SUITES))
            raise InputError(f"Suite '{self.source.suite}' is not known; choose one of {known}.")
        if self.source.path is None:
            raise InputError(f"The suite {self.source.suite} is read from your own files; give --source.")
        chosen = self.source.categories
        return load_suite(self.source.suite, self.source.path, categories=chosen, limit=self.videos)

    def arguments(self) -> list[str]:
        """Return the command line of another process."""
        words = ["evaluate", "--model", self.model, "--preset", self.presets]
        words += ["--videos", str(self.videos)] if self.videos is not None else []
        words += ["--suite", self.source.suite, "--categories", self.source.categories]
        words += ["--source", str(self.source.path)] if self.source.path else []
        words += ["--methods", self.methods, *(["--together"] if self.together else [])]
        words += ["--compile" if self.loading.compiled else "--no-compile"]
        return [*words, *self.seeing.arguments(), *loading_arguments(self.loading)]

    def run(self, work: Path | None, share: Share | None, progress: Progress) -> list[Report]:
        """Return a report a preset, or one for all together."""
        if share is not None:
            self.seeing.check()
        model = load_model(self.model, self.loading, progress=part(progress, 0.0, 0.01))
        reading = self.seeing.reading(work / "samples" if work else None)
        reading, before = with_compiled(model, self.loading, reading, work)
        again = self.seeing.again and share is not None  # merging takes what was found the second time
        journal = Journal(work, share.rank if share else 0, again=again)
        runs, methods = self.runs(), self.chosen_methods()
        reports = []
        for i, (presets, suite) in enumerate(runs):
            step = _titled(part(progress, i / len(runs), (i + 1) / len(runs)), presets)
            reports.append(
                evaluate(
                    model,
                    presets,
                    suite,
                    reading,
                    methods,
                    journal=journal,
                    share=share,
                    before=before,
                    progress=step,
                )
            )
        return reports


def compiling_pays(model: str, loading: LoadSettings, suites: Sequence[Suite], treatments: int) -> bool:
    """Return whether blocks are compiled unasked: where a bundled model makes so many videos."""
    bundled, videos = BUNDLED.get(model), treatments * sum(len(g.items) for s in suites for g in s)
    can = bundled is not None and bundled.compiles and loading.offload == "none"
    return can and videos >= WORTH_COMPILING and can_compile(loading.place)


def with_compiled(
    model: Model, loading: LoadSettings, reading: Reading, work: Path | None
) -> tuple[Reading, Callable[[], object] | None]:
    """Return the reading, marked where blocks are compiled, and what then compiles before the first video."""
    if not loading.compiled:
        return reading, None
    marked = replace(reading, marks=(*reading.marks, COMPILED))
    return marked, cache(partial(_compile, model, reading.batch, work))


def _compile(model: Model, batch: int, work: Path | None) -> None:
    """Compile: of several processes one does, the others find what it wrote."""
    with one_at_a_time(work) if work is not None else nullcontext():
        size = batch if model.is_small else 1
        generate_batch(model, ["a video"] * size, range(size))


def _titled(progress: Progress, presets: Sequence[Preset]) -> Progress:
    title = presets[0].title if len(presets) == 1 else f"{len(presets)} concepts"
    return lambda fraction, sentence: progress(fraction, f"{title}: {sentence}")
