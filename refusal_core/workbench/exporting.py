"""Everything that can be taken away: edit file, LoRA, weights, snippet, model card, the hub."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from refusal_core.edit import save_edit
from refusal_core.errors import InputError
from refusal_core.export.hub import model_card, publish_files
from refusal_core.export.lora import export_lora, export_weights
from refusal_core.export.snippets import edit_snippet
from refusal_core.progress import Progress, silent
from refusal_core.recipe import EditRequest
from refusal_core.workbench.workbench import Workbench, name_of

FORMS = ("edit", "lora", "comfyui", "weights")


@dataclass(frozen=True, slots=True)
class Exported:
    """Files of this session, the lines that use them, and a model card."""

    paths: tuple[Path, ...]
    snippet: str
    card: str


def export(
    workbench: Workbench, request: EditRequest, form: str, progress: Progress = silent, *, session: str
) -> Exported:
    """Write an edit in one form into the session's folder.

    Raises:
        InputError: the form is not known.
        ModelError: the model's family has no such form; the sentence says what to choose.
    """
    if form not in FORMS:
        raise InputError(f"Form '{form[:40]}' is not known; choose one of {', '.join(FORMS)}.")
    made, _ = workbench.make(request, progress, held_out=True)
    model = workbench.cached(request.model).model
    name = name_of(made)
    folder = workbench.session_folder(session) / uuid.uuid4().hex
    folder.mkdir()
    edit = save_edit(made, folder / f"{name}.safetensors")
    if form == "edit":
        return Exported((edit,), edit_snippet(model, edit.name), model_card(made, edit.name))
    if form == "weights":
        written = export_weights(made, model, folder / f"{name}-weights")
        packed = shutil.make_archive(str(written.paths[0]), "zip", folder, written.paths[0].name)
        shutil.rmtree(written.paths[0])
        return Exported((Path(packed),), written.snippet, model_card(made, edit.name))
    file = folder / f"{name}-{form}.safetensors"
    written = export_lora(made, model, file, naming="diffusers" if form == "lora" else "comfyui")
    loras = [path.name for path in written.paths] if form == "lora" else []
    return Exported(written.paths, written.snippet, model_card(made, edit.name, loras))


def push(
    workbench: Workbench,
    request: EditRequest,
    repository: str,
    token: str | None,
    progress: Progress = silent,
    *,
    session: str,
) -> str:
    """Send the edit and its card to the hub under the user's own login; return the address.

    Raises:
        InputError: there is no login, or no valid name.
        ModelError: the hub refuses.
    """
    if not token:
        raise InputError("Log in to the hub first; an edit is only sent under your own name.")
    exported = export(workbench, request, "edit", progress, session=session)
    return publish_files(repository, exported.card, list(exported.paths), token=token)
