"""Benchmarks: ratios of times measured side by side in one run, never absolute promises.

Some are at the size of real models, on random weights: editing 14B layers, baking a checkpoint.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from refusal_core.activations import Activations
from refusal_core.apply import applied
from refusal_core.capturing import capture
from refusal_core.concepts import Preset
from refusal_core.directions import Estimator
from refusal_core.edit import Edit, Origin, SiteEdit, load_edit, make_edit, save_edit
from refusal_core.evaluate.estimate_sizes import estimate_costs, peak_memory, seconds_of
from refusal_core.export.bake import bake
from refusal_core.fold import project_out
from refusal_core.io.files import wait_for_disk
from refusal_core.models.calling import Request, call_pipeline
from refusal_core.models.inventory import inventory
from refusal_core.models.model import Fingerprint, Model
from refusal_core.models.sites import Site
from refusal_core.progress import Progress, silent
from refusal_core.recipe import build, preset_recipe
from refusal_core.sampling import generate
from refusal_core.settings import CaptureSettings, SamplingSettings, SubspaceSettings
from refusal_core.subspace import contrastive_basis, sample_span

WAN_14B = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
WIDTH, WIDE = 5120, 13824  # of Wan 2.1 14B
SHARDS, BLOCKS = 8, 3  # of the synthetic checkpoint: 8 shards of 3 feed-forward blocks
ROUNDS = 3
ALLOWED_ESTIMATE = 3.0  # of a site's estimate to the yardstick of its second moments
ALLOWED_RATIO = 2.0  # of baking to copying the files
ALLOWED_MEMORY = 500e6  # beside twice the largest edited tensor: torch alone takes 220 MB


@dataclass(frozen=True, slots=True)
class Figure:
    """One benchmark: what was measured, the value, its unit, and on what."""

    name: str
    value: float
    unit: str
    on: str


def run_benchmarks(
    model: Model, preset: Preset, progress: Progress = silent, *, large: bool = False
) -> list[Figure]:
    """Run all benchmarks, a few minutes in all; with ``large`` also those that take 13 GB of disk."""
    recipe = preset_recipe(preset, model)
    progress(0.0, "Capture against full passes")
    figures = [_capture_ratio(model, preset)]
    progress(0.1, "Refit")
    figures += _refit(capture(model, recipe.concept, recipe.capture), recipe.subspace)
    progress(0.15, "Generation, edited against original")
    figures.append(_generation_ratio(model, build(model, recipe)[0], preset.prompt))
    progress(0.4, "Edit against memcpy")
    figures += [_edit_ratio(rank) for rank in (1, 4)]
    progress(0.5, "cPCA against the full eigenproblem")
    figures.append(_eigen_ratio())
    if large:
        progress(0.6, "Estimates at real widths and row counts")
        figures += estimate_ratios()
        progress(0.9, "Editing and baking at the size of a 14B model")
        figures += edit_of_true_size() + bake_ratios()
    progress(1.0, "Benchmarks are done")
    return figures


def as_json(figures: list[Figure]) -> dict[str, Any]:
    """Return plain data with the machine's facts."""
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    return facts | {"figures": [asdict(f) for f in figures]}


def _interleaved(first: Callable[[], object], second: Callable[[], object], rounds: int) -> float:
    """Return the median of first/second over rounds; both run in turn, so that drift hits both."""
    first(), second()
    return median(seconds_of(first) / seconds_of(second) for _ in range(rounds))


def _generation_ratio(model: Model, edit: Edit, prompt: str) -> Figure:
    generate(model, prompt)
    edited, plain = [], []
    for _ in range(15):
        with applied(model, edit):
            edited.append(seconds_of(lambda: generate(model, prompt)))
        plain.append(seconds_of(lambda: generate(model, prompt)))
    ratio = median(edited) / median(plain)
    return Figure("generation, edited / original", ratio, "ratio", f"{model.name}, 15 videos each, medians")


