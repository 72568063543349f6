"""The judge of the paper: a vision-language model that is shown a few frames and asked one question.

Any model behind an OpenAI-compatible server will do, a local one too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refusal_core.errors import InputError
from refusal_core.evaluate.judges.frames import Frames, evenly_spaced, scaled
from refusal_core.evaluate.judges.query import yes_no_query
from refusal_core.evaluate.judges.verdict import Judge, Verdict, by_score, not_judged
from refusal_core.evaluate.judges.vision_server import Unanswered, VisionServer
from refusal_core.evaluate.judges.vision_settings import VisionSettings
from refusal_core.io.video import Video


def vision_judge(settings: VisionSettings, server: VisionServer | None = None) -> Judge:
    """Return a judge that asks a vision-language model for each video.

    Args:
        settings: server, model and protocol.
        server: one that is shared with others, and its budget with it; None: a new one, which may raise
            as ``VisionServer`` does.
    """
    server = server or VisionServer(settings)

    def judge(videos: Sequence[Video], aspect: str) -> list[Verdict]:
        query = yes_no_query(aspect)
        answers = server.ask_all([(sent_frames(video, settings), query) for video in videos])
        return [_verdict(answer, settings.threshold) for answer in answers]

    return judge


def sent_frames(video: Video, settings: VisionSettings) -> Frames:
    """Return the frames of a video as the model sees them."""
    return scaled(evenly_spaced(video, settings.frames), settings.scale)


def check_server(settings: VisionSettings) -> None:
    """Ask one small question, so that a wrong address or key is found before hours of videos are made.

    Raises:
        InputError: no usable answer came; the sentence says why.
    """
    grey = np.full((1, 64, 64, 3), 127, np.uint8)
    answer = VisionServer(settings).ask(grey, yes_no_query("a red circle"))
    if isinstance(answer, Unanswered):
        raise InputError(f"The judge {settings.model} gives no answer: {answer.why}.")


def _verdict(answer: float | str | Unanswered, threshold: float) -> Verdict:
    if isinstance(answer, Unanswered):
        return not_judged(answer.why)
    yes = float(answer)
    return by_score(yes / 100.0, threshold / 100.0, f"yes: {yes:g} %")
