"""The recipe in a video makes it again, bit for bit on one machine, or says in one sentence why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import run

import refusal_core as rc
from refusal_core.errors import FileError, InputError, ModelError
from refusal_core.io.video import load_recipe, load_video, save_video
from refusal_core.models.load_settings import LoadSettings
from refusal_core.models.model import Model
from refusal_core.recipe import Recipe, build_together, changed
from refusal_core.sampling import compare
from refusal_core.settings import SamplingSettings
from refusal_core.workbench.remaking import as_told, describe, load_video_recipe, read_video_recipe
from refusal_core.workbench.workbench import Workbench

PROMPT = "a large red circle on fire moving left over sand"
SIDES = ("original", "unlearned")


@pytest.fixture(scope="module")
def bench() -> Iterator[Workbench]:
    made = Workbench()
    yield made
    made.close()


@pytest.fixture(scope="module")
def written(bench: Workbench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos of two concepts removed at once, at settings and with pairs of one's own."""
    rows = [(f"{what} in flames", what) for what in ("a small red circle", "a large blue square")]
    request = bench.request("fire", rows=rows, values={"rank": 2}, further=[("zorbo", 0.8)])
    made, _ = bench.make(request)
    sampling = SamplingSettings(seed=7, steps=3, guidance_scale=4.0, negative_prompt="over night")
    folder = tmp_path_factory.mktemp("written")
    videos = bench.pair(request, made, PROMPT, sampling, lambda *_: None)
    return {told["shows"]: save_video(video, folder / f"{told['shows']}.mp4", told) for video, told in videos}  # type: ignore[misc]


def same_frames(a: Path, b: Path) -> bool:
    return np.array_equal(load_video(a)[0].frames, load_video(b)[0].frames)


