"""Weights are sacred: a fault at any point leaves every tensor as it was, and threads never mix."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

import refusal_core as rc
from refusal_core import fold
from refusal_core.edit import Edit
from refusal_core.errors import InputError, MemoryLimitError
from refusal_core.models import slots
from refusal_core.models.model import Model
from refusal_core.selftest import CONCEPT, fingerprint, tiny_model

CYCLES = 1000


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("wan")


@pytest.fixture(scope="module")
def edit(model: Model) -> Edit:
    seen = rc.capture(model, CONCEPT, rc.CaptureSettings(kinds=("text", "cross-attention"), timesteps=2))
    return rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")), rc.EditSettings(anchor="mean"))


@pytest.fixture(autouse=True)
def _untouched(model: Model):
    before = fingerprint(model)
    yield
    assert fingerprint(model) == before


def changes(edit: Edit) -> int:
    """Weights and biases the edit puts in place."""
    return sum(1 + (site.level is not None) for site in edit.sites.values())


class Fault(Exception):
    pass


@pytest.mark.parametrize("kind", [Fault, KeyboardInterrupt, MemoryError, torch.OutOfMemoryError])
def test_a_fault_at_any_weight_going_in_undoes_all(model: Model, edit: Edit, monkeypatch, kind) -> None:
    put = slots.Slot.put
    for place in range(changes(edit)):
        count = 0

        def failing(self, value, place=place):
            nonlocal count
            count += 1
            if count == place + 1:
                raise kind("injected")
            put(self, value)

        before = fingerprint(model)
        monkeypatch.setattr(slots.Slot, "put", failing)
        with pytest.raises(kind), rc.applied(model, edit):
            pytest.fail("the edit was not stopped")
        monkeypatch.setattr(slots.Slot, "put", put)
        assert fingerprint(model) == before, place


def test_a_ctrl_c_while_weights_go_back_waits_until_all_are_back(
    model: Model, edit: Edit, monkeypatch
) -> None:
    put = slots.Slot.put
    for place in range(changes(edit)):
        count = 0

        def failing(self, value, place=place):
            nonlocal count
            count += 1
            if count == changes(edit) + place + 1:
                raise KeyboardInterrupt
            put(self, value)

        before = fingerprint(model)
        monkeypatch.setattr(slots.Slot, "put", failing)
        with pytest.raises(KeyboardInterrupt), rc.applied(model, edit):
            assert fingerprint(model) != before
        monkeypatch.setattr(slots.Slot, "put", put)
        assert fingerprint(model) == before, place


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError])
def test_no_memory_for_any_new_weight_is_one_sentence(model: Model, edit: Edit, monkeypatch, kind) -> None:
    real = fold.project_out
    for place in range(len(edit.sites)):
        count = 0

        def failing(*arguments, place=place):
            nonlocal count
            count += 1
            if count == place + 1:
                raise kind("injected")
            return real(*arguments)

        monkeypatch.setattr("refusal_core.apply.project_out", failing)
        with pytest.raises(MemoryLimitError, match="choose fewer layers or sites"), rc.applied(model, edit):
            pytest.fail("the edit was not stopped")


def test_cancelling_between_any_two_steps_undoes_the_edit(model: Model, edit: Edit) -> None:
    steps = 3
    for stop in range(steps):
        calls = 0

        def cancel(_fraction: float, _sentence: str, stop=stop) -> None:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise Fault

        settings = rc.SamplingSettings(steps=steps)
        with pytest.raises(Fault), rc.applied(model, edit):
            rc.generate(model, "a robot", settings, progress=cancel)
    assert rc.generate(model, "a robot").frames.any()


def test_activations_that_are_not_finite_make_no_edit(model: Model) -> None:
    seen = rc.capture(model, CONCEPT)
    site, samples = next(iter(seen.sites.items()))
    for bad in (float("nan"), float("inf")):
        spoiled = replace(samples, unsafe=samples.unsafe.clone().index_fill_(0, torch.tensor(0), bad))
        with pytest.raises(InputError, match="NaN or infinity"):
            rc.estimate(replace(seen, sites={site: spoiled}))


def test_a_thousand_edits_in_and_out_leave_the_same_bits(model: Model, edit: Edit) -> None:
    """One to five concepts at once, each with its own strength."""
    generator = torch.Generator().manual_seed(0)
    before = fingerprint(model)
    for _ in range(CYCLES):
        count = int(torch.randint(1, 6, (1,), generator=generator))
        several = {}
        for site, mine in edit.sites.items():
            p = torch.linalg.qr(torch.randn(site.inputs, count, generator=generator))[0].T.contiguous()
            strength = torch.rand(count, generator=generator)
            several[site] = replace(
                mine, remove=p, detect=p, strength=strength, level=None, concept=tuple(range(count))
            )
        origins = tuple(replace(edit.origins[0], concept=f"c{i}") for i in range(count))
        with rc.applied(model, replace(edit, sites=several, origins=origins)):
            pass
    assert fingerprint(model) == before


def test_threads_wait_for_each_other_and_never_mix(model: Model, edit: Edit) -> None:
    """One thread edits and generates, another generates the original: each gets only its own."""
    settings = rc.SamplingSettings(steps=4)
    original = rc.generate(model, "a robot on fire", settings).frames
    with rc.applied(model, edit):
        edited = rc.generate(model, "a robot on fire", settings).frames
    assert (original != edited).any()
    wrong: list[str] = []

    def plain() -> None:
        for _ in range(8):
            if (rc.generate(model, "a robot on fire", settings).frames != original).any():
                wrong.append("the original saw the edit")

    def unlearned() -> None:
        for _ in range(8):
            with rc.applied(model, edit):
                if (rc.generate(model, "a robot on fire", settings).frames != edited).any():
                    wrong.append("the edited one saw the original")

    threads = [threading.Thread(target=work) for work in (plain, unlearned, plain, unlearned)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_full_disk_while_saving_leaves_no_file(edit: Edit, tmp_path, monkeypatch) -> None:
    from refusal_core import files

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(rc.RefusalError, match="No space left on device"):
        rc.save_edit(edit, tmp_path / "edit.safetensors")
    assert not list(tmp_path.iterdir())
