"""Sending an edit to the hub with a model card that says what it does, and what it does not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refusal_core.edit import Edit, load_edit
from refusal_core.errors import InputError, ModelError
from refusal_core.export.snippets import lora_lines
from refusal_core.io.reading import shown
from refusal_core.models.model import family_of

LIMITS = (
    "The edit removes a direction, not knowledge: other words, other languages, images or fine-tuning may"
    " bring the concept back. It is no guarantee; judge the model on your own prompts."
)


@dataclass(frozen=True, slots=True)
class Published:
    """What was sent, or would be."""

    address: str
    card: str
    files: tuple[str, ...]


def publish(
    edit: Path,
    repository: str,
    *,
    lora: Path | None = None,
    report: tuple[Path, str] | None = None,
    send: bool = False,
) -> Published:
    """Write a model card for an edit and, if asked, send both to the hub.

    The token comes from the environment (HF_TOKEN) or the hub's own login, never from an argument.

    Args:
        edit: an edit file.
        repository: owner/name.
        lora: an exported LoRA to send along, with that of a second denoiser beside it.
        report: a file to send along, and its figures as Markdown for the card.
        send: False: nothing leaves this machine.

    Raises:
        InputError: the repository has no valid name.
        FileError: a file cannot be read.
        ModelError: the hub refuses.
    """
    _check_name(repository)
    # Of a model with two denoisers the second's LoRA lies beside the first.
    loras = [p for p in (lora, lora.with_stem(f"{lora.stem}-2")) if p == lora or p.is_file()] if lora else []
    card = model_card(load_edit(edit), edit.name, [path.name for path in loras], report[1] if report else "")
    files = [edit, *loras, *(report[:1] if report else ())]
    address = publish_files(repository, card, files) if send else address_of(repository)
    return Published(address, card, ("README.md", *(path.name for path in files)))


def address_of(repository: str) -> str:
    """Return where a repository of the hub is seen."""
    return f"https://huggingface.co/{repository}"


def _check_name(repository: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", repository):
        raise InputError(f"'{repository[:80]}' is no name on the hub; write owner/name.")


def model_card(edit: Edit, file: str, loras: Sequence[str] = (), figures: str = "") -> str:
    """Return a model card: recipe, figures (Markdown) where there are any, use, limits.

    Raises:
        ModelError: LoRAs are sent along, and the edit's family is not known.
    """
    concepts = ", ".join(origin.concept for origin in edit.origins)
    model = f"{edit.model.pipeline} ({edit.model.family})"
    lines = ["---", "tags: [video, unlearning, refusal-vector]", "---", f"# Unlearned: {concepts}", ""]
    lines += [f"A closed-form edit of {model}, {len(edit.sites)} layers."]
    for origin in edit.origins:
        how = f"Method {origin.subspace.method}, rank {origin.subspace.rank}"
        lines += ["", f"## Recipe: {origin.concept}", ""]
        lines += [f"{how}, strength {origin.strength:g}, anchor {origin.anchor}.", ""]
        lines += ["| unsafe | safe |", "|---|---|"]
        lines += [f"| {_cell(unsafe)} | {_cell(safe)} |" for unsafe, safe in origin.pairs]
    lines += ["", "## Figures", "", figures or "None were measured.", "", "## Use", ""]
    lines += [f"`python -m refusal_core export --edit {file} --model … --out x.safetensors`"]
    if loras:
        lines += ["", "Exact for the weights it was made from:", "", "```python"]
        lines += [*lora_lines(family_of(edit.model.pipeline), loras), "```"]
    return "\n".join([*lines, "", "## Limits", "", LIMITS, ""])


def _cell(text: str) -> str:
    return shown(text).replace("|", "\\|").replace("<", "&lt;")


def publish_files(repository: str, card: str, files: list[Path], *, token: str | None = None) -> str:
    """Send a card and files to the hub and return the address.

    Args:
        repository: owner/name.
        card: text of its README.
        files: safetensors and JSON.
        token: of the person who sends; None: from the environment, or the hub's own login.

    Raises:
        InputError: the repository has no valid name.
        ModelError: the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    unreachable: Any = HfHubHTTPError.__bases__  # of the HTTP library in use, whichever that is
    _check_name(repository)
    api = HfApi(token=token)
    try:
        api.create_repo(repository, exist_ok=True)
        sent = [CommitOperationAdd("README.md", card.encode())]
        sent += [CommitOperationAdd(path.name, str(path)) for path in files]
        api.create_commit(repository, sent, commit_message="Add an unlearning edit")  # all of it or nothing
    except (HfHubHTTPError, ValueError) as e:
        raise ModelError(f"The hub refused '{repository}'; log in, or check the name and the rights.") from e
    except (OSError, *unreachable) as e:
        raise ModelError("The hub cannot be reached; check the network, then send again.") from e
    return address_of(repository)
