"""Where the numbers of a layer really are, however the pipeline holds them. Knows no edits."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from refusal_core.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """The place of one weight or bias: a parameter, or the store that offloading fetches it from."""

    parameter: nn.Parameter
    store: MutableMapping[str, Any] | None = None
    key: str = ""

    def get(self) -> Tensor:
        """Return the tensor itself, no copy."""
        return self.parameter.data if self.store is None else self.store[self.key]

    def put(self, value: Tensor) -> None:
        """Put a tensor in place, on the device where the model is by now."""
        if self.store is None:
            self.parameter.data = value.to(self.parameter.device)
        else:
            self.store[self.key] = value

    def put_unmoved(self, value: Tensor) -> None:
        """Put a tensor in place on the device where it is: nothing is copied, so memory cannot run out."""
        if self.store is None:
            self.parameter.data = value
        else:
            self.store[self.key] = value


def slot_of(layer: nn.Linear, name: str, attribute: str) -> Slot:
    """Return the slot of a layer's ``weight`` or ``bias``.

    Raises:
        ModelError: the tensor is on disk, or its true copy is out of reach; the sentence says what to do.
    """
    parameter = getattr(layer, attribute)
    hook = getattr(layer, "_hf_hook", None)
    if parameter.device.type != "meta":
        if _streams(layer):
            raise ModelError(f"{name} is offloaded in a stream; edit the model before enable_group_offload.")
        return Slot(parameter)
    weights = getattr(hook, "weights_map", None)  # sequential offload: the layer itself is empty
    store, prefix = getattr(weights, "dataset", None), getattr(weights, "prefix", "")
    key = f"{prefix}{attribute}"
    if isinstance(store, dict) and key in store:
        return Slot(parameter, store, key)
    inner = getattr(store, "state_dict", None)
    if isinstance(inner, dict) and key in inner:
        return Slot(parameter, inner, key)
    raise ModelError(f"{name} is offloaded to disk; bake the edit into the checkpoint, or load without.")


def _streams(layer: nn.Module) -> bool:
    registry = getattr(layer, "_diffusers_hook", None)
    hooks = getattr(registry, "hooks", {}) if registry is not None else {}
    return any(getattr(getattr(h, "group", None), "stream", None) is not None for h in hooks.values())
