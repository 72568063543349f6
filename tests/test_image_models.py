"""Models whose videos start from an image: tiny pipelines of the real classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import refusal_core as rc
from refusal_core.errors import InputError
from refusal_core.hooks import watch_calls
from refusal_core.models.recording import begin, valid_rows
from refusal_core.models.tiny import tiny_model
from refusal_core.settings import SamplingSettings

Images = tuple[Path, Path]


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """A picture and a plain one. No two plain ones: the norms of some autoencoders take colours out."""
    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(tmp_path / "dusk.png")
    Image.new("RGB", (16, 16), (90, 90, 90)).save(tmp_path / "grey.png")
    return tmp_path / "dusk.png", tmp_path / "grey.png"


def test_pairs_that_differ_by_their_image_alone_are_a_concept(images: Images) -> None:
    pairs = tuple(rc.PromptPair(text, text, *images) for text in ("a robot", "a cat at night"))
    concept = rc.Concept("dusk", pairs, ("the dog", "a man"))
    for name in ("wan-i2v", "hunyuan-1.5-i2v", "kandinsky5-i2v", "ltx-condition"):
        model = tiny_model(name)
        seen = rc.capture(model, concept, rc.CaptureSettings(kinds=("cross-attention",), timesteps=2))
        assert all(samples.differences.abs().max() > 0 for samples in seen.sites.values())
        edit = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")))
        pair = rc.compare(model, edit, "a robot", rc.SamplingSettings(image=images[0]))
        assert (pair.original.frames != pair.unlearned.frames).any()


def test_a_video_has_the_size_that_is_asked_where_the_pipeline_takes_it_from_the_image(
    tmp_path: Path,
) -> None:
    Image.new("RGB", (90, 20), (255, 0, 0)).save(tmp_path / "wide.png")
    settings = SamplingSettings(image=tmp_path / "wide.png", frames=5, steps=1, height=32, width=32)
    made = rc.generate(tiny_model("hunyuan-1.5-i2v"), "a robot", settings)
    assert made.frames.shape[1:3] == (32, 32)


def test_a_model_that_needs_no_image_starts_from_none_where_none_is_given(images: Images) -> None:
    model = tiny_model("ltx-condition")
    assert model.takes_image
    times = []
    for image in (None, images[0]):
        with watch_calls(model.denoisers, lambda _module, arguments: times.append(arguments["timestep"])):
            rc.generate(model, "a robot", SamplingSettings(image=image, steps=1))
    assert times[0].shape[1] == 1, "one time for all tokens"
    assert times[1].min() == 0, "the tokens of an image are not noisy"


def test_too_few_frames_for_a_pipeline_are_one_sentence_and_as_many_as_it_says_are_made() -> None:
    model = tiny_model("kandinsky5-i2v")
    with pytest.raises(InputError, match=r"13 frames are too few for Kandinsky 5.*; ask for 17 or more"):
        rc.generate(model, "a robot", SamplingSettings(frames=13, steps=1))
    assert rc.generate(model, "a robot", SamplingSettings(frames=17, steps=1)).frames.shape[0] == 17


def test_where_the_text_encoder_reads_the_image_its_rows_are_those_of_prompt_and_image(
    images: Images,
) -> None:
    """The image of a pair stands on both sides, so that they differ by the prompt alone."""
    model, plain = tiny_model("hunyuan-i2v"), tiny_model("hunyuan-skyreels-i2v")
    settings = rc.CaptureSettings(kinds=("text-entry",))

    def read(model: rc.Model, image: Path) -> rc.Samples:
        texts = (("a robot on fire", "a robot"), ("the dog on fire", "the dog"))
        pairs = tuple(rc.PromptPair(unsafe, safe, image, image) for unsafe, safe in texts)
        (samples,) = rc.capture(model, rc.Concept("fire", pairs), settings).sites.values()
        return samples

    dusk, grey = (read(model, image) for image in images)
    assert not torch.equal(dusk.safe, grey.safe)
    assert dusk.differences.abs().max() > 0
    assert torch.equal(*(read(plain, image).safe for image in images)), "an encoder of text alone sees none"


@pytest.mark.parametrize(("name", "before"), [("hunyuan-i2v", 1), ("hunyuan-i2v-33ch", 2)])
def test_rows_of_the_image_are_none_of_the_prompt(name: str, before: int) -> None:
    """They stand before the prompt, and would outweigh it in the mean."""
    model, prompt = tiny_model(name), "a robot on fire"
    with torch.inference_mode():
        call = begin(model, [prompt], None)
    rows = call.arguments["encoder_hidden_states"].shape[1]
    (valid,) = valid_rows(model, call, (1, rows), model.tokens([prompt]))
    assert valid.nonzero().flatten().tolist() == [before + i for i in range(len(prompt.split()))]
