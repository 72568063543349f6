"""Benchmarks: ratios of times measured side by side in one run, never absolute promises."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from refusal_core.apply import applied
from refusal_core.capturing import capture
from refusal_core.concepts import Preset
from refusal_core.directions import Estimator
from refusal_core.edit import Edit, make_edit
from refusal_core.fold import project_out
from refusal_core.models.calling import Request, call_pipeline
from refusal_core.models.model import Model
from refusal_core.progress import Progress, silent
from refusal_core.recipe import build, preset_recipe
from refusal_core.sampling import generate
from refusal_core.settings import CaptureSettings, SamplingSettings, SubspaceSettings
from refusal_core.subspace import contrastive_basis, sample_span


@dataclass(frozen=True, slots=True)
class Figure:
    """One benchmark: what was measured, the value, its unit, and on what."""

    name: str
    value: float
    unit: str
    on: str


def run_benchmarks(model: Model, preset: Preset, progress: Progress = silent) -> list[Figure]:
    """Run all benchmarks, a few minutes in all; the full eigenproblem is the longest."""
    recipe = preset_recipe(preset, model)
    figures = []
    progress(0.0, "Capture against full passes")
    figures.append(_capture_ratio(model, preset))
    progress(0.1, "Refit")
    seen = capture(model, recipe.concept, recipe.capture)
    figures += _refit(seen, recipe.subspace)
    progress(0.15, "Generation, edited against original")
    edit, _ = build(model, recipe)
    figures.append(_generation_ratio(model, edit, preset.prompt))
    progress(0.4, "Edit against memcpy")
    figures += [_edit_ratio(rank) for rank in (1, 4)]
    progress(0.5, "cPCA against the full eigenproblem")
    figures.append(_eigen_ratio())
    progress(1.0, "Benchmarks are done")
    return figures


def as_json(figures: list[Figure]) -> dict[str, Any]:
    """Return plain data with the machine's facts."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "figures": [asdict(f) for f in figures],
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _interleaved(first: Callable[[], object], second: Callable[[], object], rounds: int) -> float:
    """Return the median of first/second over rounds; both run in turn, so that drift hits both."""
    first(), second()
    return statistics.median(_seconds(first) / _seconds(second) for _ in range(rounds))


def _generation_ratio(model: Model, edit: Edit, prompt: str) -> Figure:
    def edited() -> None:
        with applied(model, edit):
            times.append(_seconds(lambda: generate(model, prompt)))

    times: list[float] = []
    plain: list[float] = []
    generate(model, prompt)
    for _ in range(15):
        edited()
        plain.append(_seconds(lambda: generate(model, prompt)))
    ratio = statistics.median(times) / statistics.median(plain)
    return Figure("generation, edited / original", ratio, "ratio", f"{model.name}, 15 videos each, medians")


def _edit_ratio(rank: int) -> Figure:
    weights = [torch.randn(3072, 3072) for _ in range(6)]
    q = torch.linalg.qr(torch.randn(3072, rank))[0].T.contiguous()
    strength = torch.ones(rank)

    def copy() -> list[Tensor]:
        return [w.clone() for w in weights]

    def fold() -> list[Tensor]:
        return [project_out(w, q, q, strength) for w in weights]

    ratio = _interleaved(fold, copy, 15)
    return Figure(
        f"edit of rank {rank} / memcpy of the weights",
        ratio,
        "ratio",
        "6 weights 3072x3072 float32, median of 15",
    )


def _eigen_ratio(width: int = 4608, pairs: int = 150, neutral: int = 600) -> Figure:
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(pairs, width, generator=generator, dtype=torch.float64)
    e = torch.randn(neutral, width, generator=generator, dtype=torch.float64)

    def ours() -> Tensor:
        span = sample_span(r, e, center=True)
        return contrastive_basis(span, rank=100, alpha=1.0, relative=False).vectors

    def full() -> Tensor:
        return torch.linalg.eigh(torch.cov(r.T) - torch.cov(e.T))[1][:, -100:]

    fast, slow = _seconds(ours), _seconds(full)
    on = f"H = {width}, {pairs} + {neutral} samples, float64: {fast:.2f} s against {slow:.2f} s"
    return Figure("cPCA, full eigh / ours", slow / fast, "times", on)


def _refit(seen: Any, settings: SubspaceSettings) -> list[Figure]:
    estimator = Estimator(seen)
    first = _seconds(lambda: make_edit(estimator.estimate(settings)))
    again = statistics.median(_seconds(lambda: make_edit(estimator.estimate(settings))) for _ in range(15))
    where = seen.describe()
    return [
        Figure("first fit from the activations", 1000 * first, "ms", where),
        Figure("refit from the activations", 1000 * again, "ms", where + ", median of 15"),
    ]


def _capture_ratio(model: Model, preset: Preset) -> Figure:
    """Time a video-side capture against running the same prompts to the end of denoising."""
    concept = preset.concept
    prompts = [p.safe for p in concept.pairs] + [p.unsafe for p in concept.pairs] + list(concept.neutral)

    def passes() -> None:
        with torch.inference_mode():
            for start in range(0, len(prompts), 32):
                chunk = prompts[start : start + 32]
                request = Request(chunk, range(len(chunk)), SamplingSettings(), False, "latent")
                call_pipeline(model, request, lambda _denoiser, _arguments: None)

    settings = CaptureSettings(kinds=("cross-attention",), layers=(0, 1, 2, 3))
    ratio = _interleaved(lambda: capture(model, concept, settings), passes, 3)
    return Figure(
        "capture / full passes of the same prompts",
        ratio,
        "ratio",
        f"{model.name}, {len(prompts)} prompts, cross-attention of layers 0-3, median of 3",
    )
