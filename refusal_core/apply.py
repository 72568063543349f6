"""Applying an edit: weights are swapped for the time of a block and restored bit for bit.

Python runs a signal's handler between any two steps of the main thread, so Ctrl-C can break off even a
``finally`` before its first line. While a block is open, handlers therefore wait where weights change hands;
in all other code they run at once, as ever.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import CodeType, FrameType, TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from refusal_core.edit import Edit, SiteEdit, resolved
from refusal_core.errors import MemoryLimitError, ModelError
from refusal_core.fold import lora_factors, project_out, shift_bias
from refusal_core.models.model import Model
from refusal_core.models.quantised import dequantised, kind_of
from refusal_core.models.slots import Beside, Change, Place, slot_of

PATIENCE = 0.1  # seconds between two looks for a Ctrl-C while another thread has the model


def applied(model: Model, edit: Edit) -> AbstractContextManager[Model]:
    """Edit the model's weights for the duration of a block.

    All new weights are computed before the first one is put in place, and the original tensors are
    kept and put back, so that whatever happens the model is exactly what it was. Other threads that edit
    or run the model wait until the block ends. A block is left by the thread that entered it.

    Raises:
        ModelError: the edit was made for another model, or a layer is offloaded to disk.
        MemoryLimitError: the device has no room for a copy of the edited weights.
    """
    return _Swap(model, lambda: _new_weights(model, edit))


def replaced(model: Model, weights: Mapping[str, Tensor]) -> AbstractContextManager[Model]:
    """Put other weights in place of those of some layers for the duration of a block, then put them back.

    Args:
        model: the model.
        weights: new W [O, H] by the name of the site.
    """

    def make() -> list[tuple[Place, Any]]:
        return [(slot_of(model.layers[name], name, "weight"), new) for name, new in weights.items()]

    return _Swap(model, make)


class _Swap(AbstractContextManager[Model]):
    """New tensors in place of old ones. A class, as a generator's ``finally`` can be broken off by Ctrl-C."""

    def __init__(self, model: Model, make: Callable[[], list[tuple[Place, Any]]]) -> None:
        self._model, self._make = model, make
        self._originals: list[tuple[Place, Any]] = []

    def __enter__(self) -> Model:
        assert not self._originals, "a block is entered once at a time"
        _hold()
        try:
            while not self._model.lock.acquire(timeout=PATIENCE):
                _run_waiting()  # whoever waits for another thread may press Ctrl-C
        except BaseException:
            _let_go()
            raise
        try:
            _open(self._model).append(self)
            swaps = self._new_values()
            self._originals = [(slot, slot.get()) for slot, _ in swaps]
            for slot, new in swaps:
                slot.put(new)
            _run_waiting()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self._model

    def _new_values(self) -> list[tuple[Place, Any]]:
        return self._make()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._put_back()
        finally:
            self._model.lock.release()
            _let_go()

    def _put_back(self) -> None:
        blocks = _open(self._model)
        if self not in blocks:
            return  # a block around this one was left first, and put these weights back with its own
        within = blocks[blocks.index(self) :]
        try:
            _restore([pair for block in within for pair in block._originals])
        finally:
            del blocks[-len(within) :]
            for block in within:
                block._originals = []


# What may not be broken off, nor what it calls; but for the edit's own computation, called by the first.
_BREAKS: dict[CodeType, bool] = {
    _Swap.__enter__.__code__: False,
    _Swap.__exit__.__code__: False,
    _Swap._new_values.__code__: True,
}
# Signals that are sent to stop a program, or to wake it; the others are not handled in Python.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK", "SIGALRM", "SIGUSR1", "SIGUSR2")
_SIGNALS = tuple(int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name))
_handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}  # of the signals that are held
_waiting: list[int] = []
_depth = 0  # blocks within blocks hold once


def _hold() -> None:
    """Hold the signals that Python handles; in the main thread only, as it interrupts no other."""
    global _depth
    if threading.current_thread() is not threading.main_thread():
        return
    if _depth == 0:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and handler is not _postpone:
                _handlers[number] = handler
                signal.signal(number, _postpone)
    _depth += 1


