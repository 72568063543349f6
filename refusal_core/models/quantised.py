"""Layers whose weights are quantised: told apart, read as plain numbers, and how a denoiser becomes so.

Capture reads what enters a layer and needs nothing of its weight. An edit rides beside such a layer
(``slots.Beside``), as its numbers cannot be replaced one by one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refusal_core.errors import FileError, InputError, ModelError
from refusal_core.models.load_settings import Quantise

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
CASTING = "layerwise_casting"  # the hook's name in diffusers
SUFFIX = ".gguf"


def is_plain(layer: nn.Module) -> bool:
    """Return whether a layer is a linear one whose weight is a matrix of numbers that can be replaced."""
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and layer.weight.dtype in FLOATS


def kind_of(layer: nn.Module) -> str | None:
    """Return how a linear layer is quantised: torchao, gguf, bitsandbytes or fp8; None where not, or unknown.

    Classes do not tell: torchao keeps ``nn.Linear`` and a dtype of floats, only the weight's type differs.
    """
    if not isinstance(layer, nn.Linear) or is_plain(layer):
        return None
    weight, name = layer.weight, type(layer.weight).__name__
    if type(weight).__module__.startswith("torchao."):
        return "torchao"
    if name == "GGUFParameter":
        return "gguf"
    if name in ("Params4bit", "Int8Params"):
        return "bitsandbytes"
    hooks = getattr(getattr(layer, "_diffusers_hook", None), "hooks", {})
    return "fp8" if weight.dtype in FP8 and CASTING in hooks else None


def dequantised(layer: nn.Linear) -> Tensor:
    """Return the weight [O, H] that a layer multiplies by, in float32, where the layer is.

    Raises:
        ModelError: it is offloaded one by one, or quantised in a way that is not known.
    """
    weight: Any = layer.weight  # of each library a type of its own
    kind = kind_of(layer)
    if weight.device.type == "meta":
        raise ModelError("A quantised layer is offloaded one by one; load with --offload model, or none.")
    if kind == "gguf":
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        plain = dequantize_gguf_tensor(weight)
    elif kind == "bitsandbytes":
        from diffusers.quantizers.bitsandbytes.utils import dequantize_bnb_weight

        plain = dequantize_bnb_weight(weight, getattr(layer, "state", None))
    elif kind == "torchao":
        plain = weight.dequantize()
    elif kind == "fp8" or is_plain(layer):
        plain = weight
    else:
        raise ModelError(f"A {type(layer).__name__} with a {type(weight).__name__} is not known.")
    return plain.detach().as_subclass(Tensor).float()


def quantise_options(how: Quantise) -> dict[str, Any]:
    """Return what a denoiser's loader is told, so that it quantises while it loads.

    Raises:
        InputError: the package that does it is not installed.
    """
    if how != "int8":
        return {}
    try:
        from diffusers import TorchAoConfig
        from torchao.quantization import Int8WeightOnlyConfig
    except ImportError as e:
        raise InputError("--quantise int8 needs torchao: pip install torchao, or take fp8.") from e
    return {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig(version=2))}


def store_in_fp8(denoiser: nn.Module, dtype: torch.dtype) -> None:
    """Keep a denoiser's weights in fp8 and compute in ``dtype``, by diffusers' layerwise casting."""
    caster: Any = denoiser
    caster.enable_layerwise_casting(storage_dtype=FP8[0], compute_dtype=dtype)


def read_gguf(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a .gguf file, quantised as they are.

    Raises:
        InputError: the package that reads it is not installed.
        FileError: it is no sound .gguf file, or quantised in a way that diffusers does not read.
    """
    from diffusers.models.model_loading_utils import load_gguf_checkpoint

    try:
        tensors: dict[str, Tensor] = load_gguf_checkpoint(str(file))
    except ImportError as e:
        raise InputError("A .gguf file needs the package gguf: pip install gguf.") from e
    except Exception as e:  # a reader of strangers' bytes fails in ways of its own
        raise FileError(f"'{file.name}' is no .gguf file that diffusers reads: {str(e)[:200]}.") from e
    return tensors


def gguf_options(dtype: torch.dtype) -> dict[str, Any]:
    """Return what the loader of a file that ``read_gguf`` has read is told."""
    from diffusers import GGUFQuantizationConfig

    return {"quantization_config": GGUFQuantizationConfig(compute_dtype=dtype)}


def shape_of(tensor: Tensor) -> torch.Size:
    """Return the shape of a weight as its layer has it: GGUF's is that of its bytes."""
    return torch.Size(getattr(tensor, "quant_shape", tensor.shape))
