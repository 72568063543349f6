"""Compiled blocks give the same videos, are edited and captured as plain ones; what is prepared is kept."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from test_cli import run

import refusal_core as rc
from refusal_core.concepts import load_preset
from refusal_core.errors import InputError, ModelError
from refusal_core.evaluate import setup
from refusal_core.evaluate.evaluation import Evaluation
from refusal_core.evaluate.family_steps import CONCEPT, latents
from refusal_core.evaluate.grid import Grid
from refusal_core.evaluate.measures.journal import Journal
from refusal_core.evaluate.methods.cache import TreatmentCache
from refusal_core.evaluate.methods.treatments import METHOD_NAMES, plan_method
from refusal_core.evaluate.setup import Share, open_setup
from refusal_core.evaluate.sweep import Sweep
from refusal_core.models import compiling
from refusal_core.models.compiling import compile_parts
from refusal_core.models.gradients import predicted
from refusal_core.models.load import LoadSettings
from refusal_core.models.model import Model
from refusal_core.models.tiny import tiny_model
from refusal_core.progress import silent

SETTINGS = rc.CaptureSettings(kinds=("text", "cross-attention"), timesteps=2)


@pytest.fixture
def traced(monkeypatch) -> list[object]:
    """Trace as ever, and run what was traced as it is: a compiler takes minutes. All graphs so far."""
    real, found = torch.compile, []

    def backend(graph, _inputs):
        found.append(graph)
        return graph.forward

    def compile_(function, *, dynamic: bool, options: object = None):
        assert dynamic is False, "a size of its own for each, so that no video depends on others"
        return real(function, backend=backend, dynamic=False)

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(compiling, "can_compile", lambda _place: True)
    # The first videos, for which blocks are compiled, are as many as a batch: here one is enough.
    one = partial(_first_alone, setup.generate_batch)
    monkeypatch.setattr(setup, "generate_batch", one)
    return found


def _first_alone(make, model: Model, prompts: list[str], seeds: range) -> list[rc.Video]:
    return make(model, prompts[:1], seeds[:1])


def test_compiled_blocks_are_run_edited_and_captured_as_plain_ones(traced: list[object]) -> None:
    model = tiny_model("wan")
    plain = rc.capture(model, CONCEPT, SETTINGS)
    edit = rc.make_edit(rc.estimate(plain, rc.SubspaceSettings(method="rv")))
    before = latents(model)
    with rc.applied(model, edit):
        edited = latents(model)
    names = [s.name for s in model.sites]
    compile_parts(model.pipeline, model.denoisers, "cpu")
    torch.testing.assert_close(latents(model), before, rtol=0, atol=1e-5)
    graphs = len(traced)
    with rc.applied(model, edit):
        torch.testing.assert_close(latents(model), edited, rtol=0, atol=1e-5)
    torch.testing.assert_close(latents(model), before, rtol=0, atol=1e-5)
    assert not torch.allclose(edited, before, atol=1e-4)
    assert [s.name for s in model.sites] == names
    again = rc.capture(model, CONCEPT, SETTINGS)  # hooks inside of what was compiled and has run
    assert all(torch.equal(again.sites[s].unsafe, plain.sites[s].unsafe) for s in plain.sites)
    assert len(traced) == graphs > 0, "neither editing nor capturing traces anything anew"


def test_gradients_flow_through_the_plain_blocks(traced: list[object]) -> None:
    model = tiny_model("wan")
    transformer = model.pipeline.transformer
    latent = torch.randn(1, transformer.config.in_channels, 1, 4, 4)
    text = torch.randn(1, 4, transformer.config.text_dim, requires_grad=True)
    call = {"hidden_states": latent, "timestep": torch.tensor([500]), "encoder_hidden_states": text}
    predicted(transformer, call).sum().backward()
    wanted = text.grad.clone()
    compile_parts(model.pipeline, model.denoisers, "cpu")
    latents(model)
    graphs, text.grad = len(traced), None
    predicted(transformer, call).sum().backward()
    assert torch.equal(text.grad, wanted)
    assert len(traced) == graphs > 0


def test_what_cannot_be_compiled_is_said_in_a_sentence(monkeypatch, capsys) -> None:
    with pytest.raises(InputError, match="not both; leave out --compile"):
        LoadSettings(offload="model", compiled=True)
    latte = tiny_model("latte")
    monkeypatch.setattr(compiling, "can_compile", lambda _place: True)
    with pytest.raises(ModelError, match="cannot be compiled by blocks; leave out --compile"):
        compile_parts(latte.pipeline, latte.denoisers, "cpu")
    monkeypatch.undo()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert run(monkeypatch, "evaluate", "--videos", "1", "--compile") != 0
    wanted = "To compile, torch needs a C++ compiler (g++, or CXX); install it, or leave out --compile."
    assert wanted in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("units", [True, False])
def test_half_precision_is_chosen_unasked_only_where_it_is_faster(monkeypatch, units: bool) -> None:
    """A CPU without units for bfloat16 takes several times as long with it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": units}, raising=False)
    chosen = torch.bfloat16 if units else torch.float32
    assert LoadSettings(device="cpu", compiled=True).weights == chosen
    assert LoadSettings(device="cpu").weights == torch.float32, "who does not compile gets what was trained"
    assert LoadSettings(device="cpu", compiled=True, dtype="float32").weights == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # torch 2.8
    assert LoadSettings(device="cpu", compiled=True).weights == torch.float32