def _edit_ratio(rank: int) -> Figure:
    weights = [torch.randn(3072, 3072) for _ in range(6)]
    q = torch.linalg.qr(torch.randn(3072, rank))[0].T.contiguous()
    strength = torch.ones(rank)
    ratio = _interleaved(
        lambda: [project_out(w, q, q, strength) for w in weights], lambda: [w.clone() for w in weights], 15
    )
    on = "6 weights 3072x3072 float32, median of 15"
    return Figure(f"edit of rank {rank} / memcpy of the weights", ratio, "ratio", on)


def _eigen_ratio(width: int = 4608, pairs: int = 150, neutral: int = 600) -> Figure:
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(pairs, width, generator=generator, dtype=torch.float64)
    e = torch.randn(neutral, width, generator=generator, dtype=torch.float64)

    def ours() -> Tensor:
        span = sample_span(r, e, center=True)
        return contrastive_basis(span, rank=100, alpha=1.0, relative=False).vectors

    fast = seconds_of(ours)
    slow = seconds_of(lambda: torch.linalg.eigh(torch.cov(r.T) - torch.cov(e.T))[1][:, -100:])
    on = f"H = {width}, {pairs} + {neutral} samples, float64: {fast:.2f} s against {slow:.2f} s"
    return Figure("cPCA, full eigh / ours", slow / fast, "times", on)


