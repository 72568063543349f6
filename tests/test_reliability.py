"""Weights are sacred: a fault at any point leaves every tensor as it was, and threads never mix."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
import torch
from faults import FAULTS, Trial, expect_free, start_trial
from promises import CHECKS

import refusal_core as rc
from refusal_core import apply
from refusal_core.edit import Edit
from refusal_core.evaluate.family_steps import CONCEPT
from refusal_core.evaluate.selftest import fault, hashes, originals_of, selftest
from refusal_core.models import load
from refusal_core.models.model import Model
from refusal_core.models.slots import Slot
from refusal_core.models.tiny import tiny_model

CYCLES = 1000


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The matrices are tiny: several threads would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("wan")


@pytest.fixture(scope="module")
def trial(model: Model) -> Trial:
    return start_trial(model, cycles=CYCLES)


@pytest.fixture(scope="module")
def edit(model: Model) -> Edit:
    seen = rc.capture(model, CONCEPT, rc.CaptureSettings(kinds=("text", "cross-attention"), timesteps=2))
    return rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")), rc.EditSettings(anchor="mean"))


@pytest.fixture(autouse=True)
def _untouched(model: Model):
    before = hashes(model)
    yield
    assert hashes(model) == before


@pytest.mark.parametrize("title", CHECKS)
def test_a_promise_is_kept(trial: Trial, title: str) -> None:
    assert CHECKS[title](trial) > 0


# --- each check notices when its promise is broken -----------------------------------------------------


def careless(originals: list[tuple[Slot, torch.Tensor]]) -> None:
    """Put back what can be put back, as a loop without precautions would."""
    for slot, original in reversed(originals):
        slot.put(original)


def rounding(originals: list[tuple[Slot, torch.Tensor]]) -> None:
    """Undo by adding what was taken: right but for the last bits."""
    for slot, original in originals:
        slot.put((slot.get() + (original - slot.get())) * (1 + 2**-23))


def half_written(*arguments: Any, **named: Any) -> None:
    arguments[1].write_bytes(b"half")
    raise OSError("no room")


def in_place(path: Any, write: Callable[[Any], None]) -> Any:
    """Write under the final name at once."""
    try:
        path.write_bytes(b"half")
        write(path)
    except OSError as e:
        raise rc.RefusalError("no room") from e


@contextmanager
def sabotage(title: str):
    """Break what the check of this title is about."""
    with pytest.MonkeyPatch.context() as patch:
        match title:
            case "every tensor has its hash after an edit" | "random edits in and out":
                patch.setattr(apply, "_restore", rounding)
            case "a fault at each weight coming back":
                patch.setattr(apply, "_restore", careless)
            case "a fault or no memory while working out":
                patch.setattr(apply, "_new_weights", lambda m, e: list(apply._edited(m, e)))
            case "a layer that is missing":
                sites = apply._edited
                patch.setattr(apply, "_edited", lambda m, e: sites(m, replace(e, sites={})))
            case "activations with NaN are refused":
                patch.setattr(torch, "isfinite", lambda t: torch.ones_like(t, dtype=torch.bool))
            case "a full disk leaves no file":
                patch.setattr("refusal_core.io.files.write_atomic", in_place)
            case "threads wait for each other":
                patch.setattr(Model, "lock", property(lambda _self: _NoLock()))
            case "edits within edits, left in any order":
                patch.setattr(apply, "_open", lambda _model: _Alone())
            case _:
                patch.setattr(apply, "_restore", lambda originals: None)
        yield


class _NoLock(nullcontext[None]):
    def acquire(self, timeout: float = 0) -> bool:
        return True

    def release(self) -> None:
        return None


class _Alone(list[Any]):
    """As if each block were the only one: it knows none that was entered within it."""

    def __contains__(self, item: object) -> bool:
        if item not in list(self):
            self.append(item)
        return True


@pytest.mark.parametrize("title", CHECKS)
def test_a_broken_promise_is_noticed(title: str) -> None:
    own = start_trial(tiny_model("wan"), cycles=3)
    with sabotage(title), pytest.raises(Exception):  # noqa: B017  # each check raises what it meets first
        CHECKS[title](own)


def test_the_command_says_what_held_and_fails_where_something_does_not(monkeypatch, capsys, model) -> None:
    from refusal_core.cli import main

    monkeypatch.setattr(load, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(sys, "argv", ["refusal_core", "selftest"])
    assert (_exit_code(main), capsys.readouterr().out.count("✓")) == (0, 4)
    monkeypatch.setattr(load, "load_model", lambda *_, **__: tiny_model("wan"))
    with sabotage("a fault at each weight going in"):
        assert _exit_code(main) == 1
    assert "✗" in capsys.readouterr().out


@pytest.mark.parametrize(("broken", "noticed"), [(rounding, 4), (careless, 1), (lambda originals: None, 4)])
def test_the_short_form_for_users_notices_it_too(broken: Callable[..., None], noticed: int) -> None:
    own = tiny_model("wan")
    assert not any(check.trouble for check in selftest(own))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply, "_restore", broken)
        assert sum(bool(check.trouble) for check in selftest(own)) >= noticed


def _exit_code(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as e:
        return int(e.code or 0)
    return 0


# --- Ctrl-C, wherever it comes -------------------------------------------------------------------------

STEPPED = {apply.__file__, sys.modules[Slot.__module__].__file__}


def interrupted_at(place: int, model: Model, edit: Edit) -> bool:
    """Send a real SIGINT at one of the steps into and out of a block; False where none is left."""
    steps = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps
        if frame.f_code.co_filename not in STEPPED:
            return None
        frame.f_trace_opcodes = True
        if event in ("call", "opcode"):
            steps += 1
            if steps == place + 1:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        with rc.applied(model, edit):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return steps > place


def broken_places(model: Model, edit: Edit) -> list[int]:
    """Interrupt at every step in turn; return those after which the weights were not what they were."""
    before, broken, place = originals_of(model, edit), [], 0
    while interrupted_at(place, model, edit):
        if any(slot.get().data_ptr() != original.data_ptr() for slot, original in before):
            broken.append(place)
            for slot, original in before:
                slot.put(original)
        place += 1
    assert place > 200, "the steps of the block were not seen"
    return broken


@pytest.fixture
def one_site(trial: Trial) -> Edit:
    site = next(s for s, change in trial.edit.sites.items() if change.level is not None)
    return replace(trial.edit, sites={site: trial.edit.sites[site]})


def test_ctrl_c_at_any_step_of_the_interpreter_leaves_the_weights(model: Model, one_site: Edit) -> None:
    ordinary = signal.getsignal(signal.SIGINT)
    assert broken_places(model, one_site) == []
    with rc.applied(model, one_site):
        assert signal.getsignal(signal.SIGINT) is not ordinary
    assert signal.getsignal(signal.SIGINT) is ordinary
    expect_free(model)


def test_without_holding_signals_some_steps_would_break_them(one_site: Edit, monkeypatch) -> None:
    monkeypatch.setattr(apply, "_BREAKS", {})
    assert broken_places(tiny_model("wan"), one_site)


def test_ctrl_c_inside_a_block_comes_at_once(model: Model, one_site: Edit) -> None:
    with pytest.raises(KeyboardInterrupt), rc.applied(model, one_site):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it was held back in the block")
    with pytest.raises(KeyboardInterrupt), rc.applied(model, one_site), rc.applied(model, one_site):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it was held back in the inner block")


def test_ctrl_c_while_another_thread_has_the_model_ends_the_waiting(model: Model, one_site: Edit) -> None:
    taken, done = threading.Event(), threading.Event()

    def busy() -> None:
        with model.lock:
            taken.set()
            signal.raise_signal(signal.SIGINT)  # Python runs the handler in the main thread
            done.wait(60)

    thread = threading.Thread(target=busy)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        taken.wait(60)
        with rc.applied(model, one_site):
            pytest.fail("the lock was taken twice")
    done.set()
    thread.join()


# --- the rest ------------------------------------------------------------------------------------------


def test_no_room_is_one_sentence_that_says_what_to_do(model: Model, edit: Edit) -> None:
    for place in range(len(edit.sites)):
        with (
            fault(apply, "project_out", {place}, torch.OutOfMemoryError),
            pytest.raises(rc.RefusalError, match="choose fewer layers or sites"),
            rc.applied(model, edit),
        ):
            pytest.fail("the edit was not stopped")


def test_an_error_in_the_block_is_the_one_that_is_raised(model: Model, edit: Edit) -> None:
    for kind in FAULTS:
        with pytest.raises(kind, match="mine"), rc.applied(model, edit):
            raise kind("mine")


def test_hashes_see_one_bit_of_any_tensor_of_any_part() -> None:
    own = tiny_model("wan")
    before = hashes(own)
    parameter = next(own.pipeline.vae.parameters())
    parameter.data.view(torch.int32).flatten()[0] ^= 1
    changed = {name for name, digest in hashes(own).items() if digest != before[name]}
    assert len(changed) == 1 and next(iter(changed)).startswith("vae.")


def test_threads_wait_for_each_other_and_never_mix(model: Model, edit: Edit) -> None:
    """Two threads edit and generate, two generate the original: each gets only its own."""
    settings = rc.SamplingSettings(steps=4)
    original = rc.generate(model, "a robot on fire", settings).frames
    with rc.applied(model, edit):
        edited = rc.generate(model, "a robot on fire", settings).frames
    assert (original != edited).any()
    wrong: list[str] = []

    def plain() -> None:
        for _ in range(6):
            if (rc.generate(model, "a robot on fire", settings).frames != original).any():
                wrong.append("the original saw the edit")

    def unlearned() -> None:
        for _ in range(6):
            with rc.applied(model, edit):
                if (rc.generate(model, "a robot on fire", settings).frames != edited).any():
                    wrong.append("the edited one saw the original")

    threads = [threading.Thread(target=work) for work in (plain, unlearned, plain, unlearned)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_paper_s_edit_whose_two_sides_are_one_tensor_can_be_saved(trial: Trial, tmp_path) -> None:
    site, change = next(iter(trial.edit.sites.items()))
    assert change.remove is change.detect
    loaded = rc.load_edit(rc.save_edit(trial.edit, tmp_path / "edit.safetensors"))
    assert torch.equal(loaded.sites[site].detect, change.detect)
