"""A model that is the user's own: what is guessed of its structure, and every step tried on it."""

from __future__ import annotations

import copy

import pytest

from refusal_core.errors import ModelError
from refusal_core.models.discovery import describe_guess, guess_family
from refusal_core.models.model import wrap_pipeline
from refusal_core.selftest import tiny_model


@pytest.mark.parametrize("name", ["unet3d", "animatediff"])
def test_the_structure_of_a_unet_is_not_guessed(name: str) -> None:
    with pytest.raises(
        ModelError, match=r"is a UNet: its blocks differ .*; describe it as a family instead\.$"
    ):
        guess_family(tiny_model(name).pipeline)


@pytest.mark.parametrize(("name", "prefixes"), [("wan", 1), ("wan-2.2", 2)])
def test_a_guess_says_how_many_blocks_and_sites_it_found(name: str, prefixes: int) -> None:
    pipeline = tiny_model(name).pipeline
    family = guess_family(pipeline)
    shown, sites = describe_guess(family), wrap_pipeline(pipeline, "x", family).sites
    for prefix in ("transformer", "transformer_2")[:prefixes]:
        count = sum(site.name.startswith(f"{prefix}.") for site in sites)
        assert f"{prefix}: {len(getattr(pipeline, prefix).blocks)} blocks, {count} sites" in shown
    assert shown.count(" sites") == prefixes
    assert "[batch, tokens, width] enters each layer" in shown
    assert "Left out" not in shown


def test_a_guess_names_the_blocks_it_leaves_out() -> None:
    pipeline = tiny_model("wan").pipeline
    pipeline.transformer.refiner_blocks = copy.deepcopy(pipeline.transformer.blocks[:1])
    family = guess_family(pipeline)
    assert family.blocks[0].paths == ("blocks.*",)
    assert "Left out, though they have cross-attention: refiner_blocks (1)." in describe_guess(family)
