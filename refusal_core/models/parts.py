"""The networks of a pipeline's folder, loaded one by one: what a loader lacks or leaves over is told.

diffusers and transformers only warn of either, and go on with random numbers or with scales left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refusal_core.errors import ModelError
from refusal_core.models.load_settings import Quantise
from refusal_core.models.quantised import quantise_options, store_in_fp8

logger = logging.getLogger(__name__)
SHOWN = 3  # names in a sentence
# What adapters and quantised weights keep beside their layers: without it the layers are others.
MEANT = re.compile(
    r"\.(lora_|hada_|lokr_|base_layer\.)|\.(weight_scale|input_scale|scale_weight|scale_input)(_\d)?$"
    r"|\.(absmax|quant_map|quant_state|qzeros|scales|comfy_quant|SCB)\b|scaled_fp8$"
)
# Tables that a network computes by itself; older versions wrote them into its file.
COMPUTED = re.compile(r"(^|\.)(pos_embed\w*|position_ids|pe|inv_freq|\w*freqs\w*)$")
ADAPTER = re.compile(r"\.(lora_\w+|hada_\w+|lokr_\w+)(\.|$)|\.alpha$")
FUSE = "fuse it into its base (load_lora_weights, fuse_lora, save_pretrained) and give that folder."


def network_class(entry: object) -> type[Any] | None:
    """Return the class that a pipeline's index names for a part; None where that is no network."""
    import diffusers
    import transformers

    if not (isinstance(entry, (list, tuple)) and len(entry) == 2 and all(isinstance(x, str) for x in entry)):
        return None
    libraries: dict[str, Any] = {"diffusers": diffusers, "transformers": transformers}
    # A class that no other pipeline has stands beside its pipeline, as LTX-2's connectors do.
    library = libraries.get(entry[0]) or getattr(diffusers.pipelines, entry[0], None)
    kind = getattr(library, entry[1], None)
    known = (diffusers.ModelMixin, transformers.PreTrainedModel)
    return kind if isinstance(kind, type) and issubclass(kind, known) else None


def load_parts(
    folder: Path,
    index: Mapping[str, Any],
    dtypes: Mapping[str, torch.dtype],
    denoisers: Collection[str],
    without: Collection[str],
    quantise: Quantise = "none",
) -> dict[str, nn.Module]:
    """Return the networks of a pipeline's folder by their places.

    A part that has safetensors is read from them, another from .bin files, in which both libraries let
    nothing but numbers be.

    Args:
        folder: of the pipeline.
        index: its model_index.json.
        dtypes: by place, and ``default``.
        denoisers: places in which nothing may be left over but tables.
        without: places that are filled already.
        quantise: how the denoisers are, while they load.

    Raises:
        ModelError: something is missing, or left over that would change what the network computes.
    """
    parts: dict[str, nn.Module] = {}
    for name, entry in index.items():
        kind, home = network_class(entry), folder / name
        if kind is None or name in without or not home.is_dir():
            continue
        if (home / "adapter_config.json").exists():  # transformers would put it in, diffusers not
            raise ModelError(f"{name} has an adapter beside its weights; {FUSE}")
        dtype, how = dtypes.get(name, dtypes["default"]), quantise if name in denoisers else "none"
        loaded, report = _load(kind, home, {"dtype": dtype, **quantise_options(how)})
        left = set(report["unexpected_keys"])
        check_names(name, set(report["missing_keys"]), left if name in denoisers else _meant(left))
        if how == "fp8":
            store_in_fp8(loaded, dtype)
        parts[name] = loaded
    return parts


def _load(kind: Any, home: Path, how: Mapping[str, Any]) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return a part and its loader's report on names."""
    options = {**how, "output_loading_info": True, "local_files_only": True}
    if any(home.glob("*.safetensors")):
        loaded: tuple[nn.Module, Mapping[str, Any]] = kind.from_pretrained(
            home, use_safetensors=True, **options
        )
        return loaded
    try:
        # Both libraries read .bin files with weights_only=True: whatever is no number is refused.
        loaded = kind.from_pretrained(home, use_safetensors=False, **options)
    except (torch.OutOfMemoryError, OSError):
        raise
    except Exception as e:  # unpickling fails in ways of its own
        raise ModelError(
            f"{home.name} has .bin files that are damaged or hold more than numbers; get safetensors."
        ) from e
    return loaded


def _meant(names: Collection[str]) -> set[str]:
    """Return the names that change what a network computes: of a text encoder its head may be left over."""
    if other := sorted(name for name in names if not MEANT.search(name)):
        logger.info("not used: %s", _some(other))
    return {name for name in names if MEANT.search(name)}


def check_names(place: str, missing: Collection[str], left: Collection[str]) -> None:
    """Raise ModelError, in a sentence that names the cause, where weights are missing or left over."""
    left = {name for name in left if not COMPUTED.search(name)}
    if any(ADAPTER.search(name) for name in left):
        raise ModelError(f"{place} holds a LoRA ({_some(left)}), no whole model; {FUSE}")
    if missing:
        raise ModelError(f"{place} lacks {_some(missing)}; get the whole model.")
    if left:
        raise ModelError(
            f"{place} holds {_some(left)}, which its class does not use; get weights without, or ones that"
            " diffusers reads."
        )


def _some(names: Collection[str]) -> str:
    """Return the first of some names, and how many more there are."""
    shown = ", ".join(name[:80] for name in sorted(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
