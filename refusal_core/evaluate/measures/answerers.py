"""Who can answer questions on a video: a vision-language model, and the toy world's own reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from refusal_core.errors import InputError
from refusal_core.evaluate.judges.query import choice_query
from refusal_core.evaluate.judges.sources import JudgeSettings, check_judge, toy_reader
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.judges.verdict import Judge
from refusal_core.evaluate.judges.vision_language import sent_frames, vision_judge
from refusal_core.evaluate.judges.vision_server import VisionServer
from refusal_core.evaluate.judges.vision_settings import VisionSettings
from refusal_core.evaluate.measures.questions import Answerer, Question
from refusal_core.io.video import Video
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import ToyJudge, load_judge

ANSWERING = ("toyworld", "language", "vlm")  # the judges that answer questions


def check_answers(judge: str) -> None:
    """Raise InputError where a judge answers no questions."""
    if judge not in ANSWERING:
        raise InputError(
            f"The judge '{judge}' answers no questions; take toyworld, or vlm with the settings of a server."
        )


def open_answering(name: str, settings: JudgeSettings | None = None) -> tuple[Judge, Answerer]:
    """Return a judge and its answers to questions: one network, or one server with one budget, for both.

    Raises:
        InputError: it answers none, or has no server.
        MissingExtraError, FileError: as ``open_judge`` does.
    """
    check_answers(name)
    check_judge(name, settings)
    if isinstance(settings, VisionSettings):
        server = VisionServer(settings)
        return vision_judge(settings, server), vision_answerer(settings, server)
    network = toy_reader(name)
    return toyworld_judge(network), toyworld_answerer(network)


def vision_answerer(settings: VisionSettings, server: VisionServer | None = None) -> Answerer:
    """Return an answerer that asks a vision-language model; what it does not answer is None.

    Args:
        settings: server, model, frames; the threshold does not matter here.
        server: one that is shared with a judge, and its budget with it; None: a new one.

    Raises:
        MissingExtraError, InputError, FileError: as ``VisionServer`` does.
    """
    server = server or VisionServer(settings)

    def answer(pairs: Sequence[tuple[Video, Question]]) -> list[str | None]:
        queries = [(sent_frames(video, settings), choice_query(q.text, q.choices)) for video, q in pairs]
        return [reply if isinstance(reply, str) else None for reply in server.ask_all(queries)]

    return answer


def toyworld_answerer(network: ToyJudge | None = None) -> Answerer:
    """Return an answerer for the questions of ``scene_questions``, by the toy world's trained reader.

    Raises:
        FileError: its weights are missing or damaged.
    """
    reader = load_judge() if network is None else network

    def answer(pairs: Sequence[tuple[Video, Question]]) -> list[str | None]:
        videos = {id(video): video for video, _ in pairs}
        readings = reader.read([v.frames for v in videos.values()])
        seen = dict(zip(videos, (r.values for r in readings), strict=True))
        return [_read(seen[id(video)], question) for video, question in pairs]

    return answer


def _read(values: Mapping[str, str], question: Question) -> str | None:
    if question.about in world.CONCEPTS:
        return "yes" if values["concept"] == question.about else "no"
    return values.get(question.about)
