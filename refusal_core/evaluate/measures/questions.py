"""Faithfulness by questions (TIFA, Hu et al. 2023): the share of questions on a video answered as expected.

The questions come from a user's file or from a toy scene; who answers them is handed in. Knows no model.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.judges.aspects import TOYWORLD
from refusal_core.evaluate.measures.statistics import Rate, wilson
from refusal_core.io.reading import clean_line, prompt_text, read_text
from refusal_core.io.video import Video
from refusal_core.toyworld import world

YES_NO = ("yes", "no")
MAX_BYTES = 16 << 20
MAX_CHOICES, MAX_QUESTIONS, MAX_PROMPTS = 12, 50, 20_000
COUNT = "questions "  # how the names of counts begin, among other measures of a video


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its choices, and the one that a video of the prompt should show."""

    text: str
    expected: str
    choices: tuple[str, ...] = YES_NO
    about: str = "other"  # colour, shape, a concept ...: shares are given for each

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", clean_line(self.text, "The question"))
        for choice in (*self.choices, self.about):
            clean_line(choice, "The choice")
        if not 2 <= len(set(self.choices)) == len(self.choices) <= MAX_CHOICES:
            raise InputError(f"'{self.text}' needs 2 to {MAX_CHOICES} different choices.")
        if self.expected not in self.choices:
            raise InputError(f"'{self.text}' expects '{self.expected}', which is none of its choices.")


Answerer = Callable[[Sequence[tuple[Video, Question]]], Sequence[str | None]]
"""Called with videos and questions; one of the choices for each, or None where it cannot answer."""
Counts = Mapping[str, Sequence[float]]
"""``questions asked, colour``, ``answered`` and ``right``: a number for each video of a batch."""


@dataclass(frozen=True, slots=True)
class QuestionScore:
    """How many questions were answered as expected; those without an answer count for neither side."""

    asked: int
    answered: int
    right: int
    share: Rate  # of the answered ones
    mean: float | None  # of the videos' shares, which is TIFA
    videos: int  # with any answer: the mean is theirs
    parts: Mapping[str, Rate]  # by what the questions are about

    @property
    def unanswered(self) -> int:
        """Questions without an answer."""
        return self.asked - self.answered


def score_questions(
    videos: Sequence[Video], questions: Sequence[Sequence[Question]], answer: Answerer
) -> QuestionScore:
    """Ask every question on its video, and count.

    Args:
        videos: one for each row of questions.
        questions: of each video; there may be none.
        answer: for example ``vision_answerer``; an answer that is no choice counts as none.

    Raises:
        InputError: videos and questions do not fit together, or there is no question.
    """
    score = score_of([ask_questions(videos, questions, answer)])
    if score is None:
        raise InputError("There is no question to ask; give some for these prompts.")
    return score


def ask_questions(
    videos: Sequence[Video], questions: Sequence[Sequence[Question]], answer: Answerer
) -> dict[str, tuple[float, ...]]:
    """Ask as ``score_questions`` does, and return the counts, which ``score_of`` adds up.

    Raises:
        InputError: videos and questions do not fit together.
    """
    if len(videos) != len(questions):
        raise InputError(f"{len(videos)} videos have {len(questions)} rows of questions; give one for each.")
    pairs = [(i, q) for i, row in enumerate(questions) for q in row]
    answers = answer([(videos[i], q) for i, q in pairs]) if pairs else []
    if len(answers) != len(pairs):
        raise InputError(
            f"{len(pairs)} questions got {len(answers)} answers; the answerer must give one each."
        )
    counts: dict[str, list[float]] = {}
    for (i, q), a in zip(pairs, answers, strict=True):
        for kind, holds in (("asked", True), ("answered", a in q.choices), ("right", a == q.expected)):
            counts.setdefault(f"{COUNT}{kind}, {q.about}", [0.0] * len(videos))[i] += holds
    return {name: tuple(values) for name, values in counts.items()}


