"""Exporting an edit: an exact LoRA, or a baked diffusers folder, each with its recipe and a snippet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn

from refusal_core.apply import applied, check_fits
from refusal_core.edit import Edit, resolved
from refusal_core.errors import FileError, InputError, ModelError
from refusal_core.export.snippets import comfyui_snippet, lora_snippet, weights_snippet
from refusal_core.fold import lora_factors
from refusal_core.io.files import new_folder, save_tensors, write_json
from refusal_core.io.shards import Entry, read_header, read_index
from refusal_core.models.families.family import DEFAULTS_FILE, Stacked
from refusal_core.models.model import Model
from refusal_core.models.quantised import kind_of
from refusal_core.models.sites import Site
from refusal_core.models.slots import slot_of

Naming = Literal["diffusers", "comfyui"]
NAMINGS: tuple[Naming, ...] = ("diffusers", "comfyui")


@dataclass(frozen=True, slots=True)
class Export:
    """What was written, the lines of Python that use it, and how many layers it was found to change."""

    paths: tuple[Path, ...]
    snippet: str
    edited: int


def export_lora(
    edit: Edit, model: Model, path: Path, *, naming: Naming = "diffusers", checkpoint: Path | None = None
) -> Export:
    """Write the edit as a LoRA that gives exactly W~ = W + B A (``fold.lora_factors``).

    B holds W U, so the LoRA is exact for these weights alone; an edit file is what carries over to a
    finetune. Every module gets the same rank, padded with zero rows, as older loaders scale by it.

    Args:
        edit: made for this model.
        model: gives the weights.
        path: ``.safetensors``; a model of two experts gets two files, ``-2`` in the second's name.
        naming: ``diffusers`` for ``load_lora_weights``, ``comfyui`` for ComfyUI's loader.
        checkpoint: a diffusers folder to read the weights from, one by one, in place of the model's: that of
            full precision where the model is quantised.

    Raises:
        InputError: the edit moves a bias, which no LoRA carries.
        ModelError: the edit was made for another model, nothing loads a LoRA into this family, or no such
            naming is known for it, or it is quantised and no checkpoint was given.
        FileError: the checkpoint lacks a layer, or has it in another shape.
    """
    family = model.family
    check_fits(edit, model)
    if naming not in NAMINGS:
        raise InputError(f"Naming '{naming}' is not known; choose one of {', '.join(NAMINGS)}.")
    if family.lora is None:
        raise ModelError(f"diffusers loads no LoRA into {family.title}; export baked weights instead.")
    if naming == "comfyui" and not family.comfyui:
        raise ModelError(f"ComfyUI's names for {family.title} are not known; export for diffusers.")
    paths = []
    for number, prefix in enumerate(model.denoiser_names):
        factors = _factors(edit, model, prefix, checkpoint)
        if not factors:
            continue
        target = path if number == 0 else path.with_stem(f"{path.stem}-{number + 1}")
        tensors = _named(factors, model, prefix, naming)
        paths.append(save_tensors(target, tensors, {"kind": "lora", **recipe_of(edit)}))
    files = [path.name for path in paths]
    use = comfyui_snippet(files) if naming == "comfyui" else lora_snippet(model, files)
    return Export(tuple(paths), use, sum(len(read_header(path)) // 2 for path in paths))


def _factors(
    edit: Edit, model: Model, prefix: str, checkpoint: Path | None
) -> dict[Site, tuple[Tensor, Tensor]]:
    """Return A [m, H] and B [O, m] of each site of one denoiser."""
    index = None if checkpoint is None else read_index(checkpoint / prefix)
    factors = {}
    for site, change in edit.sites.items():
        if not site.name.startswith(f"{prefix}."):
            continue
        if change.level is not None:
            raise InputError("The edit moves a bias, which no LoRA carries; make it with anchor zero.")
        clean = resolved(change, edit.origins, site.name)
        weight = _held(model, site) if index is None else _saved(index, site, prefix)
        factors[site] = lora_factors(weight, clean.remove, clean.detect, clean.strength)
    return factors


def _held(model: Model, site: Site) -> Tensor:
    if kind := kind_of(model.layers[site.name]):
        raise ModelError(
            f"The model is quantised ({kind}), and a LoRA is for whole weights: give their folder as"
            " --checkpoint."
        )
    weight: Tensor = slot_of(model.layers[site.name], site.name, "weight").get()
    return weight


def _saved(index: Mapping[str, Entry], site: Site, prefix: str) -> Tensor:
    name = f"{site.name.removeprefix(f'{prefix}.')}.weight"
    entry = index.get(name)
    if entry is None or tuple(entry.shape) != (site.outputs, site.inputs):
        raise FileError(f"The checkpoint has no {name} of the edit's shape; give the model's own.")
    with safe_open(entry.path, framework="pt") as file:
        weight: Tensor = file.get_tensor(name)
    if not weight.is_floating_point() or weight.dtype.itemsize < 2:
        raise FileError(f"{name} of the checkpoint is {weight.dtype}; give one of full precision.")
    return weight


def _named(
    factors: Mapping[Site, tuple[Tensor, Tensor]], model: Model, prefix: str, naming: Naming
) -> dict[str, Tensor]:
    # diffusers wants the prefix of the first expert in the files of both.
    outer = "diffusion_model" if naming == "comfyui" else model.denoiser_names[0]
    layers: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for site, (a, b) in factors.items():
        inner = site.name.removeprefix(f"{prefix}.")
        if naming == "comfyui":
            inner, b = _in_comfyui(inner, b, site.inputs, model)
        layers.setdefault(inner, []).append((a, b))
    # Parts of one layer side by side: the sum of their products is the product of the joined factors.
    joined = {
        name: (torch.cat([a for a, _ in parts], 0), torch.cat([b for _, b in parts], 1))
        for name, parts in layers.items()
    }
    rank = max(len(a) for a, _ in joined.values())  # loaders scale every layer by one rank
    tensors = {}
    for name, (a, b) in joined.items():
        tensors[f"{outer}.{name}.lora_A.weight"] = _pad(a, rank, 0)
        tensors[f"{outer}.{name}.lora_B.weight"] = _pad(b, rank, 1)
    return tensors


def _pad(factor: Tensor, rank: int, axis: int) -> Tensor:
    shape = list(factor.shape)
    shape[axis] = rank - shape[axis]
    return torch.cat([factor, factor.new_zeros(shape)], axis)


def _in_comfyui(name: str, b: Tensor, inputs: int, model: Model) -> tuple[str, Tensor]:
    """Return a layer's name in ComfyUI and B with the rows of what is stacked with it there."""
    for pattern, target in model.family.comfyui.items():
        if re.fullmatch(pattern, name):
            layer = target if isinstance(target, Stacked) else Stacked(target)
            rows = (0, 0, layer.before * inputs, layer.after * inputs)
            return re.sub(pattern, layer.name, name), torch.nn.functional.pad(b, rows)
    raise ModelError(f"{name} has no name in ComfyUI that is known here; leave its kind of site out.")


