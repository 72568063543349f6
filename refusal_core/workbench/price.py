"""What work on the workbench takes, counted from its arguments before it runs: for whoever asks for time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from refusal_core.capturing import capture_price
from refusal_core.recipe import EditRequest
from refusal_core.settings import SamplingSettings
from refusal_core.workbench.tiles import CellJob, TileJob
from refusal_core.workbench.workbench import Workbench

UNCOUNTED = ("estimate_everywhere", "evaluate")  # they read, or make, more than their arguments say


@dataclass(frozen=True, slots=True)
class WorkPrice:
    """Passes of the denoiser, each with one prompt."""

    reading: int  # for activations that are not there yet
    making: int  # steps of videos


def price_of(workbench: Workbench, work: Callable[..., Any], arguments: Sequence[Any]) -> WorkPrice | None:
    """Return what work with these arguments takes at most; None where they do not tell."""
    first, *rest = arguments or (None,)
    jobs = list(first) if isinstance(first, (list, tuple)) else [first]
    asked = [job.request if isinstance(job, (TileJob, CellJob)) else job for job in jobs]
    requests = [wanted for wanted in asked if isinstance(wanted, EditRequest)]
    if work.__name__ in UNCOUNTED or not requests or len(requests) < len(asked):
        return None
    model = workbench.cached(requests[0].model)
    recipes = [recipe for wanted in requests for recipe in (wanted.recipe, *wanted.further)]
    missing = {(r.concept, r.capture): r for r in recipes if model.ready_estimator(r) is None}
    reading = sum(capture_price(model.model, r.concept, r.capture).passes for r in missing.values())
    sampling = next((one for one in rest if isinstance(one, SamplingSettings)), SamplingSettings())
    return WorkPrice(reading, _videos(jobs, rest) * (sampling.steps or model.model.defaults.steps))


def _videos(jobs: Sequence[Any], rest: Sequence[Any]) -> int:
    """Return how many videos are made: the original and the unlearned one of each prompt, or of each cell."""
    if isinstance(jobs[0], TileJob):
        return 2 * len(jobs)
    if isinstance(jobs[0], CellJob):
        return 1 + len(rest[0])
    if rest and isinstance(rest[0], (list, tuple)):  # prompts of a pack
        return 2 * len(rest[0])
    return 2 * any(isinstance(one, SamplingSettings) for one in rest)
