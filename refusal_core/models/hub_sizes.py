"""How large a model on the hub is, from the headers of its files: no weight is fetched."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from huggingface_hub import HfApi
from huggingface_hub import errors as hub

# A file of a pipeline's part, or one of its shards; not a variant such as model.fp16.safetensors.
PART = re.compile(r"([^/]+)/(?:model|diffusion_pytorch_model)(?:-\d+-of-\d+)?\.safetensors")
AT_ONCE = 8  # requests


def published_parameters(repository: str, revision: str | None = None) -> dict[str, int]:
    """Return how many numbers each part of a pipeline holds, by its folder; nothing where it cannot be told.

    Args:
        repository: ``owner/name``.
        revision: a tag or a commit.
    """
    api = HfApi()

    def numbers(file: str) -> int:
        header = api.parse_safetensors_file_metadata(repository, file, revision=revision)
        return sum(header.parameter_count.values())

    try:
        files = api.model_info(repository, revision=revision, timeout=10).siblings or []
        parts = [(m[1], m[0]) for f in files if (m := PART.fullmatch(f.rfilename))]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            counts = list(pool.map(numbers, [file for _, file in parts]))
    except (hub.HTTPError, hub.SafetensorsParsingError, hub.NotASafetensorsRepoError, OSError, ValueError):
        return {}
    found: dict[str, int] = {}
    for (folder, _), count in zip(parts, counts, strict=True):
        found[folder] = found.get(folder, 0) + count
    return found
