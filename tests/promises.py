"""Weights are sacred: trying on a loaded model that whatever goes wrong, every weight is what it was.

Faults come at every place in turn. The edits are random directions, so that most promises are tried
without running the model. Each returns how many tries there were, and raises where a promise is broken.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path

import torch
from faults import FAULTS, NO_MEMORY, NotHeldError, Trial, apply_once, expect, expect_free
from torch import Tensor

from refusal_core import apply
from refusal_core.activations import Activations, Samples
from refusal_core.apply import applied
from refusal_core.directions import estimate
from refusal_core.edit import save_edit
from refusal_core.errors import Cancelled, FileError, InputError, MemoryLimitError, ModelError
from refusal_core.evaluate.selftest import fault, originals_of, random_edit
from refusal_core.io import files
from refusal_core.models.slots import Slot
from refusal_core.progress import Progress
from refusal_core.sampling import generate
from refusal_core.settings import CaptureSettings, SamplingSettings

MAX_CONCEPTS = 5
SITES_A_CYCLE = 4
STEPS = 3
ROUNDS = 10  # of each thread
PATIENCE = 600.0  # seconds until threads that do not end are taken for a deadlock
PROMPT = "a robot"
KINDS = (*FAULTS, *NO_MEMORY)


# --- the checks --------------------------------------------------------------------------------------


def undo_is_exact(trial: Trial) -> int:
    """Every tensor of the pipeline has the same hash after an edit, and the edit had changed its weights."""
    before = originals_of(trial.model, trial.edit)
    with applied(trial.model, trial.edit):
        for slot, original in before:
            if torch.equal(slot.get(), original):
                raise NotHeldError("the edit changes nothing")
    trial.expect_untouched("an edit")
    return len(trial.hashes)


def faults_going_in(trial: Trial) -> int:
    """A fault at any weight that goes in undoes all that went in before it."""
    before, tries = originals_of(trial.model, trial.edit), 0
    for place, kind in _places(trial.changes, KINDS):
        where = f"{kind.__name__} at weight {place} going in"
        with fault(Slot, "put", {place}, kind):
            expect(kind, lambda: apply_once(trial), where)
        trial.expect_same(before, where)
        tries += 1
    trial.expect_untouched("faults going in")
    return tries


def faults_coming_back(trial: Trial) -> int:
    """A fault at any weight that comes back, once or lasting, is raised when all are back."""
    before, tries, count = originals_of(trial.model, trial.edit), 0, trial.changes
    for lasting, kinds in ((False, KINDS), (True, (RuntimeError, *NO_MEMORY))):
        for place, kind in _places(count, kinds):
            where = f"{kind.__name__} at weight {place} coming back"
            first = count + place
            with fault(Slot, "put", range(first, 2 * count) if lasting else {first}, kind):
                expect(kind, lambda: apply_once(trial), where)
            trial.expect_same(before, where)
            tries += 1
    trial.expect_untouched("faults coming back")
    return tries


def faults_working_out(trial: Trial) -> int:
    """A fault while the new weights are worked out touches nothing; no memory for one is a sentence."""
    before, tries, sites = originals_of(trial.model, trial.edit), 0, len(trial.edit.sites)
    seams = {"resolved": sites, "project_out": sites, "shift_bias": trial.changes - sites}
    for name, count in seams.items():
        for place, kind in _places(count, KINDS):
            where = f"{kind.__name__} in {name} at {place}"
            with fault(apply, name, {place}, kind):
                expect(MemoryLimitError if kind in NO_MEMORY else kind, lambda: apply_once(trial), where)
            trial.expect_same(before, where)
            tries += 1
    trial.expect_untouched("faults in working out")
    return tries


def _places(count: int, kinds: Sequence[type[BaseException]]) -> Iterator[tuple[int, type[BaseException]]]:
    """Yield every place with one kind of fault in turn, and the first and the last one with every kind."""
    for place in range(count):
        at_edge = place in (0, count - 1)
        yield from ((place, kind) for kind in (kinds if at_edge else kinds[place % len(kinds) :][:1]))


def missing_sites(trial: Trial) -> int:
    """An edit with a layer that the model lacks, or has in another shape, touches nothing."""
    before = originals_of(trial.model, trial.edit)
    *good, last = trial.edit.sites
    wrong = (replace(last, name="nowhere"), replace(last, inputs=last.inputs + 1))
    for site in wrong:
        sites = {s: trial.edit.sites[s] for s in good} | {site: trial.edit.sites[last]}
        edit = replace(trial.edit, sites=sites)
        expect(ModelError, lambda edit=edit: apply_once(replace(trial, edit=edit)), f"site {site.name}")
        trial.expect_same(before, "an edit with a missing site")
    return len(wrong)


def faults_inside(trial: Trial) -> int:
    """Whatever ends the block, the weights come back: errors, dropped generators, threads that die."""
    before = originals_of(trial.model, trial.edit)

    def stop(kind: type[BaseException]) -> None:
        raise kind("injected")

    def steps() -> Iterator[None]:
        with applied(trial.model, trial.edit):
            yield

    for kind in KINDS:
        expect(kind, lambda kind=kind: apply_once(trial, lambda: stop(kind)), kind.__name__)
        trial.expect_same(before, f"{kind.__name__} in the block")
    for _ in steps():
        break
    trial.expect_same(before, "a generator that was dropped")

    def die() -> None:
        with suppress(SystemExit):
            apply_once(trial, lambda: stop(SystemExit))

    thread = threading.Thread(target=die, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    trial.expect_same(before, "the death of a thread")
    expect_free(trial.model)
    trial.expect_untouched("faults in the block")
    return len(KINDS) + 2


def nested_edits(trial: Trial) -> int:
    """An edit within an edit is undone to the outer one's weights; in the wrong order, both are undone."""
    before = originals_of(trial.model, trial.edit)
    other = random_edit(trial.model, tuple(trial.edit.sites), 2, torch.Generator().manual_seed(1))
    with applied(trial.model, trial.edit):
        outer = originals_of(trial.model, trial.edit)
        with applied(trial.model, other):
            if torch.equal(outer[0][0].get(), outer[0][1]):
                raise NotHeldError("the inner edit changes nothing")
        trial.expect_same(outer, "the inner edit")
    trial.expect_same(before, "the outer edit")
    first, second = applied(trial.model, trial.edit), applied(trial.model, other)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    trial.expect_same(before, "edits that were left in the wrong order")
    expect_free(trial.model)
    trial.expect_untouched("nested edits")
    return 2


