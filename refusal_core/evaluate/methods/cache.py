"""Prepared treatments, in memory and on disk by the readings: made once, whatever stops or shares a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from refusal_core.edit import load_edit, save_edit
from refusal_core.errors import Cancelled, FileError, MemoryLimitError, RefusalError
from refusal_core.evaluate.measures.costs import Cost, measured_cost
from refusal_core.evaluate.measures.journal import Journal, Prepared
from refusal_core.evaluate.methods.treatments import EDIT, ORIGINAL, Planned, Treatment
from refusal_core.io.files import load_tensors, save_tensors
from refusal_core.progress import Progress, named

NO_MEMORY = "Out of memory while it was prepared; leave it out, or use a larger machine."
FOLDER = "prepared"
MAX_BYTES = 64 << 30  # the text layers of the largest models, fine-tuned


class TreatmentCache:
    """The treatments of a run, each prepared when its first video is to be made.

    ``before`` is called each time one is taken, so before any video is made.
    """

    def __init__(
        self, planned: Mapping[str, Planned], journal: Journal, before: Callable[[], object] | None = None
    ) -> None:
        self.planned, self._journal, self._before = planned, journal, before
        self._ready: dict[str, Treatment] = {}
        self._lacking: set[str] = set()  # memory; not in the journal, as the next run may have more

    @property
    def original(self) -> str | None:
        """The key of the unchanged model, None where it is not among the treatments."""
        plan = self.planned.get(ORIGINAL)
        return plan.key if plan else None

    def take(self, name: str, progress: Progress) -> Treatment | None:
        """Return a treatment, None where it cannot be had; why is in the journal."""
        plan = self.planned[name]
        known = self._journal.find_prepared(plan.key)
        if name in self._lacking or (known is not None and known.trouble):
            return None
        if self._before is not None:
            self._before()
        treatment = self._ready.get(plan.key) or _load(self._journal.folder, plan.key)
        if treatment is None:
            try:
                with measured_cost() as meter:
                    treatment = plan.prepare(named(progress, f"Preparing {name}"))
            except Cancelled:
                raise
            except (torch.OutOfMemoryError, MemoryError, MemoryLimitError):
                self._lacking.add(name)
                return None
            except RefusalError as e:
                self._journal.add_prepared(plan.key, Prepared(None, str(e)))
                return None
            if known is None:
                cost = Cost(meter.seconds, meter.megabytes, treatment.stored_bytes / 1024)
                self._journal.add_prepared(plan.key, Prepared(cost))
            _save(self._journal.folder, plan.key, treatment)
        self._ready[plan.key] = treatment
        return treatment

    def troubles(self) -> list[str]:
        """Return a sentence for each treatment that could not be prepared."""
        known = [f"{name}: {p.trouble}" for name, p in self._prepared().items() if p.trouble]
        return [*known, *(f"{name}: {NO_MEMORY}" for name in sorted(self._lacking))]

    def costs(self) -> dict[str, Cost]:
        """Return the cost of each treatment that was prepared."""
        return {name: p.cost for name, p in self._prepared().items() if p.cost is not None}

    def _prepared(self) -> dict[str, Prepared]:
        known = {name: self._journal.find_prepared(plan.key) for name, plan in self.planned.items()}
        return {name: prepared for name, prepared in known.items() if prepared is not None}


def _save(folder: Path | None, key: str, treatment: Treatment) -> None:
    """Keep an edit or weights under their key; what lies in neither, or finds no room, is prepared again."""
    if folder is None:
        return
    with suppress(FileError, OSError):
        path = _path(folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if treatment.edit is not None:
            save_edit(treatment.edit, path)
        elif treatment.weights is not None:
            save_tensors(path, treatment.weights, {"kind": "weights"})


def _load(folder: Path | None, key: str) -> Treatment | None:
    """Return what ``_save`` kept under a key; None where there is nothing sound."""
    if folder is None or not (path := _path(folder, key)).is_file():
        return None
    with suppress(FileError):
        if key.startswith(f"{EDIT}-"):
            return Treatment(edit=load_edit(path))
        return Treatment(weights=load_tensors(path, kind="weights", limit=MAX_BYTES)[0])
    return None


def _path(folder: Path, key: str) -> Path:
    return folder / FOLDER / f"{key}.safetensors"
