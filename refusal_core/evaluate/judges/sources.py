"""The judges by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from refusal_core.errors import InputError
from refusal_core.evaluate.judges.aspects import QUESTIONS, SCALE
from refusal_core.evaluate.judges.classifiers import GoreSettings, NuditySettings, gore_judge, nudity_judge
from refusal_core.evaluate.judges.identity import IdentitySettings, identity_judge, references_digest
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.judges.trademark_text import TrademarkSettings, trademark_judge
from refusal_core.evaluate.judges.verdict import Judge
from refusal_core.evaluate.judges.vision_language import vision_judge
from refusal_core.evaluate.judges.vision_settings import VisionSettings
from refusal_core.toyworld.judge import ToyJudge, load_judge
from refusal_core.toyworld.language.judge import load_look_judge

JudgeSettings = VisionSettings | NuditySettings | GoreSettings | TrademarkSettings | IdentitySettings
_JUDGES: dict[str, tuple[Callable[..., Judge], type[JudgeSettings] | None, str]] = {
    # How it is opened, its settings, and what these must say where their defaults do not do.
    "toyworld": (toyworld_judge, None, ""),
    "language": (lambda: toyworld_judge(toy_reader("language")), None, ""),
    "vlm": (vision_judge, VisionSettings, "a server and a model"),
    "nudity": (nudity_judge, NuditySettings, ""),
    "gore": (gore_judge, GoreSettings, ""),
    "trademark-text": (trademark_judge, TrademarkSettings, "names of brands"),
    "identity": (identity_judge, IdentitySettings, "a folder of reference images"),
}
JUDGES = tuple(_JUDGES)
SETTINGS = {name: kind for name, (_, kind, _) in _JUDGES.items()}
# What changes how a judge is reached, and not what it says.
_KEYS = {"toyworld": "toyworld 2", "language": "language 1"}  # toyworld 1 called what it does not know safe
_REACHING = {"concurrency", "retries", "timeout", "max_requests", "max_tokens", "cache", "key_variable"}


def open_judge(name: str, settings: JudgeSettings | None = None) -> Judge:
    """Return a judge, ready to read.

    Args:
        name: one of ``JUDGES``.
        settings: of the kind in ``SETTINGS``; None where its defaults will do.

    Raises:
        InputError: there is no such judge, or the settings are another one's.
        MissingExtraError: a package is not installed; the sentence says how to install it.
        FileError: a file that it needs is missing or damaged.
    """
    check_judge(name, settings)
    open_one = _JUDGES[name][0]
    return open_one(settings) if settings is not None else open_one()


def judge_key(name: str, settings: JudgeSettings | None = None) -> str:
    """Return a name for journals: equal ones read a video the same way.

    ``vlm gpt-4o 1a2b3c4d`` holds the model and a hash of all settings that change a verdict.

    Raises:
        InputError: there is no such judge, or the settings are another one's.
        FileError: a reference image cannot be read.
    """
    check_judge(name, settings)
    if name in _KEYS:
        return _KEYS[name]
    settings = settings or (NuditySettings() if name == "nudity" else GoreSettings())
    kept = {k: v for k, v in asdict(settings).items() if k not in _REACHING}
    if isinstance(settings, VisionSettings):
        kept["questions"] = [QUESTIONS, SCALE]
    if isinstance(settings, IdentitySettings):
        kept["references"] = references_digest(Path(settings.references))
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]
    model = [settings.model] if isinstance(settings, VisionSettings) else []
    return " ".join([name, *model, digest])


def toy_reader(name: str) -> ToyJudge:
    """Return the trained reader of a bundled model's world. Raises FileError as ``load_judge`` does."""
    return load_look_judge() if name == "language" else load_judge()


def check_judge(name: str, settings: JudgeSettings | None) -> None:
    """Raise InputError where there is no such judge, or the settings are missing or another one's."""
    if name not in _JUDGES:
        raise InputError(f"There is no judge '{name}'; choose from {', '.join(JUDGES)}.")
    _, kind, needed = _JUDGES[name]
    if settings is not None and (kind is None or not isinstance(settings, kind)):
        raise InputError(f"The judge '{name}' does not take {type(settings).__name__}.")
    if settings is None and needed:
        raise InputError(f"The judge '{name}' needs {needed}.")
