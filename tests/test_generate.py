"""Videos: one seed is one video, in a batch or alone; files play and carry their recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import refusal_core as rc
from refusal_core.errors import Cancelled, FileError, InputError, ModelError
from refusal_core.io.video import Video, VideoPair, enlarged, load_video, save_video
from refusal_core.models.model import Model
from refusal_core.sampling import generate_batch

PROMPT = "a large red circle on fire moving left over sand"


def test_equal_arguments_give_equal_bytes(tiny: Model) -> None:
    a = rc.generate(tiny, PROMPT, rc.SamplingSettings(seed=3))
    b = rc.generate(tiny, PROMPT, rc.SamplingSettings(seed=3))
    c = rc.generate(tiny, PROMPT, rc.SamplingSettings(seed=4))
    assert np.array_equal(a.frames, b.frames)
    assert not np.array_equal(a.frames, c.frames)


def test_a_video_is_the_same_alone_and_in_a_batch(tiny: Model) -> None:
    """Up to the rounding that another batch size brings: one grey level."""
    alone = rc.generate(tiny, PROMPT, rc.SamplingSettings(seed=5)).frames
    _, second = generate_batch(tiny, ["a small blue cross staying still over sky", PROMPT], [1, 5])
    assert np.abs(alone.astype(int) - second.frames.astype(int)).max() <= 1


def test_comparing_leaves_the_model_as_it_was(tiny: Model, fire: rc.Concept, unchanged: None) -> None:
    edit = rc.make_edit(rc.estimate(rc.capture(tiny, fire)))
    pair = rc.compare(tiny, edit, PROMPT, rc.SamplingSettings(seed=1))
    assert np.array_equal(pair.original.frames, rc.generate(tiny, PROMPT, rc.SamplingSettings(seed=1)).frames)
    assert not np.array_equal(pair.original.frames, pair.unlearned.frames)


def test_strength_zero_gives_the_original_video(tiny: Model, fire: rc.Concept) -> None:
    edit = rc.make_edit(rc.estimate(rc.capture(tiny, fire)), rc.EditSettings(strength=0.0))
    pair = rc.compare(tiny, edit, PROMPT)
    assert np.array_equal(pair.original.frames, pair.unlearned.frames)


def test_cancelling_within_a_step_leaves_the_pipeline_usable(
    tiny: Model, fire: rc.Concept, unchanged: None
) -> None:
    calls = []

    def stop(fraction: float, sentence: str) -> None:
        calls.append(sentence)
        if fraction > 0.7:
            raise Cancelled("Stopped.")

    edit = rc.make_edit(rc.estimate(rc.capture(tiny, fire)))
    with pytest.raises(Cancelled):
        rc.compare(tiny, edit, PROMPT, progress=stop)
    assert "Denoising, step 4 of 4" in calls
    assert rc.generate(tiny, PROMPT).frames.shape == (17, 64, 64, 3)


def test_weights_that_give_nan_get_one_sentence(tiny: Model) -> None:
    layer = next(iter(tiny.layers.values()))
    kept = layer.weight.data
    layer.weight.data = torch.full_like(kept, float("nan"))
    try:
        with pytest.raises(ModelError, match="The model gave NaN; load it in float32, or lower the strength"):
            rc.generate(tiny, PROMPT)
    finally:
        layer.weight.data = kept


@pytest.mark.parametrize(
    ("prompt", "settings", "sentence"),
    [
        ("  ", {}, "The prompt is empty; write a prompt."),
        ("red\u202eder", {}, "The prompt holds invisible control characters; type it again by hand."),
        ("red " * 40, {}, "has 41 tokens; this model reads 24: shorten the prompt."),
        (PROMPT, {"height": 63}, "Height and width are 63 and 64; both must be multiples of 16."),
    ],
)
def test_bad_input_gets_one_sentence(tiny: Model, prompt: str, settings: dict, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        rc.generate(tiny, prompt, rc.SamplingSettings(**settings))
    assert str(caught.value).endswith(sentence)


def test_negative_prompts_change_the_video(tiny: Model) -> None:
    plain = rc.generate(tiny, PROMPT)
    other = rc.generate(tiny, PROMPT, rc.SamplingSettings(negative_prompt="on fire"))
    assert not np.array_equal(plain.frames, other.frames)


def moving_bar() -> Video:
    frames = np.zeros((9, 64, 64, 3), np.uint8)
    for t in range(9):
        frames[t, :, 6 * t : 6 * t + 8] = (200, 60, 20)
    return Video(frames, 8.0)


def test_a_video_file_keeps_frames_rate_and_recipe(tmp_path: Path) -> None:
    video = moving_bar()
    recipe = {"prompt": "a = b; c # é \\ x", "seed": 7, "pairs": [["a", "b"]]}
    path = save_video(video, tmp_path / "bar.mp4", recipe)
    read, found = load_video(path)
    assert found == recipe
    assert read.fps == 8.0
    assert read.frames.shape == (9, 384, 384, 3)
    error = np.abs(read.frames.astype(int) - enlarged(video).frames.astype(int)).mean()
    assert error < 6  # h264 at crf 16
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_file_starts_at_once_in_a_browser(tmp_path: Path) -> None:
    """faststart: the index stands before the frames."""
    raw = save_video(moving_bar(), tmp_path / "bar.mp4").read_bytes()
    assert 0 < raw.index(b"moov") < raw.index(b"mdat")
    assert b"avc1" in raw


def test_side_by_side_is_as_wide_as_both(tmp_path: Path) -> None:
    path = VideoPair(moving_bar(), moving_bar()).save(tmp_path / "both.mp4")
    assert load_video(path)[0].frames.shape[1:3] == (384, 2 * 384 + 12)


def test_files_that_are_no_video_get_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(FileError, match=r"a.mp4 cannot be read as a video"):
        load_video(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"'a.gif' must end in .mp4"):
        save_video(moving_bar(), tmp_path / "a.gif")
