"""Where the numbers of a layer really are, however the pipeline holds them. Knows no edits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from refusal_core.errors import ModelError
from refusal_core.models.quantised import is_plain, kind_of

SAMPLED = 64  # values of a tensor, or up to twice as many


class Place(Protocol):
    """What holds a value of a layer that can be exchanged: a tensor in a ``Slot``, a change ``Beside``."""

    def get(self) -> Any: ...

    def put(self, value: Any) -> None: ...

    def put_unmoved(self, value: Any) -> None: ...


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


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What is added to a layer's output: y + B (A x) + shift, with A [m, H], B [O, m], shift [O]."""

    a: Tensor
    b: Tensor
    shift: Tensor | None = None

    def added(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y [..., O] with the change for x [..., H]."""
        a, b = self.a.to(x.device, x.dtype), self.b.to(y.device, y.dtype)
        changed = y + nn.functional.linear(nn.functional.linear(x, a).to(y.dtype), b)
        return changed if self.shift is None else changed + self.shift.to(y.device, y.dtype)


_BESIDE: WeakKeyDictionary[nn.Module, tuple[Change, RemovableHandle]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """The place beside a layer whose own numbers cannot be replaced, as quantised ones; None: empty."""

    layer: nn.Linear

    def get(self) -> Change | None:
        """Return the change that rides there by now."""
        found = _BESIDE.get(self.layer)
        return None if found is None else found[0]

    def put(self, value: Change | None) -> None:
        """Let a change ride there in place of what did; the layer's own tensors are not touched."""
        if (old := _BESIDE.pop(self.layer, None)) is not None:
            old[1].remove()
        if value is not None:
            handle = self.layer.register_forward_hook(lambda _layer, inputs, y: value.added(inputs[0], y))
            _BESIDE[self.layer] = value, handle

    put_unmoved = put


def slot_of(layer: nn.Linear, name: str, attribute: str) -> Slot:
    """Return the slot of a layer's ``weight`` or ``bias``.

    Raises:
        ModelError: the tensor is on disk, quantised, or its true copy is out of reach; the sentence says what
            to do.
    """
    if attribute == "weight" and not is_plain(layer):
        raise ModelError(
            f"{name} is quantised ({kind_of(layer)}): its numbers cannot be replaced; load it unquantised."
        )
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


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a module alone by their names, read where offloading keeps them; none on disk."""
    stored = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    for name, tensor in own:
        if tensor.device.type != "meta":
            yield name, tensor
        elif stored is not None:
            yield name, stored[name]


def sampled_hash(pipeline: Any) -> str | None:
    """Return a hash of values spread over every tensor of a pipeline; None where some cannot be read.

    A finetune, an adapter or an edit that was folded in moves all values of a matrix, so that it shows.
    """
    digest = hashlib.sha256()
    for part, module in pipeline.components.items():
        for path, inner in module.named_modules() if isinstance(module, nn.Module) else ():
            if hasattr(inner, "lora_A"):  # how much of an adapter counts is no tensor
                digest.update(f"{inner.scaling} {inner.active_adapters} {inner.merged}".encode())
            found = dict(own_tensors(inner))
            if len(found) < sum(1 for x in (inner.parameters, inner.buffers) for _ in x(recurse=False)):
                return None
            for name, tensor in found.items():
                digest.update(f"{part}.{path}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                for values in _plain(tensor):
                    flat = values.reshape(-1)
                    few = flat[:: max(1, flat.numel() // SAMPLED)].contiguous().cpu()
                    digest.update(few.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(tensor: Any) -> Iterator[Tensor]:
    """Yield the tensors of numbers that one is made of, of a quantised one several."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
    else:
        yield tensor.as_subclass(Tensor).detach()
