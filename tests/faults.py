"""A model on trial: an edit of it, and what is expected of faults put in through the product's own seams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from refusal_core.apply import applied
from refusal_core.edit import Edit
from refusal_core.evaluate.selftest import hashes, random_edit
from refusal_core.models.model import Model
from refusal_core.models.slots import Slot

CYCLES = 50
FAULTS: tuple[type[BaseException], ...] = (RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit)
NO_MEMORY: tuple[type[BaseException], ...] = (MemoryError, torch.OutOfMemoryError)


class NotHeldError(Exception):
    """A promise was broken; the text says which and where."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A model, an edit of one concept at the sites to try, and how often to try what is random."""

    model: Model
    edit: Edit
    cycles: int = CYCLES
    hashes: dict[str, str] = field(default_factory=dict)  # of every tensor before the trial

    @property
    def changes(self) -> int:
        """Weights and biases that the edit puts in place."""
        return sum(1 + (change.level is not None) for change in self.edit.sites.values())

    def expect_untouched(self, where: str) -> None:
        """Raise NotHeldError unless every tensor of the pipeline has the bits it had."""
        found = hashes(self.model)
        changed = [name for name in self.hashes | found if found.get(name) != self.hashes.get(name)]
        if changed:
            raise NotHeldError(f"{len(changed)} tensors changed after {where}, first {changed[0]}")

    def expect_same(self, originals: Sequence[tuple[Slot, Tensor]], where: str) -> None:
        """Raise NotHeldError unless the weights of the edit are those given: quicker than all hashes."""
        for slot, original in originals:
            now = slot.get()
            if now.data_ptr() != original.data_ptr() and not torch.equal(now, original):
                raise NotHeldError(f"a weight is not what it was after {where}")


def start_trial(model: Model, cycles: int = CYCLES) -> Trial:
    """Return a trial at all sites of a model."""
    made = random_edit(model, model.sites, 1, torch.Generator().manual_seed(0), anchored=True)
    return Trial(model, made, cycles, hashes(model))


def expect(error: type[BaseException], work: Callable[[], object], where: str) -> None:
    """Run what must raise; NotHeldError where it does not."""
    try:
        work()
    except error:
        return
    raise NotHeldError(f"nothing was raised: {where}")


def apply_once(trial: Trial, inside: Callable[[], object] = lambda: None) -> None:
    with applied(trial.model, trial.edit):
        inside()


def expect_free(model: Model) -> None:
    """Raise NotHeldError where another thread could not use the model."""
    got: list[bool] = []

    def take() -> None:
        got.append(model.lock.acquire(timeout=10))
        if got[0]:
            model.lock.release()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join()
    if not any(got):
        raise NotHeldError("the lock is still held")
