"""Who judges, what else is measured, and what is asked of the videos: as plain values."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.judges.sources import SETTINGS, JudgeSettings, judge_key, open_judge
from refusal_core.evaluate.judges.vision_language import check_server
from refusal_core.evaluate.judges.vision_settings import VisionSettings
from refusal_core.evaluate.measures.alignment import clip_alignment
from refusal_core.evaluate.measures.answerers import check_answers, open_answering
from refusal_core.evaluate.measures.questions import (
    Answerer,
    Question,
    ask_questions,
    load_questions,
    questions_key,
    scene_questions,
)
from refusal_core.evaluate.scoring import Asking, Measure, Scoring
from refusal_core.evaluate.suites.items import Item, Suite
from refusal_core.models.clip import load_clip
from refusal_core.models.load import world_of

SCENES = Path("scenes")  # instead of a file: questions on all that a scene of the toy world says


@dataclass(frozen=True, slots=True)
class Judging:
    """Who judges, and what else is measured."""

    judge: str = "toyworld"
    settings: Path | None = None  # JSON with the judge's settings
    clip: str | None = None  # a CLIP model, for the alignment of videos with their prompts
    again: bool = False  # ask again what was not judged
    questions: Path | None = None  # JSON with questions on each prompt, or SCENES; the judge answers
    quality: bool = True  # also compare with the original frame by frame

    def of(self, model: str) -> Judging:
        """Return the same with the judge of the model's own world, where ``toyworld`` is said."""
        return replace(self, judge=world_of(model)) if self.judge == "toyworld" else self

    def scoring(self, samples: Path | None) -> Scoring:
        """Return how videos are scored. Raises as ``open_judge``, ``load_clip`` and ``load_questions`` do."""
        settings = load_judge_settings(self.judge, self.settings)
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
        return Scoring(judge, name, self.quality, samples, more=more, questions=asking, marks=marks)

    def check(self) -> None:
        """Ask a judge behind a server one small question, so that a wrong key is found before the videos.

        Raises as ``load_judge_settings`` and ``check_server`` do.
        """
        settings = load_judge_settings(self.judge, self.settings)
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


def _aligned(source: str) -> Measure:
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


def load_judge_settings(judge: str, path: Path | None) -> JudgeSettings | None:
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
        content = json.loads(path.read_text(encoding="utf-8"))
        if unknown := set(content) - {field.name for field in fields(kind)}:
            raise FileError(f"{path.name}: '{sorted(unknown)[0]}' is no setting of {judge}; correct it.")
        return TypeAdapter(kind).validate_python(content)
    except (OSError, ValueError, TypeError, ValidationError) as e:
        raise FileError(f"{path.name} does not hold settings of {judge}; write them as JSON.") from e
