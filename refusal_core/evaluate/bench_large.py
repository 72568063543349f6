"""Benchmarks at the size of real models, on random weights: baking a checkpoint, editing 14B layers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file

from refusal_core.edit import Edit, Origin, SiteEdit, load_edit, save_edit
from refusal_core.evaluate.bench import Figure
from refusal_core.export.bake import bake
from refusal_core.fold import project_out
from refusal_core.io.files import wait_for_disk
from refusal_core.models.inventory import inventory
from refusal_core.models.model import Fingerprint
from refusal_core.models.sites import Site
from refusal_core.settings import SubspaceSettings

WAN_14B = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
WIDTH, WIDE = 5120, 13824  # of Wan 2.1 14B
SHARDS, BLOCKS = 8, 3  # of the synthetic checkpoint: 8 shards of 3 feed-forward blocks
ROUNDS = 3
ALLOWED_RATIO = 2.0  # of baking to copying the files
ALLOWED_MEMORY = 500e6  # beside twice the largest edited tensor: torch alone takes 220 MB


def _site(name: str, inputs: int, outputs: int) -> Site:
    return Site(f"transformer.{name}", 0, "feed-forward", inputs, outputs, False)


def _rank_one(sites: list[Site]) -> Edit:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for site in sites:
        p = torch.nn.functional.normalize(torch.randn(1, site.inputs, generator=generator))
        made[site] = SiteEdit(p, p, torch.ones(1), None, (0,))
    origin = Origin("synthetic", (("a", "b"), ("c", "d")), SubspaceSettings(), 1.0, "zero", {}, ())
    return Edit(Fingerprint("wan", "WanPipeline", "synthetic", "synthetic"), made, (origin,))


def edit_of_true_size(width: int = WIDTH, wide: int = WIDE) -> list[Figure]:
    """Time the edit of one true-size block of Wan 2.1 14B and carry it over to all 40."""
    shapes = [(width, width)] * 3 + [(wide, width), (width, wide)]  # text k, v, output, feed-forward
    weights = [torch.randn(shape, dtype=torch.bfloat16) for shape in shapes]
    directions = [torch.nn.functional.normalize(torch.randn(1, w.shape[1])) for w in weights]

    def fold() -> float:
        start = time.perf_counter()
        for w, p in zip(weights, directions, strict=True):
            project_out(w, p, p, torch.ones(1))
        return time.perf_counter() - start

    fold()
    block = min(fold() for _ in range(5))
    blocks = 1 + max(site.block for site in inventory(WAN_14B).sites)
    on = f"5 weights of a block, bfloat16, random; {torch.get_num_threads()} threads, best of 5"
    return [
        Figure("edit of one Wan 2.1 14B block", block, "s", on),
        Figure(f"the same for all {blocks} blocks, extrapolated", block * blocks, "s", on),
    ]


def bake_ratios(gigabytes: float = 4.0) -> list[Figure]:
    """Bake a synthetic sharded checkpoint in a process of its own; compare with copying its files."""
    with tempfile.TemporaryDirectory(prefix="refusal-studio-bench-") as name:
        folder = Path(name)
        sites = _write_checkpoint(folder / "model" / "transformer", gigabytes)
        save_edit(_rank_one(sites), folder / "edit.safetensors")
        rounds = [_bake_round(folder) for _ in range(ROUNDS + 1)][1:]  # the first is to warm up
    *seconds, peaks = zip(*rounds, strict=True)
    (copy, lasting, took), peak = map(median, seconds), max(peaks)
    largest = max(site.inputs * site.outputs * 2 for site in sites)
    on = f"{gigabytes:g} GB in {SHARDS} shards, bfloat16, {len(sites)} layers edited"
    allowed = 2 * largest + ALLOWED_MEMORY
    memory = f"allowed {allowed / 1e6:.0f}: twice the largest edited tensor and 500 MB"
    return [
        _bake_ratio("bake / copying the files", took, copy, on),
        _bake_ratio("bake / copying the files until the disk has them", took, lasting, on),
        Figure(
            "peak memory of the bake",
            peak / 1e6,
            "MB",
            f"{_verdict(peak, allowed)}; {memory}; a process of its own, torch and all",
        ),
    ]


def _bake_round(folder: Path) -> tuple[float, float, float, float]:
    """Copy, copy until the disk has it, bake: their seconds, and the bake's peak memory in bytes."""
    command = [sys.executable, "-c", _CHILD, str(folder)]
    copies = [_copy_seconds(folder, synced) for synced in (False, True)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(folder / "baked")
    found = json.loads(run.stdout.splitlines()[-1])
    return copies[0], copies[1], found["seconds"], found["peak"]


def _bake_ratio(name: str, took: float, copy: float, on: str) -> Figure:
    verdict = f"{_verdict(took / copy, ALLOWED_RATIO)}; allowed {ALLOWED_RATIO:g}"
    return Figure(
        name, took / copy, "ratio", f"{verdict}; {on}: {took:.1f} s against {copy:.1f} s, medians of {ROUNDS}"
    )


def _verdict(value: float, allowed: float) -> str:
    return "reached" if value <= allowed else "MISSED"


def _write_checkpoint(folder: Path, gigabytes: float) -> list[Site]:
    """Write shards of feed-forward weights, a third of them to be edited."""
    folder.mkdir(parents=True)
    rows = int(gigabytes * 1e9 / SHARDS / BLOCKS / 2 / WIDTH)
    sites = []
    for shard in range(SHARDS):
        tensors = {}
        for block in range(BLOCKS):
            name = f"blocks.{shard * BLOCKS + block}.ffn.net.0.proj"
            tensors[f"{name}.weight"] = torch.randn(rows, WIDTH, dtype=torch.bfloat16)
            if block == 0:
                sites.append(_site(name, WIDTH, rows))
        save_file(tensors, folder / f"diffusion_pytorch_model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors")
    return sites


def _copy_seconds(folder: Path, synced: bool) -> float:
    start = time.perf_counter()
    copied = shutil.copytree(folder / "model", folder / "copy")
    if synced:
        for path in copied.rglob("*.safetensors"):
            wait_for_disk(path)
    seconds = time.perf_counter() - start
    shutil.rmtree(folder / "copy")
    return seconds


_CHILD = "import sys; from refusal_core.evaluate.bench_large import child; child(sys.argv[1])"


def child(folder: str) -> None:
    """Bake and print the seconds and the peak memory of this process, in bytes."""
    root = Path(folder)
    edit = load_edit(root / "edit.safetensors")
    start = time.perf_counter()
    bake(root / "model", edit, root / "baked")
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": _peak()}))


def _peak() -> int:
    """Return the peak memory of this program; getrusage would count its parent's too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
