"""Shared models: a tiny random pipeline of the real classes, and the bundled toy model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import refusal_core as rc
from refusal_core.models.model import Model, wrap_pipeline
from refusal_core.toyworld import world
from refusal_core.toyworld.release import DEFAULTS


@pytest.fixture(scope="session")
def tiny() -> Model:
    """The toy model's classes with random weights and the toy world's words."""
    from refusal_core.toyworld import pipeline

    torch.manual_seed(0)
    tokenizer = pipeline.build_tokenizer()
    built = pipeline.assemble(
        pipeline.build_autoencoder(),
        pipeline.build_text_encoder(len(tokenizer)),
        pipeline.build_transformer(),
    )
    for parameter in built.transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    defaults = replace(DEFAULTS, steps=4)
    return replace(wrap_pipeline(built, "tiny"), defaults=defaults)


@pytest.fixture(scope="session")
def toy() -> Model:
    """The bundled model."""
    return rc.load_model("toyworld")


@pytest.fixture
def unchanged(tiny: Model) -> Iterator[None]:
    """Fail the test if any weight of the tiny model is not bit for bit what it was."""
    before = {n: p.detach().clone() for n, p in tiny.pipeline.transformer.named_parameters()}
    yield
    for name, parameter in tiny.pipeline.transformer.named_parameters():
        assert torch.equal(parameter, before[name]), name


@pytest.fixture(scope="session")
def fire() -> rc.Concept:
    """Three fire pairs and twelve neutral prompts, without reading a preset."""
    scenes = world.scenes_of("preset")
    pairs = tuple(
        rc.PromptPair(replace(s, concept="fire").caption(i), s.caption()) for i, s in enumerate(scenes[:3])
    )
    return rc.Concept("fire", pairs, tuple(s.caption(0, i % 3) for i, s in enumerate(scenes[10:22])))
