"""Baselines against their formulas, solved independently in float64, and what they leave behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import refusal_core as rc
from refusal_core.errors import ModelError
from refusal_core.evaluate.methods import esd
from refusal_core.evaluate.methods.esd import esd_weights
from refusal_core.evaluate.methods.safree import prepare_safree, safree
from refusal_core.evaluate.methods.uce import PRESERVE, ROUNDS, rece_weights, uce_weights
from refusal_core.models.model import Model
from refusal_core.models.recording import first_call, record_calls
from refusal_core.models.tiny import tiny_model
from refusal_core.recipe import concept_phrases
from refusal_core.toyworld.pipeline import encode_text

Array = NDArray[np.float64]


def text_samples(model: Model, concept: rc.Concept) -> tuple[dict[str, Array], tuple[Array, Array, Array]]:
    """Return W0 of each projection, and the concept's embeddings, their targets and S, as rows."""
    seen = rc.capture(model, concept, rc.CaptureSettings(kinds=("text",)))
    samples = next(iter(seen.sites.values()))
    c, target, kept = (t.double().numpy() for t in (samples.unsafe, samples.safe, samples.neutral))
    s = kept.T @ kept
    s = s + PRESERVE * s.trace() / len(s) * np.eye(len(s))
    weights = {site.name: model.layers[site.name].weight.detach().double().numpy() for site in seen.sites}
    return weights, (c, target, s)


def solved_uce(weights: dict[str, Array], c: Array, target: Array, s: Array) -> dict[str, Array]:
    return {name: w @ (target.T @ c + s) @ np.linalg.inv(c.T @ c + s) for name, w in weights.items()}


def test_uce_maps_the_concept_and_keeps_the_rest(tiny: Model, fire: rc.Concept) -> None:
    """Against the formula solved independently, token by token."""
    weights, (c, target, s) = text_samples(tiny, fire)
    found, wanted = uce_weights(tiny, fire), solved_uce(weights, c, target, s)
    assert found.keys() == wanted.keys()
    for name, old in weights.items():
        np.testing.assert_allclose(found[name].numpy(), wanted[name], rtol=1e-4, atol=1e-5)
        moved = np.linalg.norm(c @ wanted[name].T - target @ old.T)
        assert moved < 0.9 * np.linalg.norm(c @ old.T - target @ old.T)


def test_rece_also_erases_what_brings_the_concept_back_after_uce(
    tiny: Model, fire: rc.Concept, unchanged: None
) -> None:
    """Against the rounds solved independently; its adversary then brings back less than after UCE."""
    weights, (c, target, s) = text_samples(tiny, fire)
    mean, safe = c.mean(0), target.mean(0, keepdims=True)
    uce = edited = solved_uce(weights, c, target, s)
    adversaries = []
    for _ in range(ROUNDS):
        left = sum(edited[name].T @ edited[name] for name in weights)
        right = sum(edited[name].T @ weights[name] for name in weights)
        ridge = 1e-3 * np.trace(left) / len(left) * np.eye(len(left))
        adversaries.append(np.linalg.solve(left + ridge, right @ mean))
        c, target = np.vstack([c, adversaries[-1]]), np.vstack([target, safe])
        edited = solved_uce(weights, c, target, s)
    found = rece_weights(tiny, fire)
    for name, wanted in edited.items():
        np.testing.assert_allclose(found[name].numpy(), wanted, rtol=1e-4, atol=1e-5)

    def away(made: dict[str, Array]) -> float:
        """Return how far the first adversary is from the concept's own output."""
        return sum(float(np.linalg.norm(made[n] @ adversaries[0] - weights[n] @ mean) ** 2) for n in weights)

    assert away({n: w.double().numpy() for n, w in found.items()}) > 1.05 * away(uce)


def test_esd_moves_only_cross_attention(tiny: Model, fire: rc.Concept, unchanged: None, monkeypatch) -> None:
    monkeypatch.setattr(esd, "STEPS", 2)
    weights = esd_weights(tiny, fire)
    assert all(".attn2." in name for name in weights)
    assert any(not torch.equal(w, tiny.layers[n].weight) for n, w in weights.items())
    assert all(p.requires_grad for p in tiny.denoisers[0].parameters())


