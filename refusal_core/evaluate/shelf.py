"""The treatments of a run, each prepared when it is first needed, with what that cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from refusal_core.errors import Cancelled, MemoryLimitError, RefusalError
from refusal_core.evaluate.measures.costs import Cost, measured_cost
from refusal_core.evaluate.measures.journal import Journal, Prepared
from refusal_core.evaluate.methods.store import store, stored
from refusal_core.evaluate.methods.treatments import ORIGINAL, Planned, Treatment
from refusal_core.progress import Progress, named

NO_MEMORY = "Out of memory while it was prepared; leave it out, or use a larger machine."


class Shelf:
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
        before = self._journal.find_prepared(plan.key)
        if name in self._lacking or (before is not None and before.trouble):
            return None
        if self._before is not None:
            self._before()
        if plan.key not in self._ready and (kept := self._stored(plan.key)) is not None:
            self._ready[plan.key] = kept
        if plan.key not in self._ready:
            try:
                with measured_cost() as meter:
                    made = plan.prepare(named(progress, f"Preparing {name}"))
            except Cancelled:
                raise
            except (torch.OutOfMemoryError, MemoryError, MemoryLimitError):
                self._lacking.add(name)
                return None
            except RefusalError as e:
                self._journal.add_prepared(plan.key, Prepared(None, str(e)))
                return None
            self._ready[plan.key] = made
            if before is None:
                cost = Cost(meter.seconds, meter.megabytes, made.stored_bytes / 1024)
                self._journal.add_prepared(plan.key, Prepared(cost))
            if self._journal.folder is not None:
                store(self._journal.folder, plan.key, made)
        return self._ready[plan.key]

    def _stored(self, key: str) -> Treatment | None:
        return stored(self._journal.folder, key) if self._journal.folder is not None else None

    def troubles(self) -> list[str]:
        """Return a sentence for each treatment that could not be prepared."""
        found = {name: self._journal.find_prepared(plan.key) for name, plan in self.planned.items()}
        known = [f"{name}: {p.trouble}" for name, p in found.items() if p is not None and p.trouble]
        return [*known, *(f"{name}: {NO_MEMORY}" for name in sorted(self._lacking))]

    def costs(self) -> dict[str, Cost]:
        """Return the cost of each treatment that was prepared."""
        found = {name: self._journal.find_prepared(plan.key) for name, plan in self.planned.items()}
        return {name: p.cost for name, p in found.items() if p is not None and p.cost is not None}
