"""Applying an edit: weights are swapped for the time of a block and restored bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from refusal_core.edit import Edit, resolved
from refusal_core.errors import MemoryLimitError, ModelError
from refusal_core.fold import project_out, shift_bias
from refusal_core.models.model import Model
from refusal_core.models.slots import Slot, slot_of


@contextmanager
def applied(model: Model, edit: Edit) -> Iterator[Model]:
    """Edit the model's weights for the duration of a block.

    All new weights are computed before the first one is put in place, and the original tensors are
    kept and put back, so that whatever happens the model is exactly what it was. Other threads that edit
    or run the model wait until the block ends.

    Raises:
        ModelError: the edit was made for another model, or a layer is offloaded to disk.
        MemoryLimitError: the device has no room for a copy of the edited weights.
    """
    if not edit.model.fits(model.fingerprint):
        raise ModelError(
            f"The edit was made for {edit.model.pipeline} with another configuration; make it again for"
            f" '{model.name}'."
        )
    with model.lock:
        try:
            swaps = list(_edited(model, edit))
        except (torch.OutOfMemoryError, MemoryError) as e:
            sentence = "Too little memory to edit the weights; choose fewer layers or sites."
            raise MemoryLimitError(sentence) from e
        with _swapped(swaps):
            yield model


@contextmanager
def replaced(model: Model, weights: Mapping[str, Tensor]) -> Iterator[Model]:
    """Put other weights in place of those of some layers for the duration of a block, then put them back.

    Args:
        model: the model.
        weights: new W [O, H] by the name of the site.
    """
    with model.lock:
        swaps = [(slot_of(model.layers[name], name, "weight"), new) for name, new in weights.items()]
        with _swapped(swaps):
            yield model


@contextmanager
def _swapped(swaps: Sequence[tuple[Slot, Tensor]]) -> Iterator[None]:
    originals = [(slot, slot.get()) for slot, _ in swaps]
    try:
        for slot, new in swaps:
            slot.put(new)
        yield
    finally:
        _restore(originals)


def _restore(originals: list[tuple[Slot, Tensor]]) -> None:
    """Put every tensor back, whatever arrives in between; a Ctrl-C is raised again once all are back."""
    interrupted: KeyboardInterrupt | None = None
    while originals:
        try:
            slot, original = originals[-1]
            slot.put(original)
            originals.pop()
        except KeyboardInterrupt as e:
            interrupted = e
    if interrupted is not None:
        raise interrupted


def _edited(model: Model, edit: Edit) -> Iterator[tuple[Slot, Tensor]]:
    """Yield each weight that changes, with its new value."""
    for site, mine in edit.sites.items():
        layer = model.layers.get(site.name)
        if layer is None or (layer.out_features, layer.in_features) != (site.outputs, site.inputs):
            raise ModelError(f"'{model.name}' has no layer {site.name} of the edit's shape.")
        change = resolved(mine, edit.origins, site.name)
        if not change.strength.any():
            continue
        slot = slot_of(layer, site.name, "weight")
        weight = slot.get()
        yield slot, project_out(weight, change.remove, change.detect, change.strength)
        if change.level is None:
            continue
        if layer.bias is None:
            raise ModelError("The edit moves a bias, and this layer has none; make it with anchor zero.")
        bias = slot_of(layer, site.name, "bias")
        yield bias, shift_bias(weight, bias.get(), change.remove, change.strength, change.level)
