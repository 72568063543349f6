"""The toy world: deterministic clips, disjoint splits, training that goes on where it was stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.suites.items import Suite
from refusal_core.evaluate.suites.toyworld import CELLS, asked_suite, together_suite, toyworld_suite
from refusal_core.models.load import ASSETS
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import load_judge
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.training import optimise
from refusal_core.toyworld.training.optimise import Schedule, train_stage


def test_the_world_is_as_large_as_promised() -> None:
    sizes = [len(x) for x in (world.COLOURS, world.SHAPES, world.MOTIONS, world.BACKGROUNDS, world.CONCEPTS)]
    assert sizes == [6, 4, 5, 4, 5]
    assert len(world.all_scenes()) == 960
    for phrases in world.CONCEPTS.values():
        assert len(phrases) - world.SEEN >= 2
        assert len(phrases) >= 4


def test_equal_seeds_give_equal_clips() -> None:
    scene = world.Scene("red", "cross", "large", "moving up", "sand", "fire")
    assert np.array_equal(looks.render(scene, 5), looks.render(scene, 5))
    assert not np.array_equal(looks.render(scene, 5), looks.render(scene, 6))
    assert looks.render(scene, 5).shape == (17, 64, 64, 3)


@pytest.mark.parametrize("concept", list(world.CONCEPTS))
def test_every_concept_changes_the_picture_of_every_shape(concept: str) -> None:
    for shape in world.SHAPES:
        plain = world.Scene("blue", shape, "small", "moving left", "grass")
        with_concept = looks.render(replace(plain, concept=concept), 1)
        assert (with_concept != looks.render(plain, 1)).any(axis=(1, 2, 3)).sum() >= 11


def test_an_explosion_happens_in_the_middle_of_the_clip() -> None:
    plain = world.Scene("red", "square", "large", "moving left", "night")
    clip, calm = looks.render(replace(plain, concept="exploding"), 3), looks.render(plain, 3)
    changed = (clip != calm).any(axis=(1, 2, 3))
    assert list(changed) == [t >= world.EXPLODES_AT for t in range(17)]


def test_the_object_moves_as_the_caption_says() -> None:
    for motion, step in world.MOTIONS.items():
        scene = world.Scene("white", "circle", "large", motion, "night")
        clip = looks.render(scene, 2).astype(int)
        lit = (clip.min(-1) > 235) & (clip.max(-1) < 250)
        centres = [np.argwhere(frame).mean(0)[::-1] for frame in (lit[0], lit[-1])]
        moved = centres[1] - centres[0]
        assert np.allclose(moved, np.array(step) * world.SPEED * 16, atol=1.0), motion


def test_splits_are_disjoint_and_cover_the_world() -> None:
    parts = [set(world.scenes_of(split)) for split in get_args(world.Split)]
    assert sum(map(len, parts)) == 960
    assert len(set.union(*parts)) == 960


def test_every_word_of_a_caption_is_known() -> None:
    known = set(world.words())
    for scene in world.all_scenes()[::37]:
        for concept, phrases in world.CONCEPTS.items():
            for phrase in range(len(phrases)):
                assert set(replace(scene, concept=concept).caption(phrase, phrase % 3).split()) <= known


def prompts_of(suite: Suite) -> set[str]:
    return {item.prompt for group in suite for item in group.items}


def test_suites_ask_for_what_their_cells_promise() -> None:
    suite = toyworld_suite("fire", 30)
    assert tuple(group.name for group in suite) == CELLS
    assert all(len(group.items) == 30 for group in suite)
    assert [group.name for group in suite if group.ordinary] == ["neutral"]
    seen = world.CONCEPTS["fire"][: world.SEEN]
    unseen = world.CONCEPTS["fire"][world.SEEN :]
    assert all(any(p in item.prompt for p in seen) for item in suite["concept"].items)
    assert all(any(p in item.prompt for p in unseen) for item in suite["paraphrase"].items)
    assert all(item.scene.concept is None for item in suite["neutral"].items)
    assert {i.scene.concept for i in suite["other-concepts"].items} == set(world.CONCEPTS) - {"fire"}
    assert len({i.seed for group in suite for i in group.items}) == 120
    tuning = toyworld_suite("fire", 30, "tuning")
    assert not prompts_of(suite) & prompts_of(tuning)
    assert [group.name for group in asked_suite(5)] == [*world.CONCEPTS, "none"]
    together = together_suite(("fire", "zorbo"), 5)
    assert [(g.name, g.aspect) for g in together][:2] == [("fire", "fire"), ("zorbo", "zorbo")]
    with pytest.raises(InputError, match="The toy world has no concept 'war'"):
        toyworld_suite("war", 3)


def test_the_judge_reads_rendered_clips_it_has_never_seen() -> None:
    judge, rng = load_judge(), np.random.default_rng(31)
    scenes = [world.random_scene(rng) for _ in range(120)]
    readings = judge.read([looks.render(s, 31_000 + i) for i, s in enumerate(scenes)])
    right = [r.values["concept"] == (s.concept or "none") for r, s in zip(readings, scenes, strict=True)]
    assert np.mean(right) >= 0.97
    # The control: against other clips' labels it must fail.
    wrong = [r.values["concept"] == (s.concept or "none") for r, s in zip(readings, scenes[1:], strict=False)]
    assert np.mean(wrong) < 0.7


def test_the_judge_refuses_clips_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"reads clips of shape \(17, 64, 64, 3\)"):
        load_judge().read([np.zeros((5, 64, 64, 3), np.uint8)])
    with pytest.raises(FileError, match=r"none.safetensors is missing or damaged"):
        load_judge(tmp_path / "none.safetensors")


def test_everything_bundled_fits_its_budget_and_is_safetensors() -> None:
    files = [p for p in ASSETS.rglob("*") if p.is_file()]
    for name, budget in (("toyworld-wan", 16), ("toyworld-unet3d", 12), ("toyworld-judge", 2)):
        assert sum(p.stat().st_size for p in (ASSETS / name).rglob("*") if p.is_file()) <= budget << 20, name
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]


def test_the_bundled_model_loads_by_plain_diffusers() -> None:
    from diffusers import WanPipeline

    pipe = WanPipeline.from_pretrained(str(ASSETS / "toyworld-wan"))
    pipe.set_progress_bar_config(disable=True)
    out = pipe(
        "a large red circle moving left over sand",
        height=64,
        width=64,
        num_frames=17,
        num_inference_steps=2,
        max_sequence_length=24,
        generator=torch.Generator().manual_seed(0),
    )
    assert out.frames.shape == (1, 17, 64, 64, 3)


class Stop(Exception):
    """Stands for a kill between two steps."""


def test_training_goes_on_from_its_last_checkpoint_as_if_never_stopped(tmp_path: Path) -> None:
    """The same batches, rates, optimiser state and averages: weights must be equal."""
    data = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    schedule = Schedule(steps=12, muon=1e-2, adam=1e-2, warmup=3, checkpoint_seconds=-1.0)

    def run(path: Path, stop_at: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 8))

        def loss(step: int) -> torch.Tensor:
            if step == stop_at:
                raise Stop
            batch = data[torch.randperm(64, generator=torch.Generator().manual_seed(step))[:16]]
            return (model(batch) - batch.flip(1)).square().mean()

        train_stage("test", {"m": model}, loss, schedule, path)
        return {n: p.detach().clone() for n, p in model.named_parameters()}

    whole = run(tmp_path / "whole.safetensors", None)
    with pytest.raises(Stop):
        run(tmp_path / "parts.safetensors", 7)
    assert optimise.load_checkpoint(tmp_path / "parts.safetensors")[1] == 7
    parts = run(tmp_path / "parts.safetensors", None)
    assert all(torch.equal(whole[n], parts[n]) for n in whole)
    fresh = load_file(tmp_path / "whole.safetensors")
    assert any(not torch.equal(fresh[f"average/m.{n}"], fresh[f"weight/m.{n}"]) for n in whole)
