"""What an estimate costs at the widths and row counts of real models, on random rows, in ratios.

The yardstick is the least that an estimate from second moments can do: one float32 Gram matrix of all
rows and its Cholesky factor, timed in the same process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from refusal_core.activations import Activations, Samples
from refusal_core.directions import Estimator
from refusal_core.models.model import Fingerprint
from refusal_core.models.sites import Site
from refusal_core.settings import CaptureSettings, Method, SubspaceSettings

PAIRS, TWINS, NEUTRAL = 5, 630, 6000  # token rows of five pairs, and of ordinary prompts
METHODS: tuple[Method, ...] = ("rv", "cpca", "whitened")
ROUNDS = 3
_CHILD = "import sys; from refusal_core.evaluate.estimate_sizes import child; child(*sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class EstimateCost:
    """One method at one width: seconds of a site with held-out figures, and those of the yardstick."""

    method: str
    width: int
    rows: int
    seconds: float
    floor: float
    peak: float  # bytes of the process, torch and the rows included

    @property
    def ratio(self) -> float:
        """How many yardsticks."""
        return self.seconds / self.floor


def estimate_costs(width: int, rounds: int = ROUNDS) -> list[EstimateCost]:
    """Measure each method in a process of its own, so that its peak memory is its own.

    Args:
        width: H.
        rounds: the median counts.
    """
    costs = []
    for method in METHODS:
        command = [sys.executable, "-c", _CHILD, str(width), method, str(rounds)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        costs.append(EstimateCost(**json.loads(run.stdout.splitlines()[-1])))
    return costs


def random_site(width: int) -> Activations:
    """Return one site of random rows whose variances fall as 1 / i, with a concept in the pairs."""
    draw = torch.Generator().manual_seed(0)
    sizes = torch.arange(1, width + 1).rsqrt()
    safe = torch.randn(TWINS, width, generator=draw) * sizes
    concept = torch.randn(width, generator=draw) * sizes
    unsafe = safe + concept + 0.3 * torch.randn(TWINS, width, generator=draw) * sizes
    ordinary = torch.randn(NEUTRAL, width, generator=draw) * sizes
    rows = Samples(unsafe, safe, ordinary, torch.arange(TWINS) % PAIRS, False)
    site = Site("transformer.blocks.0.attn2.to_k", 0, "text", width, width, True)
    pairs = tuple((f"unsafe {i}", f"safe {i}") for i in range(PAIRS))
    model = Fingerprint("wan", "WanPipeline", "random", "random")
    return Activations(model, "random", pairs, CaptureSettings(), {site: rows})


def _floor(rows: Tensor) -> Tensor:
    gram = rows.T @ rows
    gram.diagonal().add_(gram.trace() / len(gram))
    return torch.linalg.cholesky(gram, out=gram)


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_memory() -> int:
    """Return the most bytes that this process alone has held: getrusage would count its parent's too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(width: int, method: Method, rounds: int) -> EstimateCost:
    """Measure one method in this process; its peak memory is read before the yardstick is timed.

    Args:
        width: H.
        method: of the estimate, at its default settings.
        rounds: the median of both times counts.
    """
    seen, settings = random_site(width), SubspaceSettings(method=method)
    took = [seconds_of(lambda: Estimator(seen).estimate(settings, held_out=True)) for _ in range(rounds)]
    peak = peak_memory()
    (samples,) = seen.sites.values()
    ordinary = samples.ordinary
    floor = median(seconds_of(lambda: _floor(ordinary)) for _ in range(rounds))
    return EstimateCost(method, width, len(ordinary), median(took), floor, peak)


def child(width: str, method: Method, rounds: str) -> None:
    """Print what ``measure`` finds, for a process of its own."""
    print(json.dumps(asdict(measure(int(width), method, int(rounds)))))