def test_only_long_runs_of_a_bundled_model_are_compiled_unasked(monkeypatch) -> None:
    monkeypatch.setattr("refusal_core.evaluate.setup.can_compile", lambda _place: True)
    whole = Evaluation(presets="all", methods="all").compiled_where_it_pays()
    assert whole.loading.compiled
    for plan in (
        Evaluation(videos=3),
        Evaluation(model="toyworld-unet3d", presets="all", methods="all"),
        Evaluation(model="someone/else", presets="all", methods="all"),
    ):
        assert not plan.compiled_where_it_pays().loading.compiled
    monkeypatch.setattr("refusal_core.evaluate.setup.can_compile", lambda _place: False)
    assert not Evaluation(presets="all", methods="all").compiled_where_it_pays().loading.compiled


def test_a_long_sweep_is_compiled_too_and_its_points_say_so(
    traced: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refusal_core.evaluate.setup.can_compile", lambda _place: True)
    grid = Grid(ranks=(1, 2))
    assert not Sweep(grid=grid, videos=40).compiled_where_it_pays().loading.compiled
    long = Sweep(grid=grid, videos=500).compiled_where_it_pays()
    assert long.loading.compiled
    one = Sweep(videos=1, loading=LoadSettings(compiled=True))
    (report,) = one.run(open_setup(one, tmp_path), silent).reports
    assert traced and report.versions["blocks"] == "compiled"


def test_readings_and_report_say_that_blocks_were_compiled(traced: list[object], tmp_path: Path) -> None:
    plan = Evaluation(videos=1, methods="original", loading=LoadSettings(compiled=True))
    (made,) = plan.run(open_setup(plan, tmp_path), silent)
    assert traced and made.versions["blocks"] == "compiled"
    assert made.versions["weights"] == str(plan.loading.weights).removeprefix("torch.")
    uncompiled = replace(plan, loading=LoadSettings())
    (plain,) = uncompiled.run(open_setup(uncompiled, tmp_path), silent)
    assert "blocks" not in plain.versions and plain.versions["weights"] == "float32"
    assert len(Journal(tmp_path)) == 8, "four groups each: neither took the other's readings"


def test_nothing_is_compiled_where_every_reading_is_there(
    traced: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run that is asked for its table again must not take minutes."""
    plan = Evaluation(videos=1, methods="original", loading=LoadSettings(compiled=True))
    (made,) = plan.run(open_setup(plan, tmp_path), silent)
    assert traced
    monkeypatch.setattr(setup, "generate_batch", lambda *_: pytest.fail("compiled for nothing"))
    opened = open_setup(plan, tmp_path)
    for again_opened in (opened, opened.merging()):
        (again,) = plan.run(again_opened, silent)
        assert again.cells == made.cells


def test_two_precisions_of_one_file_share_no_readings() -> None:
    """The bundled weights are stored in half precision: values, and so the fingerprints, are the same."""
    half, whole = (rc.load_model("toyworld", LoadSettings(dtype=d)) for d in ("float16", "float32"))
    assert half.fingerprint == whole.fingerprint
    fire = [load_preset("fire")]
    for method in ("original", "whitened", "uce"):
        assert plan_method(half, fire, method).key != plan_method(whole, fire, method).key


@pytest.mark.parametrize("method", ["uce", "anchored"])
def test_a_treatment_is_prepared_by_one_process_and_found_by_the_next(
    toy: Model, tmp_path: Path, method: str
) -> None:
    plan = plan_method(toy, [load_preset("fire")], method)
    made = TreatmentCache({method: plan}, Journal(tmp_path, 0)).take(method, silent)
    other = replace(plan, prepare=lambda _progress: pytest.fail("prepared twice"))
    found = TreatmentCache({method: other}, Journal(tmp_path, 1)).take(method, silent)
    if method == "uce":
        assert made.weights.keys() == found.weights.keys()
        assert all(torch.equal(made.weights[n], found.weights[n]) for n in made.weights)
    else:
        assert made.edit.sites.keys() == found.edit.sites.keys()
        for mine, its in zip(made.edit.sites.values(), found.edit.sites.values(), strict=True):
            for name in ("remove", "detect", "strength", "level"):
                assert torch.equal(getattr(mine, name), getattr(its, name))


def test_a_damaged_treatment_is_prepared_again(toy: Model, tmp_path: Path) -> None:
    plan = plan_method(toy, [load_preset("fire")], "uce")
    made = TreatmentCache({"uce": plan}, Journal(tmp_path, 0)).take("uce", silent)
    (file,) = (tmp_path / "prepared").iterdir()
    file.write_bytes(b"no tensors")
    again = TreatmentCache({"uce": plan}, Journal(tmp_path, 0)).take("uce", silent)
    assert all(torch.equal(made.weights[n], again.weights[n]) for n in made.weights)


def test_each_process_begins_with_another_method_after_the_original() -> None:
    orders = [Share(rank, 3).order(METHOD_NAMES) for rank in range(3)]
    assert all(sorted(order) == sorted(METHOD_NAMES) and order[0] == "original" for order in orders)
    assert [order[1] for order in orders] == [METHOD_NAMES[1], METHOD_NAMES[-1], METHOD_NAMES[-2]]
