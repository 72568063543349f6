"""Models that make the sound with the picture: both streams are read, edited and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import refusal_core as rc
from refusal_core.cli import app
from refusal_core.concepts import load_preset
from refusal_core.edit import save_edit, sound_note
from refusal_core.evaluate.family_steps import CONCEPT
from refusal_core.hooks import watch_calls
from refusal_core.io.decoding import decoding
from refusal_core.io.video import load_video
from refusal_core.models.load import load_model
from refusal_core.models.load_settings import LoadSettings
from refusal_core.models.model import Model
from refusal_core.models.recording import begin, listen, record_calls
from refusal_core.models.sites import select
from refusal_core.models.tiny import tiny_model
from refusal_core.recipe import changed, preset_recipe
from refusal_core.settings import CaptureSettings


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("ltx2")


def test_both_streams_are_edited_unless_one_is_chosen(model: Model) -> None:
    recipe = preset_recipe(load_preset("real-violence"), model)
    assert recipe.capture.kinds == ("text", "sound-text")
    assert {site.kind for site in rc.capture(model, CONCEPT).sites} == {"text", "sound-text"}
    assert changed(recipe, {"sites": "text"}).capture.kinds == ("text",)
    names = {site.name.split(".")[3] for site in select(model.sites, recipe.capture.kinds, None)}
    assert names == {"attn2", "audio_attn2"}


def test_an_edit_that_leaves_the_sound_alone_says_so(model: Model, tmp_path: Path) -> None:
    for kinds, said in ((("text",), True), (("text", "sound-text"), False), (("text-entry",), False)):
        edit = rc.make_edit(rc.estimate(rc.capture(model, CONCEPT, CaptureSettings(kinds=kinds))))
        assert bool(sound_note(edit)) is said
        shown = CliRunner().invoke(app, ["info", str(save_edit(edit, tmp_path / "edit.safetensors"))])
        assert ("The sound is untouched" in shown.stdout) is said


def test_learned_tokens_behind_a_prompt_are_one_row_of_their_own(model: Model) -> None:
    """They fill the padding, 32 tokens in all: as rows of the prompt they would outweigh its own."""
    seen = rc.capture(model, CONCEPT)
    (first, *_), rows = zip(*seen.sites.items(), strict=True)
    lengths = [len(tokens) for tokens in model.tokens(CONCEPT.neutral)]
    assert len(rows[0].neutral) == sum(lengths) + len(lengths)
    with torch.inference_mode():
        whole = listen(begin(model, [CONCEPT.neutral[0]], None), model, [first])[first][0]
    assert len(whole) == 32
    torch.testing.assert_close(rows[0].neutral[: lengths[0]], whole[: lengths[0]])
    torch.testing.assert_close(rows[0].neutral[lengths[0]], whole[lengths[0] :].mean(0))


def test_where_the_timestep_scales_the_text_it_is_read_at_each_step() -> None:
    model = tiny_model("ltx2.3")
    sites = select(model.sites, ("text", "sound-text"), None)
    assert {model.layouts[site.name] for site in sites} == {"text-stream"}
    seen = rc.capture(model, CONCEPT, CaptureSettings(kinds=("sound-text",), timesteps=2))
    rows = next(iter(seen.sites.values())).neutral.unflatten(0, (len(CONCEPT.neutral), 2, 2))
    assert not torch.allclose(rows[:, 0], rows[:, 1]), "the steps differ"
    assert not torch.allclose(rows[:, :, 0], rows[:, :, 1]), "the prompt's tokens, and the learned ones"


def test_capture_sees_one_pass_a_step_and_a_guided_video_takes_three(model: Model) -> None:
    assert len(record_calls(model, ["a robot"], [0])) == 2
    calls: list[int] = []
    with watch_calls(model.denoisers, lambda _module, arguments: calls.append(len(arguments["timestep"]))):
        rc.generate(model, "a robot")
    assert calls == [2, 1, 1] * 2


def test_rows_of_the_sound_are_its_latents(model: Model) -> None:
    settings = CaptureSettings(kinds=("sound", "cross-attention"), pool="frame", timesteps=1)
    seen = rc.capture(model, CONCEPT, settings)
    counts = {site.kind: len(rows.unsafe) // len(CONCEPT.pairs) for site, rows in seen.sites.items()}
    latents = begin(model, ["a"], None, rc.SamplingSettings(steps=2)).arguments["audio_hidden_states"]
    assert counts == {"sound": latents.shape[1], "cross-attention": 2}


@pytest.mark.parametrize("name", ["ltx2", "kandinsky6"])
def test_an_mp4_keeps_the_sound(name: str, tmp_path: Path) -> None:
    video = rc.generate(tiny_model(name), "a robot", rc.SamplingSettings(steps=1))
    assert video.sound is not None and video.sound.samples.any()
    path = rc.save_video(video, tmp_path / "heard.mp4", {"prompt": "a robot"})
    with path.open("rb") as file, decoding(file, "-map 0:a -f s16le") as stream:
        heard = np.frombuffer(stream.read(), "<i2").reshape(-1, len(video.sound.samples)).T / 32767
    length = video.sound.samples.shape[1]
    assert heard.shape[1] >= length
    likeness = np.corrcoef(heard[:, :length].ravel(), video.sound.samples.ravel())[0, 1]
    assert likeness > 0.5, "aac loses some of what is nearly noise"
    read, recipe = load_video(path)
    assert recipe == {"prompt": "a robot"} and len(read.frames) == len(video.frames)
    silent = rc.save_video(replace(video, sound=None), tmp_path / "silent.mp4")
    with silent.open("rb") as file, pytest.raises(ValueError), decoding(file, "-map 0:a -f s16le") as stream:
        stream.read()


def test_every_network_of_a_folder_is_loaded_in_the_precision_asked(model: Model, tmp_path: Path) -> None:
    """LTX-2's connectors and vocoder are classes of its pipeline's own module."""
    model.pipeline.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), LoadSettings(dtype="bfloat16"))
    parts = {n: p for n, p in loaded.pipeline.components.items() if isinstance(p, torch.nn.Module)}
    assert {"connectors", "vocoder"} <= set(parts)
    assert {part.dtype for part in parts.values()} == {torch.bfloat16}
