"""What `models cost` says is counted again by hand, and is what capture does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import refusal_core as rc
from refusal_core import progress
from refusal_core.capturing import capture_price
from refusal_core.cli import app
from refusal_core.concepts import load_preset
from refusal_core.errors import ModelError
from refusal_core.evaluate.evaluation import Evaluation
from refusal_core.evaluate.pricing import price
from refusal_core.evaluate.sweep import Sweep
from refusal_core.hooks import watch_calls
from refusal_core.models.inventory import build_on_meta, inventory
from refusal_core.models.load import bundled_folder
from refusal_core.models.model import Model
from refusal_core.models.recording import smallest_video

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


def counted(model: Model, concept: rc.Concept, settings: rc.CaptureSettings) -> int:
    """Return how many prompts run through the first block in a capture but for trials of a size."""
    inside: list[int] = []
    block = model.pipeline.transformer.blocks[0]
    hook = block.register_forward_pre_hook(lambda _block, inputs: inside.append(len(inputs[0])))
    try:
        with torch.inference_mode():
            smallest_video(model, [site for site in model.sites if site.kind == "text"])
        tried = sum(inside) if "text" in settings.kinds else 0
        inside.clear()
        rc.capture(model, concept, settings)
    finally:
        hook.remove()
    return sum(inside) - 2 * tried


@pytest.mark.parametrize(
    "change",
    [
        {"kinds": ("text",)},
        {"kinds": ("cross-attention",)},
        {"kinds": ("cross-attention",), "timesteps": 2, "steps": 4},
        {"kinds": ("cross-attention",), "trajectory": "own"},
        {"kinds": ("text", "cross-attention"), "timesteps": 3, "neutral_count": 5},
    ],
    ids=["text", "video", "few", "own", "both"],
)
def test_the_passes_that_are_told_are_those_that_are_made(
    tiny: Model, fire: rc.Concept, change: dict[str, Any]
) -> None:
    settings = replace(rc.CaptureSettings(kinds=("text",)), **change)
    found = capture_price(tiny, fire, settings)
    assert found.passes == counted(tiny, fire, settings)
    assert (found.prompts, found.neutral, found.kept) == (6, settings.neutral_count or 12, 0)


def test_what_is_kept_is_no_part_of_the_price(tiny: Model, fire: rc.Concept) -> None:
    keeping = replace(tiny, loading=rc.LoadSettings())
    settings = rc.CaptureSettings(kinds=("text", "cross-attention"), timesteps=2)
    before = capture_price(keeping, fire, settings)
    told: list[str] = []
    seen = rc.capture(keeping, fire, settings, progress=lambda _fraction, sentence: told.append(sentence))
    after = capture_price(keeping, fire, settings)
    assert (before.neutral, before.kept, after.neutral, after.kept) == (12, 0, 0, 12)
    assert after.passes == capture_price(keeping, replace(fire, neutral=()), settings).passes < before.passes
    assert told[0] == before.sentence(), "the price comes first, in whatever shows progress"
    size = sum(
        4 * (s.unsafe.numel() + s.safe.numel() + s.neutral.numel())
        for s in {id(s): s for s in seen.sites.values()}.values()
    )
    assert 0.5 * size < before.megabytes * 1e6, "no less than is read, but for words that only one side has"
    assert "(12 more are kept from before)" in after.sentence()


def test_the_time_left_is_told_once_a_part_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    told: list[str] = []
    tell = progress.timed(lambda _fraction, sentence: told.append(sentence))
    tell(0.0, "Reading")
    now[0] += 30
    tell(0.2, "Reading, 1 of 5")
    now[0] += 87
    tell(0.95, "Reading, 5 of 5")
    assert told == ["Reading", "Reading, 1 of 5, about 2 min left", "Reading, 5 of 5"]
    assert [progress.in_words(s) for s in (40, 3599, 7800)] == ["40 s", "1 h 0 min", "2 h 10 min"]


def test_a_run_says_what_it_takes_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Evaluation("toyworld", "fire,zorbo", 2, "original,whitened,pca")
    prompts = sum(len(group.items) for _, suite in plan.runs() for group in suite)
    fire, zorbo = (load_preset(name).concept for name in ("fire", "zorbo"))
    neutral = len({*fire.neutral, *zorbo.neutral})
    pairs = 2 * (len(fire.pairs) + len(zorbo.pairs))
    assert plan.price() == (
        f"At most {3 * prompts} videos: 3 treatments of {prompts} prompts;"
        f" an edit reads {pairs} prompts of pairs and, once, {neutral} neutral ones"
    )
    assert Sweep(videos=2).price().startswith("At most ")