def test_esd_takes_steps_that_half_precision_does_not_resolve(fire: rc.Concept, monkeypatch) -> None:
    """From 0.03 on bfloat16 rounds a step of 1e-5 away: taken on its own weights, none would ever move."""
    monkeypatch.setattr(esd, "STEPS", 30)
    monkeypatch.setattr(esd, "RATE", 1e-5)
    moved = {}
    for small in (True, False):  # a copy in float32, or, of a large model, copies of the weights alone
        model = tiny_model("wan")
        for network in (model.pipeline.transformer, model.pipeline.text_encoder):
            network.to(torch.bfloat16)
        monkeypatch.setattr(Model, "is_small", small)
        before = {name: layer.weight.clone() for name, layer in model.layers.items()}
        weights = esd_weights(model, fire)
        assert all(torch.equal(before[name], layer.weight) for name, layer in model.layers.items())
        assert {w.dtype for w in weights.values()} == {torch.bfloat16}
        changed = [(w != before[name])[before[name].abs() > 0.03] for name, w in weights.items()]
        moved[small] = sum(int(c.sum()) for c in changed)
    assert all(moved.values()), moved


def test_esd_trains_towards_the_prompt_turned_against_itself(
    tiny: Model, fire: rc.Concept, unchanged: None, monkeypatch
) -> None:
    """f(x, c) moves to f0(x) - (f0(x, c) - f0(x)), asked of the denoiser itself."""
    monkeypatch.setattr(esd, "STEPS", 25)
    phrases = concept_phrases(fire)
    call = record_calls(tiny, phrases, [7] * len(phrases))[1]  # a state it was not trained on
    nothing = first_call(tiny, [""] * len(phrases))["encoder_hidden_states"]

    def asked(text: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return tiny.denoisers[0](**{**call, "encoder_hidden_states": text, "return_dict": False})[0]

    text = call["encoder_hidden_states"]
    goal = 2 * asked(nothing) - asked(text)
    before = (asked(text) - goal).norm()
    with rc.apply.replaced(tiny, esd_weights(tiny, fire)):
        after = (asked(text) - goal).norm()
    assert after < 0.8 * before


def test_safree_changes_the_concept_s_prompts_and_leaves_no_hook(toy: Model) -> None:
    concept = rc.load_concept("fire")
    filter_ = prepare_safree(toy, concept)
    prompt = concept.pairs[0].unsafe
    plain = rc.generate(toy, prompt)
    with safree(filter_, [prompt]):
        filtered = rc.generate(toy, prompt)
    assert (plain.frames != filtered.frames).any()
    assert (rc.generate(toy, prompt).frames == plain.frames).all()
    with pytest.raises(ModelError, match="SAFREE changes the text embeddings"):
        prepare_safree(tiny_model("ltx"), concept)


def test_safree_filters_trigger_tokens_as_its_formula_says(toy: Model) -> None:
    """From the text encoder itself; in the toy world a word is a token."""
    concept = rc.load_concept("fire")
    prompt = concept.pairs[0].unsafe

    def embedded(prompts: list[str]) -> list[Array]:
        with torch.inference_mode():
            rows = encode_text(toy.tokenizer, toy.pipeline.text_encoder, prompts).double().numpy()
        return [r[: len(p.split()) + 1] for r, p in zip(rows, prompts, strict=True)]  # and the end sign

    def projector(rows: list[Array]) -> Array:
        a = np.stack([r.mean(0) for r in rows])
        return np.linalg.pinv(a, rcond=1e-6) @ a

    words = prompt.split()
    without = embedded([" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))])
    of_concept, own = projector(embedded(concept_phrases(concept))), projector(without)
    eye = np.eye(len(own))
    away = np.array([np.linalg.norm((eye - of_concept) @ r.mean(0)) for r in without])
    triggers = [i for i in range(len(words)) if away[i] > 1.01 * np.delete(away, i).mean()]
    assert 0 < len(triggers) < len(words)
    (wanted,) = embedded([prompt])
    before = wanted.mean(0)
    for i in triggers:
        wanted[i] = own @ (eye - of_concept) @ wanted[i]
    after = wanted.mean(0)
    cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
    changed, steps = prepare_safree(toy, concept).filtered([prompt])
    np.testing.assert_allclose(changed[0, : len(wanted)].numpy(), wanted, atol=2e-3)
    assert float(steps[0]) == pytest.approx(10 / (1 + np.exp(-(1 - cosine))), rel=1e-3)