def _let_go() -> None:
    """End one ``_hold``, then run the handlers of the signals that came meanwhile."""
    global _depth
    if threading.current_thread() is not threading.main_thread() or _depth == 0:
        return
    _depth -= 1
    if _depth == 0:
        for number, handler in _handlers.items():
            if signal.getsignal(number) is _postpone:  # the block may have set another
                signal.signal(number, handler)
    _run_waiting()


def _run_waiting() -> None:
    """Run the handlers of the signals that came meanwhile; they may raise, as Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():
        while _waiting:
            number = _waiting.pop(0)
            _handlers[number](number, None)


def _postpone(number: int, frame: FrameType | None) -> None:
    at = frame
    while at is not None and at.f_code not in _BREAKS:
        at = at.f_back
    if at is None or _BREAKS[at.f_code]:
        _handlers[number](number, frame)
    else:
        _waiting.append(number)


# The blocks that are open, by denoiser, outermost first: left in whatever order, the originals come back.
_OPEN: WeakKeyDictionary[nn.Module, list[_Swap]] = WeakKeyDictionary()


def _open(model: Model) -> list[_Swap]:
    return _OPEN.setdefault(model.denoisers[0], [])


def _restore(originals: list[tuple[Place, Any]]) -> None:
    """Put every tensor back, the last one first, whatever happens; then raise the first error there was."""
    first: BaseException | None = None
    while originals:
        slot, original = originals[-1]
        try:
            try:
                slot.put(original)
            except Exception as e:  # no memory where the model is by now: put it back where it was
                first = first or e
                slot.put_unmoved(original)
            originals.pop()
        except BaseException as e:
            first = first or e
            if isinstance(e, Exception):
                originals.pop()  # this one cannot be helped, the others can
    if first is not None:
        raise first


def check_fits(edit: Edit, model: Model) -> None:
    """Raise ModelError where an edit was made for another model."""
    if not edit.model.fits(model.fingerprint):
        raise ModelError(
            f"The edit was made for {edit.model.pipeline} with another configuration; make it again for"
            f" '{model.name}'."
        )


def _new_weights(model: Model, edit: Edit) -> list[tuple[Place, Any]]:
    """Return each weight that changes, with its new value."""
    check_fits(edit, model)
    try:
        return list(_edited(model, edit))
    except (torch.OutOfMemoryError, MemoryError) as e:
        raise MemoryLimitError("Too little memory to edit the weights; choose fewer layers or sites.") from e


def _edited(model: Model, edit: Edit) -> Iterator[tuple[Place, Any]]:
    """Yield each weight that changes, with its new value."""
    for site, whole in edit.sites.items():
        layer = model.layers.get(site.name)
        if layer is None or (layer.out_features, layer.in_features) != (site.outputs, site.inputs):
            raise ModelError(f"'{model.name}' has no layer {site.name} of the edit's shape.")
        change = resolved(whole, edit.origins, site.name)
        if not change.strength.any():
            continue
        if change.level is not None and layer.bias is None:
            raise ModelError("The edit moves a bias, and this layer has none; make it with anchor zero.")
        if kind_of(layer) is not None:
            yield Beside(layer), _beside(layer, change)
            continue
        slot = slot_of(layer, site.name, "weight")
        weight = slot.get()
        yield slot, project_out(weight, change.remove, change.detect, change.strength)
        if change.level is None:
            continue
        bias = slot_of(layer, site.name, "bias")
        yield bias, shift_bias(weight, bias.get(), change.remove, change.strength, change.level)


def _beside(layer: nn.Linear, edit: SiteEdit) -> Change:
    """Return the edit of a layer that keeps its weight: W~ x + b~ = (W x + b) + B (A x) + W U D level."""
    weight = dequantised(layer)
    a, b = lora_factors(weight, edit.remove, edit.detect, edit.strength)
    if edit.level is None:
        return Change(a, b)
    nothing = weight.new_zeros(len(weight))
    return Change(a, b, shift_bias(weight, nothing, edit.remove, edit.strength, edit.level))