def score_of(batches: Sequence[Counts]) -> QuestionScore | None:
    """Add up the counts of batches of videos, None where nothing was asked; other measures are left out."""
    parts: dict[str, Counter[str]] = {}
    shares: list[float] = []
    for counts in batches:
        right: Counter[int] = Counter()
        answered: Counter[int] = Counter()
        for name in (n for n in counts if n.startswith(COUNT)):
            kind, _, about = name.removeprefix(COUNT).partition(", ")
            of_videos = {i: int(value) for i, value in enumerate(counts[name])}
            parts.setdefault(about, Counter())[kind] += sum(of_videos.values())
            if kind != "asked":
                (right if kind == "right" else answered).update(of_videos)
        shares += [right[i] / n for i, n in answered.items() if n]
    if not parts:
        return None
    total = sum(parts.values(), Counter())
    return QuestionScore(
        asked=total["asked"],
        answered=total["answered"],
        right=total["right"],
        share=wilson(total["right"], total["answered"]),
        mean=sum(shares) / len(shares) if shares else None,
        videos=len(shares),
        parts={about: wilson(n["right"], n["answered"]) for about, n in parts.items()},
    )


def scene_questions(scene: world.Scene) -> tuple[Question, ...]:
    """Return questions on everything a toy scene says but its size, which is only large beside another."""
    thing = f"the {scene.shape}"
    questions = [
        Question("Which colour is the moving object?", scene.colour, tuple(world.COLOURS), "colour"),
        Question("Which shape is the moving object?", scene.shape, world.SHAPES, "shape"),
        Question(f"How does {thing} move?", scene.motion, tuple(world.MOTIONS), "motion"),
        Question("What is the background like?", scene.background, tuple(world.BACKGROUNDS), "background"),
    ]
    if scene.concept in TOYWORLD:
        questions.append(Question(TOYWORLD[scene.concept], "yes", YES_NO, scene.concept))
    return tuple(questions)


def questions_key(questions: Mapping[str, Sequence[Question]]) -> str:
    """Return a name for journals: equal ones ask the same of the same prompts."""
    plain = [[prompt, [astuple(q) for q in questions[prompt]]] for prompt in sorted(questions)]
    return COUNT + hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


# --- files -------------------------------------------------------------------------------------------

_Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _QuestionEntry(_Strict):
    question: _Text
    answer: _Text
    choices: Annotated[list[_Text], Field(min_length=2, max_length=MAX_CHOICES)] = list(YES_NO)
    about: Annotated[str, Field(min_length=1, max_length=60)] = "other"


class _PromptEntry(_Strict):
    prompt: _Text
    questions: Annotated[list[_QuestionEntry], Field(min_length=1, max_length=MAX_QUESTIONS)]


class _QuestionsFile(_Strict):
    format: Literal["refusal-studio questions"]
    version: Literal[1]
    prompts: Annotated[list[_PromptEntry], Field(min_length=1, max_length=MAX_PROMPTS)]


def load_questions(path: Path) -> dict[str, tuple[Question, ...]]:
    """Read the questions on each prompt from JSON.

    ``{"format": "refusal-studio questions", "version": 1, "prompts": [{"prompt": "...", "questions":
    [{"question": "...", "answer": "yes", "choices": ["yes", "no"], "about": "colour"}]}]}``; without
    ``choices`` they are yes and no.

    Raises:
        FileError: missing, too large, or not of this form; the sentence says where.
        InputError: a question expects what is none of its choices, or a prompt stands there twice.
    """
    path = Path(path)
    text = read_text(path, MAX_BYTES)
    try:
        content = _QuestionsFile.model_validate(json.loads(text))
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(p) for p in first["loc"]) or "the file"
        raise FileError(f"{path.name}: {place}: {first['msg'].rstrip('.').lower()}; correct it.") from e
    except (ValueError, RecursionError) as e:
        raise FileError(f"{path.name} is not valid JSON; correct it.") from e
    questions: dict[str, tuple[Question, ...]] = {}
    for number, entry in enumerate(content.prompts, start=1):
        where = f"{path.name}, prompt {number}"
        prompt = prompt_text(entry.prompt, where)
        if prompt in questions:
            raise InputError(f"{where} stands there twice; put its questions together.")
        try:
            questions[prompt] = tuple(
                Question(q.question, q.answer, tuple(q.choices), q.about) for q in entry.questions
            )
        except InputError as e:
            raise InputError(f"{where}: {e}") from e
    return questions
