"""Files that an older version wrote still open: a golden file of every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refusal_core.activations import load_activations
from refusal_core.concepts import load_pairs, load_preset
from refusal_core.edit import load_edit, save_edit
from refusal_core.evaluate.reports.report import load_report
from refusal_core.io.video import load_video
from refusal_core.settings import CaptureSettings
from refusal_core.workbench.review import load_pack

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("name", "concepts", "method", "anchor"),
    [
        ("edit-whitened", ("fire",), "whitened", "zero"),
        ("edit-paper", ("fire",), "cpca", "zero"),
        ("edit-anchored", ("fire",), "whitened", "mean"),
        ("edit-two-concepts", ("fire", "zorbo"), "whitened", "zero"),
    ],
)
def test_an_edit_opens_and_says_how_it_was_made(
    name: str, concepts: tuple[str, ...], method: str, anchor: str, tmp_path: Path
) -> None:
    edit = load_edit(GOLDEN / f"{name}.safetensors")
    assert tuple(o.concept for o in edit.origins) == concepts
    assert (edit.origins[0].subspace.method, edit.origins[0].anchor) == (method, anchor)
    assert all(site.remove.isfinite().all() for site in edit.sites.values())
    again = load_edit(save_edit(edit, tmp_path / "again.safetensors"))
    assert again.origins == edit.origins and list(again.sites) == list(edit.sites)


def test_activations_open_with_their_settings() -> None:
    seen = load_activations(GOLDEN / "activations.safetensors")
    assert seen.concept == "fire" and seen.sites
    assert isinstance(seen.settings, CaptureSettings)
    assert {site.kind for site in seen.sites} <= set(seen.settings.kinds)


def test_presets_open_with_their_settings_and_those_of_single_models() -> None:
    assert load_preset(GOLDEN / "preset.json").recommended == {
        "method": "whitened", "sites": ("text",), "layers": None, "rank": 1,
        "strength": 1.0, "anchor": "zero",
    }  # fmt: skip
    star = load_preset(GOLDEN / "preset-by-model.json")
    assert star.recommended["sites"] == ("text-entry",)
    assert star.recommended_for("toyworld-unet3d")["sites"] == ("text",)
    assert star.recommended_for("toyworld-unet3d")["rank"] == 4
    assert load_preset(GOLDEN / "preset-real.json").model == "any"
    assert len(load_pairs(GOLDEN / "pairs.json")) == 2


def test_a_video_opens_with_the_recipe_inside() -> None:
    video, inside = load_video(GOLDEN / "pair.mp4")
    assert len(video.frames) > 1
    assert inside is not None
    assert inside["format"] == "refusal-studio recipe"
    assert inside["version"] == 1 and inside["prompt"]


def test_a_report_and_a_review_pack_open(tmp_path: Path) -> None:
    report = load_report(GOLDEN / "report.json")
    written = json.loads((GOLDEN / "report.json").read_text(encoding="utf-8"))
    assert (report.model, report.concept) == (written["model"], written["concept"])
    assert len(report.cells) == len(written["cells"])
    pack = load_pack(GOLDEN / "review-pack.zip", tmp_path)
    assert pack.items
