"""``selftest``: on a loaded model, whatever goes wrong in an edit, every weight comes back bit for bit.

The edits are random directions at many sites, so that the model need not run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from refusal_core.apply import applied
from refusal_core.edit import Edit, Origin, SiteEdit, versions
from refusal_core.models.model import Model
from refusal_core.models.sites import Site
from refusal_core.models.slots import Slot, own_tensors, slot_of
from refusal_core.progress import Progress, silent
from refusal_core.settings import Anchor, SubspaceSettings

SITES_OF_LARGE = 16  # of a large model that many are tried, spread over its depth


@dataclass(frozen=True, slots=True)
class Check:
    """How one promise fared: how often it was tried, and why it does not hold."""

    title: str
    tries: int
    trouble: str = ""


def selftest(model: Model, progress: Progress = silent) -> tuple[Check, ...]:
    """Try every promise; a broken one is in the result with its sentence, the others are tried all the same.

    Args:
        model: any loaded one; it is left as it was.
        progress: told per check; may raise ``Cancelled``.
    """
    sites = model.sites if model.is_small else model.sites[:: max(1, len(model.sites) // SITES_OF_LARGE)]
    generator = torch.Generator().manual_seed(0)
    edit, other = (random_edit(model, sites, 1, generator, anchored=True) for _ in range(2))
    before, checks = hashes(model), []
    for number, (title, work) in enumerate(_CHECKS.items()):
        progress(number / len(_CHECKS), title.capitalize())
        tries, trouble = 0, ""
        try:
            tries = work(model, edit, other)
        except Exception as e:  # whatever is raised, the table must show it and go on
            trouble = f"{type(e).__name__}: {e}"[:300]
        changed = [name for name, digest in hashes(model).items() if before[name] != digest]
        if changed:
            trouble = f"{len(changed)} tensors changed, first {changed[0]}. {trouble}".strip()
        checks.append(Check(title, tries, trouble))
    progress(1.0, "Done")
    return tuple(checks)


def _undo(model: Model, edit: Edit, _other: Edit) -> int:
    before = originals_of(model, edit)
    with applied(model, edit):
        if any(torch.equal(slot.get(), original) for slot, original in before):
            raise RuntimeError("the edit changes nothing")
    return 1


def _fault_inside(model: Model, edit: Edit, _other: Edit) -> int:
    kinds = (RuntimeError, KeyboardInterrupt, MemoryError)
    for kind in kinds:
        try:
            with applied(model, edit):
                raise kind("injected")
        except kind:
            continue
    return len(kinds)


def _fault_between(model: Model, edit: Edit, _other: Edit) -> int:
    count = len(originals_of(model, edit))
    places = sorted({0, count // 2, count - 1, count, count + count // 2, 2 * count - 1})  # in, then back
    for place in places:
        try:
            with fault(Slot, "put", {place}, KeyboardInterrupt), applied(model, edit):
                pass
        except KeyboardInterrupt:
            continue
        raise RuntimeError(f"nothing was raised at weight {place % count}")
    return len(places)


def _nested(model: Model, edit: Edit, other: Edit) -> int:
    with applied(model, edit), applied(model, other):
        pass
    first, second = applied(model, edit), applied(model, other)
    for block in (first, second):
        block.__enter__()
    for block in (first, second):
        block.__exit__(None, None, None)
    return 2


_CHECKS: dict[str, Callable[[Model, Edit, Edit], int]] = {
    "every tensor has its hash after an edit": _undo,
    "errors and Ctrl-C inside an edit": _fault_inside,
    "a fault while weights go in or come back": _fault_between,
    "edits within edits, left in any order": _nested,
}


def hashes(model: Model) -> dict[str, str]:
    """Return a hash of every tensor of the pipeline by its name, read where offloading keeps it."""
    digests = {}
    for part, module in model.pipeline.components.items():
        for path, inner in module.named_modules() if isinstance(module, nn.Module) else ():
            for name, tensor in own_tensors(inner):
                content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(content.numpy().data)
                digests[f"{part}.{path}.{name}"] = digest.hexdigest()
    return digests


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
    anchor: Anchor = "mean" if anchored else "zero"
    recipe = Origin("random", (), SubspaceSettings(), 1.0, anchor, versions(), ())
    return Edit(model.fingerprint, changes, (recipe,) * concepts)


def originals_of(model: Model, edit: Edit) -> list[tuple[Slot, Tensor]]:
    """Return the slots of an edit with the tensors that are in them now."""
    slots = [
        slot_of(model.layers[site.name], site.name, attribute)
        for site, change in edit.sites.items()
        for attribute in ("weight", "bias")[: 1 + (change.level is not None)]
    ]
    return [(slot, slot.get()) for slot in slots]


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
