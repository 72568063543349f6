"""Exporting an edit: an exact LoRA, or a baked diffusers folder, each with its recipe and a snippet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from refusal_core.apply import applied, check_fits
from refusal_core.edit import Edit, resolved
from refusal_core.errors import InputError, ModelError
from refusal_core.fold import lora_factors
from refusal_core.io.files import new_folder, save_tensors, write_json
from refusal_core.models.families.family import DEFAULTS_FILE, Family, Stacked
from refusal_core.models.load import bundled_folder
from refusal_core.models.model import Model
from refusal_core.models.sites import Site
from refusal_core.models.slots import slot_of

Naming = Literal["diffusers", "comfyui"]
NAMINGS: tuple[Naming, ...] = ("diffusers", "comfyui")


@dataclass(frozen=True, slots=True)
class Export:
    """What was written, and the lines of Python that use it."""

    paths: tuple[Path, ...]
    snippet: str


def export_lora(edit: Edit, model: Model, path: Path, *, naming: Naming = "diffusers") -> Export:
    """Write the edit as a LoRA that gives exactly W~ = W + B A (``fold.lora_factors``).

    B holds W U, so the LoRA is exact for these weights alone; an edit file is what carries over to a
    finetune. Every module gets the same rank, padded with zero rows, as older loaders scale by it.

    Args:
        edit: made for this model.
        model: gives the weights.
        path: ``.safetensors``; a model of two experts gets two files, ``-2`` in the second's name.
        naming: ``diffusers`` for ``load_lora_weights``, ``comfyui`` for ComfyUI's loader.

    Raises:
        InputError: the edit moves a bias, which no LoRA carries.
        ModelError: the edit was made for another model, nothing loads a LoRA into this family, or no such
            naming is known for it.
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
        factors = _factors(edit, model, prefix)
        if not factors:
            continue
        target = path if number == 0 else path.with_stem(f"{path.stem}-{number + 1}")
        tensors = _named(factors, model, prefix, naming)
        paths.append(save_tensors(target, tensors, {"kind": "lora", **recipe_of(edit)}))
    return Export(tuple(paths), lora_snippet(model, paths, naming))


def _factors(edit: Edit, model: Model, prefix: str) -> dict[Site, tuple[Tensor, Tensor]]:
    """Return A [m, H] and B [O, m] of each site of one denoiser."""
    factors = {}
    for site, change in edit.sites.items():
        if not site.name.startswith(f"{prefix}."):
            continue
        if change.level is not None:
            raise InputError("The edit moves a bias, which no LoRA carries; make it with anchor zero.")
        clean = resolved(change, edit.origins, site.name)
        weight = slot_of(model.layers[site.name], site.name, "weight").get()
        factors[site] = lora_factors(weight, clean.remove, clean.detect, clean.strength)
    return factors


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


def lora_snippet(model: Model, paths: list[Path], naming: Naming) -> str:
    """Return the Python lines that load the exported files."""
    if naming == "comfyui":
        return "Put " + " and ".join(p.name for p in paths) + " into ComfyUI/models/loras; strength 1.0."
    revision = f', revision="{model.revision}"' if model.revision else ""
    kind = model.fingerprint.pipeline
    lines = [
        "import diffusers",
        "",
        f'pipe = diffusers.{kind}.from_pretrained("{_source(model)}"{revision})',
    ]
    return "\n".join(lines + lora_lines(model.family, [path.name for path in paths]))


def lora_lines(family: Family, files: Sequence[str]) -> list[str]:
    """Return the Python lines that put exported LoRAs into a pipeline ``pipe``, one file a denoiser."""
    if family.lora == "model":
        return [
            "from safetensors.torch import load_file",
            "",
            f'lora = load_file("{files[0]}")',
            f'pipe.{family.denoisers[0]}.load_lora_adapter(lora, adapter_name="unlearned")',
        ]
    second = ("", ", load_into_transformer_2=True")
    return [
        f'pipe.load_lora_weights("{file}", adapter_name="unlearned{number or ""}"{second[number]})'
        for number, file in enumerate(files)
    ]


def _source(model: Model) -> str:
    bundled = bundled_folder(model.name)
    if bundled is not None:
        return f"assets/models/{Path(bundled).name}"
    return Path(model.name).name if Path(model.name).exists() else model.name


def export_weights(edit: Edit, model: Model, folder: Path) -> Export:
    """Write the whole edited pipeline as a diffusers folder, with its recipe; all of it or nothing.

    Raises:
        FileError: the folder exists, or cannot be written.
        ModelError: the edit was made for another model, an adapter is loaded, or the weights are offloaded
            one by one.
    """
    folder = Path(folder)
    _refuse_adapters(model)
    if any(p.is_meta for denoiser in model.denoisers for p in denoiser.parameters()):
        raise ModelError("Weights that are offloaded one by one cannot be written; use bake on the folder.")
    with new_folder(folder) as temporary:
        with applied(model, edit):
            model.pipeline.save_pretrained(temporary, safe_serialization=True)
        write_recipe(edit, temporary)
        write_json(temporary / DEFAULTS_FILE, {"defaults": asdict(model.defaults)})
    kind = model.fingerprint.pipeline
    snippet = f'import diffusers\n\npipe = diffusers.{kind}.from_pretrained("{folder.name}")'
    return Export((folder,), snippet)


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