def bad_activations(trial: Trial) -> int:
    """Activations with NaN or infinity make no edit."""
    site = next(iter(trial.edit.sites))
    generator = torch.Generator().manual_seed(0)
    unsafe, safe, neutral = (torch.randn(6, site.inputs, generator=generator) for _ in range(3))
    samples = Samples(unsafe, safe, neutral, torch.arange(6) // 2, by_token=False)
    pairs = (("a", "b"), ("c", "d"), ("e", "f"))
    seen = Activations(trial.model.fingerprint, "random", pairs, CaptureSettings(), {site: samples})
    estimate(seen)
    values = [float("nan"), float("inf"), float("-inf")]
    for name in ("unsafe", "safe", "neutral"):
        for value in values:
            spoiled = getattr(samples, name).clone()
            spoiled[3, 0] = value
            wrong = replace(seen, sites={site: replace(samples, **{name: spoiled})})
            expect(InputError, lambda wrong=wrong: estimate(wrong), f"{value} in {name}")
    return 3 * len(values)


def full_disk(trial: Trial) -> int:
    """A disk that is full at any point of saving leaves no file, and an older one as it was."""
    seams = ((files, "save_file"), (os, "fsync"), (Path, "replace"))
    with tempfile.TemporaryDirectory(prefix="refusal-studio-") as folder:
        path = Path(folder) / "edit.safetensors"
        for older in (None, b"an older file"):
            if older is not None:
                path.write_bytes(older)
            for home, name in seams:
                with fault(home, name, range(9), OSError):
                    expect(FileError, lambda: save_edit(trial.edit, path), f"no room in {name}")
                left = {p.name: p.read_bytes() for p in Path(folder).iterdir()}
                if left != ({} if older is None else {path.name: older}):
                    raise NotHeldError(f"{sorted(left)} is left after a full disk in {name}")
    return 2 * len(seams)


def cancelled_runs(trial: Trial) -> int:
    """A run that is cancelled between any two denoising steps leaves the weights as they were."""
    before = originals_of(trial.model, trial.edit)
    settings = SamplingSettings(steps=STEPS)
    for stop in range(STEPS):
        told = itertools.count()

        def cancel(_fraction: float, _sentence: str, told: Iterator[int] = told, stop: int = stop) -> None:
            if next(told) == stop:
                raise Cancelled("Stopped.")

        def run(cancel: Progress = cancel) -> None:
            generate(trial.model, PROMPT, settings, progress=cancel)

        expect(Cancelled, lambda run=run: apply_once(trial, run), f"cancel at step {stop}")
        trial.expect_same(before, f"cancel at step {stop}")
    trial.expect_untouched("cancelled runs")
    return STEPS


def random_cycles(trial: Trial) -> int:
    """Edits of one to five concepts, each with a strength of its own, in and out again: the same bits."""
    generator = torch.Generator().manual_seed(0)
    before, sites = originals_of(trial.model, trial.edit), tuple(trial.edit.sites)
    for cycle in range(trial.cycles):
        count = int(torch.randint(1, MAX_CONCEPTS + 1, (1,), generator=generator))
        chosen = [sites[i] for i in torch.randperm(len(sites), generator=generator)[:SITES_A_CYCLE]]
        several = random_edit(trial.model, chosen, count, generator, anchored=cycle % 2 == 1)
        apply_once(replace(trial, edit=several))
        trial.expect_same(before, f"cycle {cycle}")
    trial.expect_untouched(f"{trial.cycles} cycles")
    return trial.cycles


def threads_wait(trial: Trial) -> int:
    """Two threads with an edit each, and one that only looks: none ever sees the weights of another."""
    model, sites = trial.model, tuple(trial.edit.sites)
    before = originals_of(model, trial.edit)
    slots = [slot for slot, _ in before]
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    edits = [random_edit(model, sites, 2, generator) for generator in generators]
    wanted = [original for _, original in before]
    blocks: list[tuple[Callable[[], AbstractContextManager[object]], list[Tensor]]] = [
        (lambda: model.lock, wanted)
    ]
    for edit in edits:
        with applied(model, edit):
            seen = [slot.get() for slot in slots]
        blocks.append((lambda edit=edit: applied(model, edit), seen))
    wrong: list[str] = []

    def work(number: int) -> None:
        block, expected = blocks[number]
        for _ in range(ROUNDS):
            with block():
                time.sleep(0)  # let another one try
                if not all(torch.equal(s.get(), e) for s, e in zip(slots, expected, strict=True)):
                    wrong.append(f"thread {number} saw the weights of another")

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(len(blocks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if wrong or any(thread.is_alive() for thread in threads):
        raise NotHeldError(wrong[0] if wrong else "the threads wait for each other forever")
    trial.expect_untouched("threads")
    return ROUNDS * len(blocks)


CHECKS: dict[str, Callable[[Trial], int]] = {
    "every tensor has its hash after an edit": undo_is_exact,
    "a fault at each weight going in": faults_going_in,
    "a fault at each weight coming back": faults_coming_back,
    "a fault or no memory while working out": faults_working_out,
    "a layer that is missing": missing_sites,
    "errors inside, dropped generators, dead threads": faults_inside,
    "edits within edits, left in any order": nested_edits,
    "activations with NaN are refused": bad_activations,
    "a full disk leaves no file": full_disk,
    "cancelled between steps": cancelled_runs,
    "random edits in and out": random_cycles,
    "threads wait for each other": threads_wait,
}
