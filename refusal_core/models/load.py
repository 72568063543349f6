"""Loading a pipeline as a ``Model``: bundled, from a folder, or from the hub. No pickled code is run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import errors as hub
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from refusal_core.errors import FileError, InputError, MemoryLimitError, ModelError
from refusal_core.io.reading import bundled
from refusal_core.io.shards import Entry, expect_safetensors, main_dtype, read_index
from refusal_core.models.compiling import compile_parts
from refusal_core.models.discovery import describe_guess, guess_family
from refusal_core.models.families.family import DEFAULTS_FILE, Defaults
from refusal_core.models.hub_files import NO_PIPELINE, fetch_pipeline, published_parameters, why_not
from refusal_core.models.inventory import inventory, read_config
from refusal_core.models.load_settings import LoadSettings
from refusal_core.models.model import DENOISERS, Model, denoiser_places, family_of, wrap_pipeline
from refusal_core.models.packaged import packaged_parts
from refusal_core.models.parts import load_parts, network_class
from refusal_core.models.single_file import expect_model, load_denoiser
from refusal_core.progress import Progress, silent

# Decoders of frames that stay in float32, as diffusers' documentation has it for Wan and SkyReels V2.
PRECISE = ("AutoencoderKLWan",)
ASSETS = bundled("assets/models")
NO_ROOM = "does not fit into memory; try offloading or bfloat16."
CANNOT = (
    "cannot be loaded as a diffusers video pipeline; give toyworld, a folder with model_index.json and"
    " .safetensors files, or a hub id that this machine can reach."
)
_BROKEN = (
    OSError,
    ValueError,
    AttributeError,
    KeyError,
    TypeError,
    ImportError,
    NotImplementedError,  # weights that were not found hold no numbers
    SafetensorError,
    hub.HTTPError,
)


@dataclass(frozen=True, slots=True)
class Bundled:
    """A model that ships with the project."""

    folder: str
    title: str
    compiles: bool  # by blocks, see ``compile_parts``
    world: str = "toyworld"  # what its prompts speak of, and who judges that


BUNDLED: dict[str, Bundled] = {
    "toyworld": Bundled("toyworld-wan", "Toy world (bundled)", compiles=True),
    "toyworld-unet3d": Bundled("toyworld-unet3d", "Toy world on a UNet3D (bundled)", compiles=False),
    "toyworld-language": Bundled(
        "toyworld-language", "Toy world in free English (bundled)", compiles=True, world="language"
    ),
}


def bundled_models() -> tuple[str, ...]:
    """Return the names of the bundled models whose weights are here; others can be trained."""
    return tuple(name for name, bundled in BUNDLED.items() if (ASSETS / bundled.folder).is_dir())


def bundled_folder(source: str) -> str | None:
    """Return the folder of a bundled model, None for any other name."""
    return str(ASSETS / BUNDLED[source].folder) if source in BUNDLED else None


def world_of(source: str) -> str:
    """Return the world of a bundled model, ``toyworld`` for any other name."""
    return BUNDLED[source].world if source in BUNDLED else "toyworld"


def load_model(source: str, settings: LoadSettings | None = None, *, progress: Progress = silent) -> Model:
    """Load a model for editing. A token for gated models is taken from the environment (HF_TOKEN).

    Args:
        source: ``toyworld``, a diffusers folder, or a hub id.
        settings: device, dtype, offloading, revision, a single file for the denoiser, compilation.
        progress: told what is being loaded.

    Raises:
        InputError: offloading on a CPU, or nothing here to compile with.
        ModelError: the model is missing, gated, no supported pipeline, quantised, or not to be compiled.
        MemoryLimitError: it would not fit into memory.
    """
    import diffusers
    import transformers

    settings = settings or LoadSettings()
    diffusers.utils.logging.disable_progress_bar()  # ours tells what is being loaded
    transformers.utils.logging.disable_progress_bar()
    if settings.offload != "none" and settings.place == "cpu":
        raise InputError("Offloading moves weights between CPU and GPU; on a CPU alone leave it out.")
    bundled = BUNDLED.get(source)
    path = bundled_folder(source) or source
    progress(0.0, f"Loading {source}")
    config = _pipeline_config(path, settings.revision)
    kind = _class_in(config)
    known = _is_known(kind, settings)
    check_memory(path, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = _from_pretrained(path, source, settings, config)
    family = None if known else guess_family(pipeline)
    if family is not None and not (settings.accept_guess and settings.accept_guess(describe_guess(family))):
        raise ModelError(f"{kind} is not known, and the guess of its structure was not confirmed.")
    model = wrap_pipeline(_placed(pipeline, source, settings), source, family)
    defaults = read_defaults(Path(path)) or model.defaults
    model = replace(model, defaults=defaults, loading=settings)
    if settings.compiled:
        compile_parts(model.pipeline, model.denoisers, settings.place)
    if bundled:
        model = replace(model, title=bundled.title)
    progress(1.0, f"{source} is ready")
    return model


def _is_known(kind: str, settings: LoadSettings) -> bool:
    try:
        family_of(kind)
    except ModelError:
        if settings.accept_guess is None or not kind.endswith("Pipeline"):
            raise
        return False
    return True


def _pipeline_config(path: str, revision: str | None) -> dict[str, Any]:
    """Return a pipeline's model_index.json, before any weight is read.

    Raises:
        ModelError: missing, gated, out of reach, or no diffusers pipeline at all.
    """
    from diffusers import DiffusionPipeline

    if Path(path).is_file():
        expect_model(Path(path))
    folder = Path(path).resolve()
    if (folder / "config.json").exists() and not _has_index(folder):
        if _has_index(folder.parent):
            raise ModelError(f"'{folder.name}' holds one model, no pipeline; give the folder above it.")
        raise ModelError(f"'{folder.name}' {NO_PIPELINE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(DiffusionPipeline.load_config(path, revision=revision))
    except (OSError, ValueError, hub.HTTPError) as e:
        raise ModelError(f"'{path}' {_why(e, path)}") from e


def _class_in(config: Mapping[str, Any]) -> str:
    return str(config.get("_class_name", "an unknown class"))


def _why(error: BaseException, path: str) -> str:
    return CANNOT if Path(path).is_dir() else why_not(error) or CANNOT


def _has_index(folder: Path) -> bool:
    return (folder / "model_index.json").exists()


def _from_pretrained(path: str, source: str, settings: LoadSettings, config: Mapping[str, Any]) -> Any:
    import diffusers

    try:
        folder = Path(path) if Path(path).is_dir() else fetch_pipeline(path, settings.revision)
        expect_safetensors(folder)
        packaged = packaged_parts(folder, settings.weights)
        parts = dict.fromkeys(packaged) | _denoisers(folder, config, settings)
        parts |= load_parts(
            folder,
            config,
            _dtypes(folder, settings, config),
            denoiser_places(_class_in(config)),
            parts,
            settings.quantise,
        )
        kind = getattr(diffusers, _class_in(config), diffusers.DiffusionPipeline)
        pipeline: Any = kind.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, local_files_only=True, **parts
        )
        pipeline.register_modules(**packaged)  # diffusers warns of a text encoder of another class
        return pipeline
    except torch.OutOfMemoryError as e:
        raise MemoryLimitError(f"'{source}' {NO_ROOM}") from e
    except _BROKEN as e:
        raise ModelError(f"'{source}' {_why(e, path)}") from e


def _denoisers(folder: Path, config: Mapping[str, Any], settings: LoadSettings) -> dict[str, Any]:
    """Return the denoisers that come from single files, by their places."""
    files = [settings.denoiser, settings.denoiser_2]
    names = [
        name for name in denoiser_places(_class_in(config)) if network_class(config.get(name)) is not None
    ]
    if settings.denoiser_2 is not None and len(names) < 2:
        raise InputError("This model has one denoiser; leave --denoiser-2 out.")
    return {
        name: load_denoiser(Path(file), folder, config[name], name, settings.weights)
        for name, file in zip(names, files, strict=False)
        if file is not None
    }


def _dtypes(folder: Path, settings: LoadSettings, config: Mapping[str, Any]) -> dict[str, torch.dtype]:
    """Return the dtype of each part of a pipeline."""
    dtypes = {"default": settings.weights}
    for part, entry in config.items():
        if settings.dtype == "saved":
            dtypes[part] = main_dtype(_index(folder / part)) or settings.weights
        elif isinstance(entry, list) and any(name in entry for name in PRECISE):
            dtypes[part] = torch.float32
    return dtypes


def _index(folder: Path) -> dict[str, Entry]:
    """Return the tensors of a part by name; nothing of one without safetensors, or with several variants."""
    try:
        return read_index(folder)
    except FileError:
        return {}


def _placed(pipeline: Any, source: str, settings: LoadSettings) -> Any:
    try:
        return _moved(pipeline, settings)
    except torch.OutOfMemoryError as e:
        raise MemoryLimitError(f"'{source}' {NO_ROOM}") from e
    except NotImplementedError as e:  # of weights that were not found there is nothing to move
        raise ModelError(f"'{source}' {CANNOT}") from e


def _moved(pipeline: Any, settings: LoadSettings) -> Any:
    """Move a pipeline to its device, or set up the offloading asked for."""
    if settings.offload == "model":
        pipeline.enable_model_cpu_offload(device=settings.place)
    elif settings.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=settings.place)
    elif settings.offload == "group":
        pipeline.enable_group_offload(torch.device(settings.place), offload_type="leaf_level")
    else:
        pipeline.to(settings.place)
    return pipeline


def read_defaults(folder: Path) -> Defaults | None:
    """Return what a folder says its model generates by default; None where it says nothing.

    Raises:
        FileError: the file is there and not sound.
    """
    path = folder / DEFAULTS_FILE
    if not path.is_file():
        return None
    try:
        return TypeAdapter(Defaults).validate_python(read_config(path)["defaults"])
    except (ValidationError, KeyError) as e:
        raise FileError(
            f"{path.name} does not hold a model's defaults; delete it to use the family's."
        ) from e


# --- memory ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model takes to load, told before any weight is read."""

    title: str
    gigabytes: float | None  # of weights; None where it cannot be told
    dtype: str
    free: float  # GB where the weights would go


