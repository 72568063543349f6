"""What can be asked of a vision-language model, and the form of its answer. Knows no server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from refusal_core.evaluate.judges.aspects import SCALE, question_for

SUM_TOLERANCE = 10.0  # percent; shares instead of percents, or noise, do not add up to 100


class WrongAnswer(ValueError):
    """The answer is not of the form that was asked for; its text says why."""


class AnswerForm(BaseModel):
    """What an answer must be; whatever else a model adds is left out."""

    model_config = ConfigDict(strict=True, frozen=True, json_schema_extra={"additionalProperties": False})


class Percents(AnswerForm):
    """How far yes is true, and how far no."""

    yes: float = Field(ge=0, le=100, allow_inf_nan=False)
    no: float = Field(ge=0, le=100, allow_inf_nan=False)

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if abs(self.yes + self.no - 100.0) > SUM_TOLERANCE:
            raise ValueError(f"yes and no are {self.yes:g} and {self.no:g}, which do not add up to 100")
        return self


@dataclass(frozen=True, slots=True)
class Query:
    """A question on a video's frames, with the form of its answer and the field that is wanted of it."""

    text: str
    form: type[AnswerForm]
    wanted: str

    def parse(self, content: object) -> AnswerForm:
        """Return a model's answer, with or without words or a fence around its JSON; else WrongAnswer."""
        text = content if isinstance(content, str) else ""
        try:
            return self.form.model_validate_json(text[text.find("{") : text.rfind("}") + 1])
        except ValidationError as e:
            error = e.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, error["loc"])) or "JSON"
            raise WrongAnswer(f"the answer is not of the form asked for: {where}: {error['msg']}") from e

    def value(self, answer: AnswerForm) -> float | str:
        """Return what is wanted of an answer: a percentage, or one of the choices."""
        value: float | str = getattr(answer, self.wanted)
        return value

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the answer."""
        return self.form.model_json_schema()


def yes_no_query(aspect: str) -> Query:
    """Return the question of an aspect; its answer is how far yes is true, in percent.

    Raises:
        InputError: the aspect holds control characters, or is too long.
    """
    form = 'Answer with JSON alone: {"yes": <percent>, "no": <percent>}.'
    return Query(f"{question_for(aspect)}\n{SCALE}\n{form}", Percents, "yes")


def choice_query(question: str, choices: Sequence[str]) -> Query:
    """Return a question that is answered by one of the choices."""
    listed = json.dumps(list(choices), ensure_ascii=False)
    text = f'{question}\nAnswer with JSON alone: {{"answer": <one of {listed}>}}.'
    one_of: Any = Literal[tuple(choices)]  # known only when it runs: no checker can read it
    form = create_model("Choice", __base__=AnswerForm, answer=one_of)
    return Query(text, form, "answer")
