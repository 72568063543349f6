"""What `models cost` says is counted again by hand, and is what capture does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import refusal_core as rc
from refusal_core.cli import app
from refusal_core.concepts import load_preset
from refusal_core.errors import ModelError
from refusal_core.evaluate.pricing import price
from refusal_core.hooks import watch_calls
from refusal_core.models.inventory import build_on_meta, inventory
from refusal_core.models.load import bundled_folder

WAN, WAN_14B = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers"
PAIRS, NEUTRAL, STEPS = 5, 226, 6  # of the preset, and of a capture


def test_the_price_is_that_of_the_forwards_that_capture_makes() -> None:
    network = build_on_meta(inventory(WAN).networks[0])

    def forward(frames: int, height: int, width: int) -> float:
        arguments = (
            torch.empty(1, 16, frames, height // 8, width // 8, device="meta"),
            torch.empty(1, device="meta"),
            torch.empty(1, 512, 4096, device="meta"),
        )
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*arguments)
        return float(counter.get_total_flops()) / 1e15

    found = price(WAN, load_preset("real-nudity"))
    assert found.edits["text"] == pytest.approx((2 * PAIRS + NEUTRAL) * forward(1, 16, 16))
    forwards = (2 * PAIRS + NEUTRAL) * STEPS
    assert found.edits["cross-attention"] == pytest.approx(forwards * forward(2, 480, 832))
    full = {"capture_steps": 50, "capture_frames": 81}
    dear = price(WAN, load_preset("real-nudity"), full).edits["cross-attention"]
    whole = forward(21, 480, 832)
    assert found.video == pytest.approx(2 * 50 * whole)
    assert dear == pytest.approx(((PAIRS + NEUTRAL) * 46 + PAIRS * 6) * whole)


def test_capture_makes_the_forwards_that_are_priced(tiny, fire) -> None:
    """A pair: its safe prompt's run, and as many repeats; a neutral prompt: a run; nothing twice."""
    passes = []
    with watch_calls(tiny.denoisers, lambda _module, arguments: passes.append(arguments["hidden_states"])):
        rc.capture(tiny, fire, rc.CaptureSettings(kinds=("cross-attention",), timesteps=4))
    prompts = len(fire.pairs), len(fire.neutral)
    begun = len(fire.pairs)  # the unsafe prompts' text is made by a run that stops at its first call
    assert sum(map(len, passes)) == 4 * (2 * prompts[0] + prompts[1]) + begun
    assert {x.shape[2] for x in passes} == {2}, "five frames are two latent ones"


@pytest.mark.parametrize("model", [WAN, WAN_14B])
def test_an_edit_costs_less_than_a_video(model: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["models", "cost", model, "--json", str(tmp_path / "cost.json")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "cost.json").read_text())
    assert list(written) == ["video", "edits", "text_encoder", "memory"] and list(written["video"]) == [
        "pflop"
    ]
    assert all(list(edit) == ["pflop", "videos"] for edit in written["edits"].values())
    assert written["edits"]["text"]["videos"] <= 0.01
    assert written["edits"]["cross-attention"]["videos"] <= 1
    assert written["text_encoder"]["pflop"] > 1 and written["memory"]["text encoder"] > 11


def test_a_model_whose_calls_are_not_known_gets_one_sentence() -> None:
    with pytest.raises(ModelError, match="takes more than latents, a timestep and text; counted are wan"):
        price("Lightricks/LTX-Video", load_preset("real-nudity"))


def test_a_folder_s_own_sizes_are_counted() -> None:
    """Those of the bundled model: 17 frames of 64 x 64, and an encoder of its own."""
    found = price(str(bundled_folder("toyworld")), load_preset("fire"))
    assert (found.sizes.frames, found.sizes.width) == (17, 64)
    assert found.text_encoder is not None and found.text_encoder < 1e-3
