"""Videos: one seed is one video, in a batch or alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import refusal_core as rc
from refusal_core.concepts import load_pairs
from refusal_core.edit import load_edit, save_edit
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
        ("red\ud83d", {}, "The prompt is not sound Unicode text; save it as UTF-8."),
        ("red " * 40, {}, "has 41 tokens; this model reads 24: shorten the prompt."),
        (PROMPT, {"height": 63}, "Height and width are 63 and 64; both must be multiples of 16."),
    ],
)
def test_bad_input_gets_one_sentence(tiny: Model, prompt: str, settings: dict, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        rc.generate(tiny, prompt, rc.SamplingSettings(**settings))
    assert str(caught.value).endswith(sentence)


STRANGE = ["a\u200d\u202eb", "\u06cc\u200c\u0647", "one\ntwo\r\u2028", "a\x00b\x1b[31m\ufeff", "x" * 5000]


@pytest.mark.parametrize("text", STRANGE)
def test_any_text_is_a_prompt_and_a_negative_one(tiny: Model, text: str) -> None:
    settings = rc.SamplingSettings(steps=1, negative_prompt=text)
    assert rc.generate(tiny, text, settings).frames.shape[-1] == 3


def test_any_text_is_kept_as_it_is_in_pairs_and_edits(tiny: Model, fire: rc.Concept, tmp_path: Path) -> None:
    pairs = tuple(rc.PromptPair(text, "a red circle") for text in STRANGE)
    assert [p.unsafe for p in pairs] == [text.strip() for text in STRANGE]
    texts = [(p.unsafe, p.safe) for p in pairs]
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps({"pairs": [{"unsafe": u, "safe": s} for u, s in texts]}))
    assert load_pairs(path) == pairs
    edit = rc.make_edit(rc.estimate(rc.capture(tiny, fire, rc.CaptureSettings(kinds=("text",), layers=(0,)))))
    edit = replace(edit, origins=(replace(edit.origins[0], pairs=tuple(texts)),))
    assert load_edit(save_edit(edit, tmp_path / "edit.safetensors")).origins == edit.origins


def test_a_prompt_is_cut_where_the_pipeline_cuts_it(tiny: Model) -> None:
    words, limit = ["red", "blue"] * 40, tiny.defaults.text_length
    (cut,) = generate_batch(tiny, [" ".join(words)], [3], cut=True)
    (whole,) = generate_batch(tiny, [" ".join(words[: limit - 1])], [3])  # and the sign of the end
    assert np.array_equal(cut.frames, whole.frames)


def test_negative_prompts_change_the_video(tiny: Model) -> None:
    plain = rc.generate(tiny, PROMPT)
    other = rc.generate(tiny, PROMPT, rc.SamplingSettings(negative_prompt="on fire"))
    assert not np.array_equal(plain.frames, other.frames)
