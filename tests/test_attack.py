"""The attack on the text embeddings: it brings the concept back, and changes nothing of the model."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

import refusal_core as rc
from refusal_core.errors import ModelError
from refusal_core.evaluate.attacks.embeddings import attacked_embeddings
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.judges.verdict import not_judged
from refusal_core.evaluate.methods.negative_prompt import negative_prompt
from refusal_core.evaluate.methods.treatments import plan_method
from refusal_core.evaluate.run import evaluate
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.setup import Setup
from refusal_core.evaluate.suites.items import Group, Suite
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.hooks import watch_calls
from refusal_core.models.conditioning import TEXT, conditioned
from refusal_core.models.model import Model
from refusal_core.models.recording import first_call, record_calls
from refusal_core.models.tiny import tiny_model
from refusal_core.progress import silent
from refusal_core.sampling import generate_batch


def test_the_concept_comes_back_and_the_model_is_as_it_was(toy: Model) -> None:
    """The first prompt of a suite, erased by the edit, shown again by its moved embeddings."""
    item = toyworld_suite("fire", 1)["concept"].items[0]
    before = {n: layer.weight.detach().clone() for n, layer in toy.layers.items()}
    edited = plan_method(toy, (rc.load_preset("fire"),), "whitened").prepare(silent)
    moved = attacked_embeddings(toy, edited.context(toy), [item.prompt], [item.seed])
    assert all(torch.equal(layer.weight, before[n]) for n, layer in toy.layers.items())
    assert all(layer.weight.grad is None and layer.weight.requires_grad for layer in toy.layers.values())
    judge = toyworld_judge()
    with edited.context(toy):
        plain = generate_batch(toy, [item.prompt], [item.seed])
        with conditioned(toy, moved):
            attacked = generate_batch(toy, [item.prompt], [item.seed])
    assert [judge(videos, "fire")[0].outcome for videos in (plain, attacked)] == ["safe", "unsafe"]


def test_without_guidance_every_step_takes_the_moved_embeddings(tiny: Model) -> None:
    """A step is one pass then; taken for one of two, every second step read the prompt itself."""
    plain = replace(tiny, defaults=replace(tiny.defaults, guidance_scale=1.0))
    read: list[bool] = []
    moved = torch.full_like(first_call(plain, ["a red circle"])[TEXT], 7.0)
    with (
        conditioned(plain, moved),
        watch_calls(plain.denoisers, lambda _, arguments: read.append(bool((arguments[TEXT] == 7).all()))),
    ):
        generate_batch(plain, ["a red circle"], [0])
    assert read == [True] * plain.defaults.steps


def test_without_guidance_a_negative_prompt_is_a_note_and_no_row(tiny: Model) -> None:
    plain = replace(tiny, defaults=replace(tiny.defaults, guidance_scale=1.0))
    items = toyworld_suite("fire", 1)["concept"].items
    setup = Setup(plain, Scoring(toyworld_judge(), "toyworld", quality=False))
    suite = Suite("one", (Group("plain", items, "fire"),))
    report = evaluate(setup, (rc.load_preset("fire"),), suite, ("original", "negative-prompt"))
    assert {cell.method for cell in report.cells} == {"original"}
    assert any("guidance" in note for note in report.notes)


def test_what_cannot_act_on_a_model_is_a_note_and_no_row() -> None:
    """HunyuanVideo runs without guidance, and its text reaches the denoiser in two ways."""
    model, items = tiny_model("hunyuan"), toyworld_suite("fire", 1)["concept"].items
    judge = lambda videos, _aspect: [not_judged("noise") for _ in videos]  # noqa: E731
    setup = Setup(model, Scoring(judge, "none", quality=False))
    groups = Group("plain", items, "fire"), Group("attacked", items, "fire", attack=True)
    methods = ("original", "negative-prompt", "safree")
    report = evaluate(setup, (rc.load_preset("fire"),), Suite("two", groups), methods)
    assert [(cell.method, cell.prompts) for cell in report.cells] == [("original", "plain")]
    told = ("The attack changes", "negative-prompt: A negative", "safree: SAFREE changes")
    assert all(any(note.startswith(start) for note in report.notes) for start in told), report.notes


def test_a_negative_prompt_of_no_words_is_none(tiny: Model) -> None:
    words = " ".join(["flame"] * 2 * tiny.defaults.text_length)
    pairs = tuple(
        rc.PromptPair(f"a {colour} circle {words}", f"a {colour} circle") for colour in ("red", "blue")
    )
    with pytest.raises(ModelError, match="No phrase of the concept fits into a negative prompt"):
        negative_prompt(tiny, [rc.Concept("long", pairs)])


def test_without_an_edit_there_is_nothing_to_gain(tiny: Model) -> None:
    """Goal and prediction are the same, so the gradient is zero and nothing moves."""
    prompt = "a large red circle on fire moving left over sand"
    start = record_calls(tiny, [prompt], [0])[0][TEXT].float()
    assert torch.equal(attacked_embeddings(tiny, nullcontext(), [prompt], [0]), start)


@pytest.mark.parametrize("method", ["negative-prompt", "safree"])
def test_what_is_not_in_the_weights_is_not_attacked(toy: Model, method: str) -> None:
    """Whoever writes the embeddings leaves a filter out: a figure would say nothing of it."""
    items = toyworld_suite("fire", 1)["concept"].items
    suite = Suite("attacks", (Group("plain", items, "fire"), Group("attacked", items, "fire", attack=True)))
    setup = Setup(toy, Scoring(toyworld_judge(), "toyworld", quality=False))
    report = evaluate(setup, (rc.load_preset("fire"),), suite, (method,))
    assert [cell.prompts for cell in report.cells] == ["plain"]
