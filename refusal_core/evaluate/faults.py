"""A model on trial: its hashes, random edits, and faults put into the production path through its own seams.

Knows no promises; those are in ``reliability``.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from refusal_core.apply import applied
from refusal_core.edit import Edit, Origin, SiteEdit, versions
from refusal_core.errors import InputError
from refusal_core.models.model import Model
from refusal_core.models.sites import Site
from refusal_core.models.slots import Slot, slot_of
from refusal_core.settings import SubspaceSettings

CYCLES = 50
SITES_OF_LARGE = 16  # of a large model that many are tried, spread over its depth
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
    """Return a trial at all sites of a small model, at some of a large one.

    Raises:
        InputError: ``cycles`` is not positive.
    """
    if cycles < 1:
        raise InputError(f"cycles is {cycles}; it must be at least 1.")
    sites = model.sites
    if not model.is_small:
        sites = sites[:: max(1, len(sites) // SITES_OF_LARGE)][:SITES_OF_LARGE]
    made = random_edit(model, sites, 1, torch.Generator().manual_seed(0), anchored=True)
    return Trial(model, made, cycles, hashes(model))


def hashes(model: Model) -> dict[str, str]:
    """Return a hash of every tensor of the pipeline by its name, read where offloading keeps it."""
    found = {}
    for part, module in model.pipeline.components.items():
        for path, inner in module.named_modules() if isinstance(module, nn.Module) else ():
            for name, tensor in _own_tensors(inner):
                content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                kind = f"{tensor.dtype} {tuple(tensor.shape)}"
                digest = hashlib.sha256(content.numpy().data)
                found[f"{part}.{path}.{name}"] = f"{kind} {digest.hexdigest()}"
    return found


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    stored = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    for name, tensor in own:
        if tensor.device.type != "meta":
            yield name, tensor
        elif stored is not None:
            yield name, stored[name]


def random_edit(
    model: Model, sites: Sequence[Site], concepts: int, generator: torch.Generator, *, anchored: bool = False
) -> Edit:
    """Return an edit of random directions, one a concept, each with a strength of its own."""
    changes = {}
    for site in sites:
        draw = torch.randn(site.inputs, min(concepts, site.inputs), generator=generator)
        rows = torch.linalg.qr(draw)[0].T.contiguous()
        strength = torch.rand(len(rows), generator=generator).clamp(min=0.05)
        level = torch.randn(len(rows), generator=generator) if anchored and site.has_bias else None
        changes[site] = SiteEdit(rows, rows, strength, level, tuple(range(len(rows))))
    recipe = SubspaceSettings(), 1.0, "mean" if anchored else "zero", versions(), ()
    origins = tuple(Origin(f"random {i}", (), *recipe) for i in range(concepts))
    return Edit(model.fingerprint, changes, origins)


def originals_of(model: Model, edit: Edit) -> list[tuple[Slot, Tensor]]:
    """Return the slots of an edit with the tensors that are in them now."""
    found = []
    for site, change in edit.sites.items():
        layer = model.layers[site.name]
        for attribute in ("weight", "bias")[: 1 + (change.level is not None)]:
            slot = slot_of(layer, site.name, attribute)
            found.append((slot, slot.get()))
    return found


@contextmanager
def fault(home: Any, name: str, at: Container[int], error: type[BaseException]) -> Iterator[None]:
    """Let a function raise at the calls whose numbers are given, counted from 0."""
    real, calls = getattr(home, name), 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls - 1 in at:
            raise error("injected")
        return real(*arguments, **named)

    setattr(home, name, failing)
    try:
        yield
    finally:
        setattr(home, name, real)


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
