"""Videos: one seed is one video, in a batch or alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import refusal_core as rc
from refusal_core.errors import Cancelled, InputError, ModelError
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
