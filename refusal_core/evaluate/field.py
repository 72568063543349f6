"""A batch of prompts under attack: each method, each attack, and what the journal lacks of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from refusal_core.concepts import Concept
from refusal_core.errors import FileError, InputError, ModelError
from refusal_core.evaluate.attacks.curves import FORWARDS, PLAIN
from refusal_core.evaluate.attacks.latents import with_clips
from refusal_core.evaluate.attacks.protocol import ATTACKS, LESSON_SEED, LESSONS, VERSION, Budget
from refusal_core.evaluate.attacks.task import Effort, Reached, Task, task_of
from refusal_core.evaluate.measures.journal import Measured, batch_key
from refusal_core.evaluate.methods.cache import TreatmentCache
from refusal_core.evaluate.setup import Setup
from refusal_core.evaluate.suites.items import Item
from refusal_core.io.files import load_tensors, save_tensors
from refusal_core.models.gradients import frozen
from refusal_core.models.model import Model
from refusal_core.progress import Progress, each, named, part
from refusal_core.sampling import generate_batch

KIND, FOLDER = "attack", "attacks"
MAX_BYTES = 4 << 30  # of what an attack goes on from


@dataclass(frozen=True, slots=True)
class Aim:
    """What the attacks on one concept share."""

    setup: Setup
    cache: TreatmentCache
    concept: Concept
    aspect: str
    attacks: tuple[str, ...]
    budget: Budget
    seed: int

    def checkpoints(self, attack: str) -> tuple[int, ...]:
        """Return how far an attack goes, and where it is judged."""
        return (0,) if attack == PLAIN else ATTACKS[attack].checkpoints(self.budget)


def _lessons(model: Model, prompts: Sequence[str]) -> list[Task]:
    """Return what the original does on some prompts, on noises that no suite has."""
    first = [LESSON_SEED + 100 * i for i in range(LESSONS)]
    return [task_of(model, prompts, range(seed, seed + len(prompts))) for seed in first]


class Field:
    """A batch of prompts; holds what the original does on them while it is needed."""

    def __init__(self, aim: Aim, items: Sequence[Item]) -> None:
        self._aim, self._items = aim, items
        self._prompts, self._seeds = [i.prompt for i in items], [i.seed for i in items]
        self._kept: dict[Path, Mapping[str, Tensor]] = {}
        self.troubles: list[str] = []

    def measured(self, method: str, attack: str, steps: int) -> Measured | None:
        """Return what the journal holds of an attack."""
        return self._aim.setup.journal.find(self._key(method, attack, steps))

    def _key(self, method: str, attack: str, steps: int) -> str:
        aim = self._aim
        marks = (f"protocol {VERSION}", attack, str(steps), f"seed {aim.seed}")
        return batch_key(
            aim.cache.planned[method].key, aim.setup.scoring.name, aim.aspect, self._items, marks
        )

    def attack(self, method: str, attack: str, progress: Progress) -> None:
        """Attack a method, and add what the journal lacks of it."""
        aim = self._aim
        missing = [s for s in aim.checkpoints(attack) if self.measured(method, attack, s) is None]
        told = named(progress, f"{method}, {attack if attack != PLAIN else 'no attack'}")
        if not missing or (treatment := aim.cache.take(method, told)) is None:
            return
        if not treatment.is_in_weights:
            self.troubles.append(f"{method}: not in the weights; whoever has the weights leaves it out.")
            return
        task = self._task  # before the weights are edited
        with frozen(task.model.denoisers[0]), treatment.context(task.model):
            for steps, inner in each(told, missing):
                try:
                    self._judge(method, attack, steps, inner)
                except (InputError, ModelError) as why:
                    self.troubles.append(f"{attack}: {why}")
                    return

    @cached_property
    def _task(self) -> Task:
        model, attacks = self._aim.setup.model, [ATTACKS[name] for name in self._aim.attacks]
        task = task_of(model, self._prompts, self._seeds)
        if any(attack.by_picture for attack in attacks):
            task = with_clips(task)
        wanted, concept = {attack.lessons for attack in attacks}, self._aim.concept
        if "unsafe" in wanted:
            task = replace(task, examples=_lessons(model, [pair.unsafe for pair in concept.pairs]))
        if "ordinary" in wanted:
            some = concept.neutral[: len(concept.pairs)] or tuple(pair.safe for pair in concept.pairs)
            task = replace(task, ordinary=_lessons(model, some))
        return task

    def _judge(self, method: str, attack: str, steps: int, progress: Progress) -> None:
        """Attack so many steps, make the videos, and keep what the judge saw."""
        task, saved = self._task, self._saved(method, attack, steps)
        started = time.perf_counter()
        if attack == PLAIN:
            reached = Reached(0.0, partial(generate_batch, task.model, task.prompts, task.seeds, cut=True))
        else:
            effort = Effort(steps, self._aim.seed, saved, part(progress, 0.0, 0.8))
            reached = ATTACKS[attack].attack(task, effort)
        seconds = time.perf_counter() - started
        if reached.saved is not None:
            seconds += float(saved["seconds"]) if saved else 0.0
            self._save(method, attack, steps, {**reached.saved, "seconds": torch.tensor([seconds])})
        verdicts = tuple(self._aim.setup.scoring.judge(reached.videos(), self._aim.aspect))
        forwards = (reached.forwards,) * len(verdicts)
        measured = Measured(verdicts, {FORWARDS: forwards}, 0.0 if attack == PLAIN else seconds)
        self._aim.setup.journal.add(self._key(method, attack, steps), measured)

    # --- what an attack goes on from ---------------------------------------------------------------

    def _path(self, method: str, attack: str, steps: int) -> Path:
        serves_all = attack != PLAIN and ATTACKS[attack].lessons != "none"
        what = [] if serves_all else [(i.prompt, i.seed) for i in self._items]
        whole = f"{self._aim.cache.planned[method].key} {VERSION} {attack} {self._aim.seed} {what}"
        folder = self._aim.setup.journal.folder or Path()
        return folder / FOLDER / f"{hashlib.sha256(whole.encode()).hexdigest()[:24]}-{steps}.safetensors"

    def _saved(self, method: str, attack: str, steps: int) -> Mapping[str, Tensor] | None:
        """Return what an earlier, shorter attack reached; the longest there is."""
        for shorter in reversed([s for s in self._aim.checkpoints(attack) if s <= steps]):
            path = self._path(method, attack, shorter)
            if path in self._kept:
                return self._kept[path]
            with suppress(FileError):
                if self._aim.setup.journal.folder is not None and path.is_file():
                    return load_tensors(path, kind=KIND, limit=MAX_BYTES)[0]
        return None

    def _save(self, method: str, attack: str, steps: int, found: Mapping[str, Tensor]) -> None:
        path = self._path(method, attack, steps)
        if self._aim.setup.journal.folder is None:
            self._kept[path] = found
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, found, {"kind": KIND})