def _refit(seen: Activations, settings: SubspaceSettings) -> list[Figure]:
    estimator = Estimator(seen)
    first, *again = (seconds_of(lambda: make_edit(estimator.estimate(settings))) for _ in range(16))
    where = seen.describe()
    return [
        Figure("first fit from the activations", 1000 * first, "ms", where),
        Figure("refit from the activations", 1000 * median(again), "ms", where + ", median of 15"),
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
    on = f"{model.name}, {len(prompts)} prompts, cross-attention of layers 0-3, median of 3"
    return Figure("capture / full passes of the same prompts", ratio, "ratio", on)


# --- at the size of real models ----------------------------------------------------------------------


def edit_of_true_size(width: int = WIDTH, wide: int = WIDE) -> list[Figure]:
    """Time the edit of one true-size block of Wan 2.1 14B and carry it over to all 40."""
    shapes = [(width, width)] * 3 + [(wide, width), (width, wide)]  # text k, v, output, feed-forward
    weights = [torch.randn(shape, dtype=torch.bfloat16) for shape in shapes]
    directions = [torch.nn.functional.normalize(torch.randn(1, w.shape[1])) for w in weights]

    def fold() -> None:
        for w, p in zip(weights, directions, strict=True):
            project_out(w, p, p, torch.ones(1))

    fold()
    block = min(seconds_of(fold) for _ in range(5))
    blocks = 1 + max(site.block for site in inventory(WAN_14B).sites)
    on = f"5 weights of a block, bfloat16, random; {torch.get_num_threads()} threads, best of 5"
    return [
        Figure("edit of one Wan 2.1 14B block", block, "s", on),
        Figure(f"the same for all {blocks} blocks, extrapolated", block * blocks, "s", on),
    ]


def estimate_ratios() -> list[Figure]:
    """Estimate a site with held-out figures at the widths of Wan 2.1 14B, against the least it can cost."""
    figures = []
    for width, rounds in ((WIDTH, 3), (WIDE, 1)):
        for cost in estimate_costs(width, rounds):
            on = f"H = {width}, {cost.rows} ordinary rows, random: {cost.seconds:.1f} s"
            on += f" against {cost.floor:.1f} s; {cost.peak / 1e9:.1f} GB, rows and torch included"
            if width == WIDTH:
                on = f"{_verdict(cost.ratio, ALLOWED_ESTIMATE)}, allowed {ALLOWED_ESTIMATE:g}; {on}"
            name = f"estimate by {cost.method} / Gram matrix and Cholesky factor"
            figures.append(Figure(name, cost.ratio, "ratio", on))
    return figures


def bake_ratios(gigabytes: float = 4.0) -> list[Figure]:
    """Bake a synthetic sharded checkpoint in a process of its own; compare with copying its files."""
    with tempfile.TemporaryDirectory(prefix="refusal-studio-bench-") as name:
        folder = Path(name)
        sites = _write_checkpoint(folder / "model" / "transformer", gigabytes)
        save_edit(_rank_one(sites), folder / "edit.safetensors")
        rounds = [_bake_round(folder) for _ in range(ROUNDS + 1)][1:]  # the first is to warm up
    *seconds, peaks = zip(*rounds, strict=True)
    (copy, lasting, took), peak = map(median, seconds), max(peaks)
    allowed = 2 * max(site.inputs * site.outputs * 2 for site in sites) + ALLOWED_MEMORY
    on = f"{gigabytes:g} GB in {SHARDS} shards, bfloat16, {len(sites)} layers edited"

    def ratio(name: str, other: float) -> Figure:
        verdict = f"{_verdict(took / other, ALLOWED_RATIO)}; allowed {ALLOWED_RATIO:g}"
        seconds = f"{took:.1f} s against {other:.1f} s, medians of {ROUNDS}"
        return Figure(f"bake / {name}", took / other, "ratio", f"{verdict}; {on}: {seconds}")

    memory = f"allowed {allowed / 1e6:.0f}: twice the largest edited tensor and 500 MB"
    memory = f"{_verdict(peak, allowed)}; {memory}; a process of its own, torch and all"
    return [
        ratio("copying the files", copy),
        ratio("copying the files until the disk has them", lasting),
        Figure("peak memory of the bake", peak / 1e6, "MB", memory),
    ]


def _verdict(value: float, allowed: float) -> str:
    return "reached" if value <= allowed else "MISSED"


def _write_checkpoint(folder: Path, gigabytes: float) -> list[Site]:
    """Write shards of feed-forward weights, a third of them to be edited; return these sites."""
    folder.mkdir(parents=True)
    rows = int(gigabytes * 1e9 / SHARDS / BLOCKS / 2 / WIDTH)
    names = [f"blocks.{number}.ffn.net.0.proj" for number in range(SHARDS * BLOCKS)]
    for shard in range(SHARDS):
        inside = names[shard * BLOCKS : (shard + 1) * BLOCKS]
        tensors = {f"{name}.weight": torch.randn(rows, WIDTH, dtype=torch.bfloat16) for name in inside}
        save_file(tensors, folder / f"diffusion_pytorch_model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors")
    edited = names[::BLOCKS]
    return [Site(f"transformer.{name}", 0, "feed-forward", WIDTH, rows, False) for name in edited]


def _rank_one(sites: list[Site]) -> Edit:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for site in sites:
        p = torch.nn.functional.normalize(torch.randn(1, site.inputs, generator=generator))
        made[site] = SiteEdit(p, p, torch.ones(1), None, (0,))
    origin = Origin("synthetic", (("a", "b"), ("c", "d")), SubspaceSettings(), 1.0, "zero", {}, ())
    return Edit(Fingerprint("wan", "WanPipeline", "synthetic", "synthetic"), made, (origin,))


def _bake_round(folder: Path) -> tuple[float, float, float, float]:
    """Copy, copy until the disk has it, bake: their seconds, and the bake's peak memory in bytes."""
    copies = [_copy_seconds(folder, synced) for synced in (False, True)]
    command = [sys.executable, "-c", _CHILD, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(folder / "baked")
    seconds, peak = json.loads(run.stdout.splitlines()[-1])
    return copies[0], copies[1], seconds, peak


def _copy_seconds(folder: Path, synced: bool) -> float:
    def copy() -> None:
        copied = shutil.copytree(folder / "model", folder / "copy")
        for path in copied.rglob("*.safetensors") if synced else ():
            wait_for_disk(path)

    seconds = seconds_of(copy)
    shutil.rmtree(folder / "copy")
    return seconds


_CHILD = "import sys; from refusal_core.evaluate.bench import child; child(sys.argv[1])"


def child(folder: str) -> None:
    """Bake and print the seconds and the peak memory of this process, in bytes."""
    root = Path(folder)
    edit = load_edit(root / "edit.safetensors")
    seconds = seconds_of(lambda: bake(root / "model", edit, root / "baked"))
    print(json.dumps([seconds, peak_memory()]))