def recipe_of(edit: Edit) -> dict[str, Any]:
    """Return the recipe of an edit as plain data."""
    return {
        "schema": 1,
        "model": asdict(edit.model),
        "origins": [asdict(origin) for origin in edit.origins],
        "sites": [site.name for site in edit.sites],
    }


def export_weights(edit: Edit, model: Model, folder: Path) -> Export:
    """Write the whole edited pipeline as a diffusers folder, with its recipe; all of it or nothing.

    Raises:
        FileError: the folder exists, or cannot be written.
        ModelError: the edit was made for another model, an adapter is loaded, or the weights are offloaded
            one by one.
    """
    folder = Path(folder)
    _refuse_adapters(model)
    for layer in model.layers.values():
        if kind := kind_of(layer):
            raise ModelError(
                f"The model is quantised ({kind}): bake the edit into the folder of full precision instead."
            )
    if any(p.is_meta for denoiser in model.denoisers for p in denoiser.parameters()):
        raise ModelError("Weights that are offloaded one by one cannot be written; use bake on the folder.")
    with new_folder(folder) as temporary:
        with applied(model, edit):
            model.pipeline.save_pretrained(temporary, safe_serialization=True)
            edited = _check_written(temporary, model, edit)
        write_recipe(edit, temporary)
        write_json(temporary / DEFAULTS_FILE, {"defaults": asdict(model.defaults)})
    return Export((folder,), weights_snippet(model, folder.name), edited)


def _check_written(folder: Path, model: Model, edit: Edit) -> int:
    """Read the edited weights again; return how many there are.

    Raises:
        FileError: one is missing, or is not what the edited model has.
    """
    indexes = {prefix: read_index(folder / prefix) for prefix in model.denoiser_names}
    for site in edit.sites:
        prefix, _, inner = site.name.partition(".")
        entry = indexes[prefix].get(f"{inner}.weight")
        held = slot_of(model.layers[site.name], site.name, "weight").get()
        if entry is None:
            raise FileError(f"{site.name} was not written; export the edit as a LoRA, or bake it.")
        with safe_open(entry.path, framework="pt") as file:
            if not torch.equal(file.get_tensor(f"{inner}.weight"), held.cpu()):
                raise FileError(f"{site.name} was not written soundly; check the disk.")
    return len(edit.sites)


def _refuse_adapters(model: Model) -> None:
    # PEFT renames the weights below an adapter (to_k.base_layer.weight): no loader finds them again.
    for name, part in model.pipeline.components.items():
        if isinstance(part, nn.Module) and any(hasattr(m, "base_layer") for m in part.modules()):
            raise ModelError(
                f"An adapter is loaded into {name}; unload it (after fuse_lora, to keep what it does), or"
                " export the edit as a LoRA."
            )


def write_recipe(edit: Edit, folder: Path) -> None:
    """Write ``unlearning.json``, the recipe of what is missing from these weights."""
    write_json(folder / "unlearning.json", recipe_of(edit))
