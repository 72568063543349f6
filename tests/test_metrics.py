"""Metrics on frames: they see what they are for, and nothing where nothing changed."""

from __future__ import annotations

import numpy as np
import pytest

from refusal_core.errors import InputError
from refusal_core.evaluate.measures.metrics import MAX_PSNR, broken, has_flow, likeness, psnr, steadiness
from refusal_core.io.video import Video
from refusal_core.toyworld import world
from refusal_core.toyworld.language import looks


def clip(motion: str = "moving left", seed: int = 1) -> Video:
    return Video(looks.render(world.Scene("red", "circle", "large", motion, "grass"), seed), 8.0)


def noisy(video: Video, spread: float) -> Video:
    noise = np.random.default_rng(0).normal(0, spread, video.frames.shape)
    return Video(np.clip(video.frames + noise, 0, 255).astype(np.uint8), video.fps)


def test_equal_videos_are_as_alike_as_can_be() -> None:
    assert likeness(clip(), clip()) == {"ssim": 1.0, "psnr": MAX_PSNR}


def test_likeness_falls_with_noise() -> None:
    values = [likeness(clip(), noisy(clip(), spread)) for spread in (2, 10, 40)]
    assert values[0]["ssim"] > values[1]["ssim"] > values[2]["ssim"]
    assert values[0]["psnr"] > values[1]["psnr"] > values[2]["psnr"]


def test_psnr_is_the_textbook_s() -> None:
    shape = (3, 16, 16, 3)
    a, b = Video(np.zeros(shape, np.uint8), 8.0), Video(np.full(shape, 10, np.uint8), 8.0)
    assert psnr(a, b) == pytest.approx(20 * np.log10(255 / 10))


def test_videos_of_other_sizes_are_refused() -> None:
    small = Video(np.zeros((17, 32, 32, 3), np.uint8), 8.0)
    with pytest.raises(InputError, match="one size and length"):
        likeness(clip(), small)


def test_motion_that_flow_explains_is_no_warp_error() -> None:
    """The same change between frames: a moving object is explained, flicker is not."""
    assert has_flow()
    moving = steadiness(clip())
    still = clip("staying still")
    flicker = Video(still.frames.copy(), 8.0)
    flicker.frames[::2] = np.minimum(flicker.frames[::2].astype(int) + 12, 255).astype(np.uint8)
    unsteady = steadiness(flicker)
    assert steadiness(still)["flicker"] == 0.0
    assert moving["warp"] < 0.6 * moving["flicker"]
    assert unsteady["warp"] > 0.8 * unsteady["flicker"]


def test_a_broken_video_is_named_and_a_sound_one_is_not() -> None:
    sound = clip()
    shape = sound.frames.shape
    noise = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert broken(sound, Video(np.zeros(shape, np.uint8), 8.0)) == "flat"
    assert broken(sound, Video(noise, 8.0)) == "noise"
    assert broken(sound, Video(np.repeat(sound.frames[:1], shape[0], axis=0), 8.0)) == "frozen"
    assert broken(sound, clip("moving up")) is None
    still = clip("staying still")
    assert broken(still, still) is None, "a prompt for a still object is not broken by it"
