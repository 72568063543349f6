"""Comparisons that come with the project, one a preset of a bundled model: a fresh page shows a result."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from refusal_core.errors import FileError
from refusal_core.evaluate.measures.samples import SHEET_COLOURS, save_picture
from refusal_core.io.files import write_json
from refusal_core.io.reading import bundled
from refusal_core.io.video import save_video
from refusal_core.models.load import BUNDLED
from refusal_core.progress import Progress, part, silent
from refusal_core.settings import SamplingSettings
from refusal_core.workbench.values import SIDES, JudgedVideo, RunCard
from refusal_core.workbench.workbench import Workbench

EXAMPLES = bundled("assets/examples")  # a folder a model
HEIGHT = 128  # pixels: a fifth of the size of a file as the app writes it
INDEX = "examples.json"


def load_examples(workbench: Workbench, folder: Path = EXAMPLES) -> tuple[RunCard, ...]:
    """Return the examples of a workbench's first model, a run each; none where it has none.

    Raises:
        FileError: they are missing or damaged.
    """
    folder /= workbench.default_model
    if workbench.default_model not in BUNDLED or not folder.is_dir():
        return ()
    try:
        entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return tuple(_card(workbench, folder, entry) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise FileError(f"The examples in {folder.name} cannot be read; make them anew.") from e


def _card(workbench: Workbench, folder: Path, entry: dict[str, dict[str, object]]) -> RunCard:
    name = str(entry["preset"])
    preset = workbench.preset(name)
    original, unlearned = (JudgedVideo(folder / f"{name}-{n}.mp4", **entry[n]) for n in SIDES)  # type: ignore[arg-type]
    return RunCard(
        name, preset.title, preset.category, folder / f"{name}.png", original, unlearned,
        workbench.request(name),
    )  # fmt: skip


def save_examples(
    workbench: Workbench, folder: Path = EXAMPLES, seed: int = 7, *, progress: Progress = silent
) -> Path:
    """Compare every preset at its own prompt and settings; write small videos, pictures and an index."""
    model = workbench.default_model
    folder, entries, presets = folder / model, [], workbench.presets(model)
    for i, preset in enumerate(presets):
        name, request = preset.concept.name, workbench.request(preset.concept.name, model)
        made, _ = workbench.make(request)
        sampling = SamplingSettings(seed=seed)
        step = part(progress, i / len(presets), (i + 1) / len(presets))
        entry: dict[str, object] = {"preset": name}
        middles = []
        for side, (video, recipe) in zip(
            SIDES, workbench.pair(request, made, preset.prompt, sampling, step), strict=True
        ):
            path = save_video(video, folder / f"{name}-{side}.mp4", recipe, height=HEIGHT)
            judged = workbench.judged(request, path, video, preset.prompt, seed)
            entry[side] = {k: v for k, v in asdict(judged).items() if k != "path"}
            middles.append(video.frames[len(video.frames) // 2])
        save_picture(np.concatenate(middles, axis=1), folder / f"{name}.png", SHEET_COLOURS)
        entries.append(entry)
    return write_json(folder / INDEX, entries)
