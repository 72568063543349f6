"""Applying an edit: weights are swapped for the time of a block and restored bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from refusal_core.edit import Edit, SiteEdit, resolved
from refusal_core.errors import MemoryLimitError, ModelError
from refusal_core.fold import project_out, shift_bias
from refusal_core.models.load import Model


@contextmanager
def applied(model: Model, edit: Edit) -> Iterator[Model]:
    """Edit the model's weights for the duration of a block.

    All new weights are computed before the first one is put in place, and the original tensors are
    kept and put back, so that whatever happens the model is exactly what it was.

    Raises:
        ModelError: the edit was made for another model, or the layer is offloaded to disk.
        MemoryLimitError: the device has no room for a copy of the edited weights.
    """
    if not edit.model.fits(model.fingerprint):
        raise ModelError(
            f"The edit was made for {edit.model.pipeline} with another configuration; make it again for"
            f" '{model.name}'."
        )
    try:
        swaps = list(_edited(model, edit))
    except torch.OutOfMemoryError as e:
        raise MemoryLimitError("Too little memory to edit the weights; choose fewer layers or sites.") from e
    originals = [(parameter, parameter.data) for parameter, _ in swaps]
    try:
        for parameter, new in swaps:
            parameter.data = new
        yield model
    finally:
        for parameter, original in originals:
            parameter.data = original


def _edited(model: Model, edit: Edit) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield each parameter that changes, with its new value."""
    for site, mine in edit.sites.items():
        layer = model.layers.get(site.name)
        if layer is None or tuple(layer.weight.shape) != (site.outputs, site.inputs):
            raise ModelError(f"'{model.name}' has no layer {site.name} of the edit's shape.")
        if layer.weight.device.type == "meta":
            raise ModelError(
                f"{site.name} is offloaded; load the model without sequential offload to edit it."
            )
        change = resolved(mine, edit.origins, site.name)
        if not change.strength.any():
            continue
        yield layer.weight, project_out(layer.weight.data, change.remove, change.detect, change.strength)
        yield from _edited_bias(layer, change)


def _edited_bias(layer: nn.Linear, change: SiteEdit) -> Iterator[tuple[nn.Parameter, Tensor]]:
    if change.level is None:
        return
    if layer.bias is None:
        raise ModelError("The edit moves a bias, and this layer has none; make it with anchor zero.")
    yield (
        layer.bias,
        shift_bias(layer.weight.data, layer.bias.data, change.remove, change.strength, change.level),
    )