def test_a_video_of_the_app_is_made_again_from_the_file_alone(
    written: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All its concepts, pairs, ordinary prompts and settings: frames are the same, for both sides."""
    assert run(monkeypatch, "compare", "--recipe", str(written["unlearned"]), "--out", str(tmp_path)) == 0
    for side in SIDES:
        assert same_frames(tmp_path / f"{side}.mp4", written[side])
        assert load_recipe(tmp_path / f"{side}.mp4") == load_recipe(written[side])
    assert not same_frames(tmp_path / "original.mp4", tmp_path / "unlearned.mp4")
    assert load_recipe(tmp_path / "recipe.json") == {
        k: v for k, v in load_recipe(written["original"]).items() if k != "shows"
    }


def test_the_precision_is_told_and_the_command_lines_own_videos_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    options = (
        "--dtype",
        "bfloat16",
        "--steps",
        "2",
        "--prompt",
        PROMPT,
        "--seed",
        "3",
        "--capture-seed",
        "5",
    )
    assert run(monkeypatch, "compare", *options, "--out", str(first)) == 0
    told = load_recipe(first / "side_by_side.mp4")
    assert (told["precision"], told["loading"]["dtype"]) == ("bfloat16", "bfloat16")
    assert run(monkeypatch, "compare", "--recipe", str(first / "recipe.json"), "--out", str(again)) == 0
    assert all(same_frames(first / f"{side}.mp4", again / f"{side}.mp4") for side in SIDES)


def test_the_recipe_comes_back_whole(written: dict[str, Path]) -> None:
    told = load_video_recipe(written["original"], {})
    fire, zorbo = told.edits
    assert fire.concept.name == "in-flames" and len(fire.concept.pairs) == 2
    assert fire.concept.neutral == rc.load_concept("fire").neutral
    assert zorbo.concept == replace(rc.load_concept("zorbo"), note=zorbo.concept.note)
    assert (fire.subspace.rank, zorbo.edit.strength) == (2, 0.8)
    assert (told.model, told.precision, told.defaults.steps) == ("toyworld", "float32", 6)
    assert (told.prompt, told.sampling.steps, told.sampling.negative_prompt) == (PROMPT, 3, "over night")


def test_what_the_recipe_tells_cannot_be_told_beside_it(
    written: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    recipe = ("compare", "--recipe", str(written["original"]), "--out", str(tmp_path / "none"))
    for option, value in (("--rank", "2"), ("--seed", "7"), ("--prompt", PROMPT), ("--preset", "fire")):
        assert run(monkeypatch, *recipe, option, value) == 2
        assert f"The recipe tells {option} itself" in capsys.readouterr().err
    assert run(monkeypatch, *recipe, "--image", "a.png") == 2
    assert "has no image; leave that option out." in capsys.readouterr().err
    assert run(monkeypatch, *recipe, "--model", "toyworld-unet3d") == 2
    assert "is not the model of the recipe" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def edit_at(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(told: Any) -> None:
        for key in path[:-1]:
            told = told[key]
        told[path[-1]] = value

    return change


def test_a_recipe_from_before_a_setting_was_there_is_read_with_its_default(written: dict[str, Path]) -> None:
    told = load_recipe(written["original"])
    del told["edits"][0]["capture"]["neutral_count"]
    assert read_video_recipe(told, "old.mp4") == load_video_recipe(written["original"], {})


BAD: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "none": (dict.clear, "holds no recipe; give a video that this program wrote"),
    "older": (edit_at("version", value=1), "version 1, which leaves out what makes the video again"),
    "newer": (edit_at("version", value=9), "version 9, which is unknown here"),
    "no seed": (edit_at("sampling", "seed", value="x"), "cannot be read at sampling.seed"),
    "range": (edit_at("edits", 0, "subspace", "rank", value=0), "rank is 0; it must lie from 1 to 128."),
    "nothing": (edit_at("edits", value=[]), "names no concept"),
    "more": (edit_at("edits", 0, "subspace", "magic", value=1), "says more than this version knows"),
    "folder": (edit_at("loading", "denoiser", value="../a.safetensors"), "may only name files"),
    "file": (edit_at("loading", "denoiser", value="a.safetensors"), "names a.safetensors, which is not here"),
    "model": (edit_at("model", value="no/such-model"), "'no/such-model' cannot be loaded"),
    "weights": (edit_at("fingerprint", "weights", value="0"), "or has other weights; give the one"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_recipe_that_cannot_be_followed_gets_one_sentence(
    name: str,
    written: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    change, sentence = BAD[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = load_recipe(written["original"])
    change(told)
    (tmp_path / "recipe.json").write_text(json.dumps(told))
    assert run(monkeypatch, "compare", "--recipe", "recipe.json") == 2
    err = capsys.readouterr().err
    assert sentence in err and "\n" not in err.strip()
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "clip.mp4 cannot be read"),
        (b"\0" * 999, "clip.mp4 cannot be read"),
        (None, "clip.mp4 does not exist"),
    ],
)
def test_a_file_that_is_no_video_gets_one_sentence(
    content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(FileError, match=sentence):
        load_video_recipe(tmp_path / "clip.mp4", {})


def test_a_damaged_video_never_makes_another(written: dict[str, Path], tmp_path: Path) -> None:
    whole = written["original"].read_bytes()
    for length in range(0, len(whole), len(whole) // 12):
        (tmp_path / "clip.mp4").write_bytes(whole[:length])
        try:
            told = load_video_recipe(tmp_path / "clip.mp4", {})
        except (FileError, InputError):
            continue
        assert told == load_video_recipe(written["original"], {})  # its frames are gone, its recipe is whole


def test_images_and_finetunes_are_named_found_and_checked(
    tiny: Model, fire: rc.Concept, tmp_path: Path
) -> None:
    """By their names alone: folders say where a person keeps their files."""
    image, far = tmp_path / "start.png", tmp_path / "far"
    Image.new("RGB", (8, 8), (200, 10, 10)).save(image)
    recipe = changed(Recipe(fire), {"layers": "0"})
    made, _ = build_together(tiny, [recipe])
    tuned = replace(tiny, loading=LoadSettings(device="cpu", denoiser=tmp_path / "tuned.safetensors"))
    plain = describe(tuned, [recipe], made, PROMPT, SamplingSettings(image=image))
    assert str(tmp_path) not in json.dumps(plain)
    far.mkdir()
    (far / "recipe.json").write_text(json.dumps(plain))
    given = {"denoiser": Path("elsewhere.safetensors"), "image": image}
    with pytest.raises(FileError, match=r"names start\.png, which is not here; give it by --image"):
        load_video_recipe(far / "recipe.json", {"denoiser": given["denoiser"]})
    found = load_video_recipe(far / "recipe.json", {**given, "device": "meta"})
    assert (found.sampling.image, found.loading.denoiser) == (image, given["denoiser"])
    assert found.loading.device == "meta"
    Image.new("RGB", (8, 8)).save(far / "start.png")
    with pytest.raises(FileError, match=r"start\.png is another image than that of the recipe"):
        load_video_recipe(far / "recipe.json", {"denoiser": given["denoiser"]})


def test_the_defaults_of_the_recipe_hold_where_the_models_have_changed(tiny: Model, fire: rc.Concept) -> None:
    recipe = changed(Recipe(fire), {"layers": "0"})
    made, _ = build_together(tiny, [recipe])
    told = read_video_recipe(describe(tiny, [recipe], made, PROMPT, SamplingSettings(seed=2)), "a")
    later = replace(tiny, defaults=replace(tiny.defaults, steps=tiny.defaults.steps + 1, frames=5))
    pair, again = (
        compare(tiny, made, PROMPT, told.sampling),
        compare(as_told(told, later), made, PROMPT, told.sampling),
    )
    assert np.array_equal(pair.unlearned.frames, again.unlearned.frames)
    with pytest.raises(ModelError, match="is not the model of the recipe"):
        as_told(replace(told, precision="float16"), tiny)
