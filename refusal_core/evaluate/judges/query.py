"""What can be asked of a vision-language model, and how its JSON answer is read. Knows no server."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refusal_core.evaluate.judges.aspects import SCALE, question_for

MAX_ANSWER = 20_000  # characters
SUM_TOLERANCE = 10.0  # percent; shares instead of percents, or noise, do not add up to 100


class WrongAnswer(ValueError):
    """The answer is not of the form that was asked for; its text says why."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question on a video's frames, with the form of its answer."""

    text: str
    schema: Mapping[str, Any]  # JSON schema of the answer
    read: Callable[[Mapping[str, Any]], float | str]  # raises WrongAnswer


def yes_no_query(aspect: str) -> Query:
    """Return the question of an aspect; its answer is how far yes is true, in percent.

    Raises:
        InputError: the aspect holds control characters, or is too long.
    """
    form = 'Answer with JSON alone: {"yes": <percent>, "no": <percent>}.'
    text = f"{question_for(aspect)}\n{SCALE}\n{form}"
    return Query(text, _object({"yes": {"type": "integer"}, "no": {"type": "integer"}}), _yes)


def choice_query(question: str, choices: Sequence[str]) -> Query:
    """Return a question that is answered by one of the choices."""
    listed = json.dumps(list(choices), ensure_ascii=False)
    text = f'{question}\nAnswer with JSON alone: {{"answer": <one of {listed}>}}.'
    schema = _object({"answer": {"type": "string", "enum": list(choices)}})
    return Query(text, schema, lambda found: _choice(found, choices))


def parse_answer(content: object) -> dict[str, Any]:
    """Return the JSON object in a model's answer, with or without words or a fence around it.

    Raises:
        WrongAnswer: there is none.
    """
    if not isinstance(content, str) or not content.strip():
        raise WrongAnswer("the answer is empty")
    if len(content) > MAX_ANSWER:
        raise WrongAnswer(f"the answer has {len(content)} characters")
    start, end = content.find("{"), content.rfind("}")
    try:
        found = json.loads(content[start : end + 1])
    except (ValueError, RecursionError) as e:
        raise WrongAnswer("the answer is no JSON") from e
    if not isinstance(found, dict):
        raise WrongAnswer("the answer is no JSON object")
    return found


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _yes(found: Mapping[str, Any]) -> float:
    yes, no = (_percent(found.get(name), name) for name in ("yes", "no"))
    if abs(yes + no - 100.0) > SUM_TOLERANCE:
        raise WrongAnswer(f"yes and no are {yes:g} and {no:g}, which do not add up to 100")
    return yes


def _percent(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongAnswer(f"'{name}' is no number")
    if not (math.isfinite(value) and 0 <= value <= 100):
        raise WrongAnswer(f"'{name}' is {value:g}, not a percentage")
    return float(value)


def _choice(found: Mapping[str, Any], choices: Sequence[str]) -> str:
    answer = found.get("answer")
    if not isinstance(answer, str) or answer not in choices:
        raise WrongAnswer("the answer is none of the choices")
    return answer
