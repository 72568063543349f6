"""What the hub says of a model: configurations, sizes from headers, refusals. No weight is fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub import errors as hub

from refusal_core.errors import ModelError

# The weights of a pipeline's part, or one of their shards; not a variant such as model.fp16.safetensors.
WEIGHTS = re.compile(
    r"(?:pytorch_model|model|diffusion_pytorch_model)(?:-\d+-of-\d+)?\.(safetensors|bin)(?:\.index\.json)?"
)
SMALL = (".json", ".txt", ".model", ".spm", ".jinja")  # configurations and tokenizers
AT_ONCE = 8  # requests
NOT_HERE = (
    "cannot be loaded: not all of it is on this machine, and the hub cannot be reached; check the connection,"
    " HF_HUB_OFFLINE and HF_TOKEN, or give a folder."
)
NO_PIPELINE = (
    "is no video pipeline: it lacks model_index.json, or a file named there; give one that has both."
)
# What the hub said, told in this order: some of these are kinds of later ones.
_HUB: tuple[tuple[type[Exception], str], ...] = (
    (hub.GatedRepoError, "is gated; accept its licence on the hub, then set HF_TOKEN."),
    (hub.RepositoryNotFoundError, "is not on the hub, or private; check the name, or set HF_TOKEN."),
    (hub.RevisionNotFoundError, "has no such revision; give a branch, tag or commit listed on its hub page."),
    (hub.RemoteEntryNotFoundError, NO_PIPELINE),
    (hub.LocalEntryNotFoundError, NOT_HERE),
    (ConnectionError, NOT_HERE),
    (hub.HTTPError, NOT_HERE),
)


def published_parameters(repository: str, revision: str | None = None) -> dict[str, int]:
    """Return how many numbers each part of a pipeline holds, by its folder; nothing where it cannot be told.

    Of .bin files only the size is known: they are taken for float32, and may hold twice as many.

    Args:
        repository: ``owner/name``.
        revision: a tag or a commit.
    """
    api = HfApi()

    def numbers(file: str) -> int:
        if file.endswith(".bin"):
            return sizes[file] // 4
        header = api.parse_safetensors_file_metadata(repository, file, revision=revision)
        return sum(header.parameter_count.values())

    try:
        info = api.model_info(repository, revision=revision, timeout=10, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        files = [
            file
            for file in pipeline_files(list(sizes))
            if WEIGHTS.fullmatch(PurePosixPath(file).name) and not file.endswith(SMALL)
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            counts = list(pool.map(numbers, files))
    except (hub.HTTPError, hub.SafetensorsParsingError, hub.NotASafetensorsRepoError, OSError, ValueError):
        return {}
    numbers_of: dict[str, int] = {}
    for file, count in zip(files, counts, strict=True):
        folder = file.partition("/")[0]
        numbers_of[folder] = numbers_of.get(folder, 0) + count
    return numbers_of


def fetch_pipeline(repository: str, revision: str | None = None) -> Path:
    """Return the folder of a pipeline of the hub, its files fetched where they are not in the cache.

    Raises:
        OSError, ValueError, HTTPError: as the hub's own library does.
    """
    try:
        listed = HfApi().model_info(repository, revision=revision).siblings or []
    except (hub.OfflineModeIsEnabled, hub.HTTPError, ConnectionError):  # what is in the cache may suffice
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    files = pipeline_files([file.rfilename for file in listed])
    return Path(snapshot_download(repository, revision=revision, allow_patterns=files))


def pipeline_files(files: Sequence[str]) -> list[str]:
    """Return the files of a pipeline's parts: of each, its weights in one format, and all that is small.

    The format is safetensors, and where a part has none, .bin: ZeroScope's UNet and decoder.
    """
    parts = [PurePosixPath(file) for file in files if file.count("/") == 1]
    weights = {path: m[1] for path in parts if (m := WEIGHTS.fullmatch(path.name))}
    safe = {path.parent for path, form in weights.items() if form == "safetensors"}
    chosen = [p for p, form in weights.items() if form == "safetensors" or p.parent not in safe]
    chosen += [path for path in parts if path not in weights and path.suffix in SMALL]
    return ["model_index.json", *(str(path) for path in chosen)]


def fetch(repository: str, file: str, revision: str | None = None) -> Path:
    """Return a small file of a repository, from the cache where it is.

    Raises:
        ModelError: gated, missing or out of reach.
    """
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except (OSError, ValueError, hub.HTTPError) as e:
        why = why_not(e) or "cannot be read from the hub; check its name, and the disk."
        raise ModelError(f"'{repository}' {why}") from e


def why_not(error: BaseException) -> str | None:
    """Return what the hub said, hidden behind a loader's own error; None where it said nothing."""
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    return next((why for kind, why in _HUB if any(isinstance(e, kind) for e in chain)), None)
