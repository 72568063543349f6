"""A denoiser from one file, whoever wrote it: by diffusers' names or the original's, fp8 and GGUF too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from refusal_core.errors import FileError, ModelError
from refusal_core.io.shards import read_header
from refusal_core.models.families.family import Network
from refusal_core.models.inventory import build_on_meta, read_config
from refusal_core.models.parts import ADAPTER, FUSE, check_names, network_class
from refusal_core.models.quantised import FP8, SUFFIX, gguf_options, read_gguf, shape_of

PREFIX = re.compile(r"^(model\.)?diffusion_model\.")  # of files that hold a whole model
SCALES = ("scale_weight", "weight_scale")  # as ComfyUI and others call them
# Of the input, which is not rounded here; and marks that say there are scales.
UNUSED = ("scale_input", "input_scale", "comfy_quant", "scaled_fp8")


def expect_model(file: Path) -> None:
    """Refuse a single safetensors file for what it is: a LoRA, or one network of a pipeline.

    Raises:
        FileError: it is no sound safetensors file.
        ModelError: always otherwise.
    """
    if file.suffix != ".safetensors":
        raise ModelError(f"'{file.name}' is a single file; give its pipeline's folder instead.")
    if is_lora(read_header(file)):
        raise ModelError(f"'{file.name}' is a LoRA, no model; {FUSE}")
    raise ModelError(
        f"'{file.name}' holds one network; give its pipeline's folder or hub id as the model, and this file"
        " as --denoiser."
    )


def is_lora(names: Mapping[str, object]) -> bool:
    """Return whether a file's tensors are an adapter's."""
    return any(ADAPTER.search(name) for name in names)


def load_denoiser(file: Path, folder: Path, entry: object, attribute: str, dtype: torch.dtype) -> nn.Module:
    """Return the denoiser that a file holds, with the configuration of a pipeline's folder.

    Weights in fp8 are multiplied by their scales.

    Args:
        file: .safetensors, or .gguf.
        folder: of the pipeline.
        entry: of the denoiser in the pipeline's index.
        attribute: its place there.
        dtype: of the weights.

    Raises:
        FileError: it is no sound safetensors file.
        ModelError: it is a LoRA, half a file, another network, or quantised in a way that is not read.
    """
    gguf = file.suffix == SUFFIX
    if file.suffix not in (".safetensors", SUFFIX) or not file.is_file():
        raise FileError(f"'{file.name}' is no .safetensors or .gguf file; other formats are not read.")
    saved = read_gguf(file) if gguf else None
    if is_lora(saved if saved is not None else read_header(file)):
        raise ModelError(f"'{file.name}' is a LoRA, no denoiser; {FUSE}")
    kind: Any = network_class(entry)
    config = read_config(folder / attribute / "config.json")
    expected = build_on_meta(Network(attribute, kind.__name__, config)).state_dict()
    saved = load_file(file) if saved is None else saved
    plain = {PREFIX.sub("", name): tensor for name, tensor in saved.items()}
    tensors = _by_diffusers_names(_unscaled(plain, file.name, dtype), set(expected), kind, config)
    if not set(tensors) & set(expected):
        raise ModelError(f"'{file.name}' is no {kind.__name__}; give a file of this kind of model.")
    check_names(f"'{file.name}'", set(expected) - set(tensors), set(tensors) - set(expected))
    for name, tensor in expected.items():
        if (shape := shape_of(tensors[name])) != tensor.shape:
            sizes = f"{list(shape)}, the model's is {list(tensor.shape)}"
            raise ModelError(f"{name} of '{file.name}' is {sizes}; give a file of the same model size.")
    loaded: nn.Module = kind.from_single_file(
        {name: tensors[name] for name in expected},
        config=str(folder),
        subfolder=attribute,
        dtype=dtype,
        use_safetensors=True,
        **(gguf_options(dtype) if gguf else {}),
    )
    return loaded


def _by_diffusers_names(
    tensors: dict[str, Tensor], expected: Set[str], kind: type[Any], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return a file's tensors as they are or renamed from the original's names, whichever fits better."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES as known

    how: Any = next((known[base.__name__] for base in kind.__mro__ if base.__name__ in known), None)
    if how is None:
        raise ModelError(f"diffusers cannot load {kind.__name__} from one file; convert it to a folder.")
    try:
        renamed = how["checkpoint_mapping_fn"](checkpoint=dict(tensors), config=config)
    except (KeyError, ValueError, RuntimeError, IndexError):  # not by the original's names, or in part
        return tensors
    return min(tensors, renamed, key=lambda found: len(expected ^ set(found)))


def _unscaled(tensors: dict[str, Tensor], file: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return weights multiplied by the scales that lie beside them."""
    made = dict(tensors)
    for name, scale in tensors.items():
        head, _, last = name.rpartition(".")
        if last in UNUSED or name in UNUSED:
            del made[name]
        if last not in SCALES:
            continue
        weight = tensors.get(f"{head}.weight")
        if weight is None or weight.dtype not in FP8 or scale.numel() not in (1, len(weight)):
            raise ModelError(f"'{file}' is quantised in a way that is not read ({name}); give bf16 or fp8.")
        wide = scale.float().reshape(-1, *[1] * (weight.ndim - 1))
        made[f"{head}.weight"] = (weight.float() * wide).to(dtype)
        del made[name]
    return made