def describe_needs(source: str, settings: LoadSettings | None = None) -> Needs:
    """Return what a model would take. Raises as ``load_model`` does, before it reads weights."""
    settings = settings or LoadSettings()
    path = bundled_folder(source) or source
    family = family_of(_class_in(_pipeline_config(path, settings.revision)))
    needed = needed_bytes(path, settings)
    title = BUNDLED[source].title if source in BUNDLED else f"{source} ({family.title})"
    dtype = str(settings.weights).removeprefix("torch.")
    return Needs(title, None if needed is None else needed / 1e9, dtype, _free_bytes(settings) / 1e9)


def _free_bytes(settings: LoadSettings) -> int:
    import psutil

    if settings.place.startswith("cuda"):
        return torch.cuda.mem_get_info(settings.place)[0]
    return psutil.virtual_memory().available


def needed_bytes(path: str, settings: LoadSettings) -> int | None:
    """Return about how much memory the weights take on the device; None where it cannot be told.

    The headers of a folder's files tell, or of those on the hub; where the hub cannot be reached, only the
    denoisers of what is in the table are known. A decoder is taken for one in float32: it is small.
    """
    if Path(path).is_dir():
        parts = {folder.name: _numbers(folder) for folder in Path(path).iterdir() if folder.is_dir()}
    elif not (parts := published_parameters(path, settings.revision)):
        try:
            found = inventory(path)
        except ModelError:
            return None
        parts = {"largest": found.largest, "rest": found.parameters - found.largest}
    width = 2 if settings.dtype == "saved" else settings.weights.itemsize  # as nearly all are published
    small = () if settings.quantise == "none" else DENOISERS  # these in a byte each
    sizes = [n * (4 if name == "vae" else 1 if name in small else width) for name, n in parts.items()]
    return (max(sizes, default=0) if settings.offload == "model" else sum(sizes)) or None


def _numbers(folder: Path) -> int:
    if entries := _index(folder).values():
        return sum(torch.Size(entry.shape).numel() for entry in entries)
    return sum(path.stat().st_size for path in folder.glob("*model*.bin")) // 4  # float32, or smaller


def check_memory(path: str, settings: LoadSettings) -> None:
    """Raise MemoryLimitError where the weights cannot fit; sequential and group offload always try."""
    if settings.offload in ("sequential", "group"):
        return
    needed, free = needed_bytes(path, settings), _free_bytes(settings)
    on_gpu = settings.place.startswith("cuda")
    if needed is not None and needed > free:
        advice = "try --offload model, or sequential" if on_gpu else "try --dtype bfloat16, or a GPU"
        raise MemoryLimitError(
            f"'{path}' needs about {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free: {advice}."
        )
