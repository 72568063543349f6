"""``models selftest``: every step on every family, or on a real model: capture, edit, undo, save, LoRA, bake.

The families' pipelines are tiny and random, but of the real classes; what was exported is loaded by plain
diffusers in a process of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from refusal_core.apply import applied
from refusal_core.capturing import capture
from refusal_core.concepts import Concept, PromptPair
from refusal_core.directions import estimate
from refusal_core.edit import Edit, load_edit, make_edit, save_edit
from refusal_core.errors import InputError, RefusalError
from refusal_core.evaluate.selftest import hashes
from refusal_core.export.bake import bake
from refusal_core.export.lora import export_lora
from refusal_core.models import tiny
from refusal_core.models.calling import Request, call_pipeline
from refusal_core.models.load import LoadSettings, bundled_folder, load_model
from refusal_core.models.model import Model
from refusal_core.progress import Progress, part, silent
from refusal_core.settings import CaptureSettings, SamplingSettings, SubspaceSettings

STEPS = ("capture", "edit", "undo", "save", "lora", "comfyui", "bake")
NO_LORA = "none in diffusers"
TOLERANCE = 1e-5  # float32, largest difference of the latents
PROMPT = "a robot on fire"
PAIRS = (
    PromptPair(PROMPT, "a robot"),
    PromptPair("a burning car at night", "a car at night"),
    PromptPair("the dog on fire", "the dog"),
)
NEUTRAL = ("a cat", "the woman dancing", "a man on the street", "a red car", "the beach at night")
CONCEPT = Concept("fire", PAIRS, NEUTRAL)


@dataclass(frozen=True, slots=True)
class Step:
    """How a step went: whether it held, and why not, or what was left out for a reason."""

    ok: bool
    why: str = ""


@dataclass(slots=True)
class FamilyResult:
    """What one family, or one real model, has passed. Plain data: ``asdict`` is its JSON."""

    id: str
    sites: int = 0
    steps: dict[str, Step] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every step ran and held, or was left out for a stated reason."""
        return all(name in self.steps and self.steps[name].ok for name in STEPS)

    @property
    def trouble(self) -> str:
        """Why the first step that did not hold did not."""
        return next((step.why for step in self.steps.values() if not step.ok), "")

    def follow(self, steps: Iterator[tuple[str, str]]) -> None:
        """Note each step as it passes, with a remark; the one that raises is noted with its reason."""
        try:
            for name, remark in steps:
                self.steps[name] = Step(True, remark)
        except Exception as e:  # diffusers may raise anything; the table must show it and go on
            self.steps[next(s for s in STEPS if s not in self.steps)] = Step(False, _reason(e))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, RefusalError) else f"{type(error).__name__}: {error}"[:200]


def try_families(names: Sequence[str] = (), progress: Progress = silent) -> list[FamilyResult]:
    """Run every step on the tiny pipeline of each family.

    Args:
        names: of families; none means all.
        progress: told per family.

    Raises:
        InputError: a name is not known.
    """
    results = [FamilyResult(name) for name in names or tiny.NAMES]
    for result in results:
        if result.id not in tiny.NAMES:
            raise InputError(f"'{result.id}' is not known; choose among {', '.join(tiny.NAMES)}.")
    with tempfile.TemporaryDirectory(prefix="refusal-studio-selftest-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        for number, result in enumerate(results):
            progress(0.9 * number / len(results), f"Trying {result.id}")
            model = tiny.tiny_model(result.id)
            result.sites = len(model.sites)
            model.pipeline.save_pretrained(folder / result.id / "base")
            result.follow(_steps(result, model, folder / result.id / "base", folder / result.id))
        progress(0.9, "Loading the exports with plain diffusers")
        _reload([r for r in results if not r.trouble], folder)
    progress(1.0, "Done")
    return results


def try_real(source: str, settings: LoadSettings | None = None, progress: Progress = silent) -> FamilyResult:
    """Try a real model with two short prompts. What is exported is written, not loaded again.

    Raises:
        RefusalError: the model cannot be loaded.
    """
    model = load_model(source, settings, progress=part(progress, 0.0, 0.2))
    result = FamilyResult(source, len(model.sites))
    folder = Path(bundled_folder(source) or source)
    with tempfile.TemporaryDirectory() as name:
        result.follow(_steps(result, model, folder, Path(name), part(progress, 0.2, 1.0)))
    result.measured |= peak_memory()
    return result


def _steps(
    result: FamilyResult, model: Model, base: Path, out: Path, progress: Progress = silent
) -> Iterator[tuple[str, str]]:
    """Yield each step that held. Of a real model less is read and run: two runs can take an hour."""
    real = model.name not in tiny.NAMES
    before, started = hashes(model), time.perf_counter()

    def measure(step: str) -> None:
        nonlocal started
        result.measured[f"{step} time"] = f"{time.perf_counter() - started:.1f} s"
        started = time.perf_counter()

    kinds = ("cross-attention",) if real else tuple(dict.fromkeys(site.kind for site in model.sites))
    concept = Concept("fire", PAIRS[:2], NEUTRAL[:2]) if real else CONCEPT
    settings = CaptureSettings(kinds=kinds, timesteps=2)
    seen = capture(model, concept, settings, progress=part(progress, 0.0, 0.4))
    _check(real or set(seen.sites) == set(model.sites), "not every site was read")
    measure("capture")
    yield "capture", ""
    edit = make_edit(estimate(seen, SubspaceSettings(method="rv")))
    progress(0.4, "Comparing")
    original, edited = latents(model), latents(model, edit)
    _check(not torch.equal(original, edited), "the edit changes nothing")
    measure("edit")
    yield "edit", ""
    _check(hashes(model) == before, "the weights are not as before")
    _check(real or torch.equal(latents(model), original), "the original's video is not as before")
    yield "undo", ""
    saved = load_edit(save_edit(edit, out / "edit.safetensors"))
    _check(real or torch.equal(latents(model, saved), edited), "the saved edit differs")
    yield "save", ""
    expected = {"lora": edited, "bake": edited}
    if model.family.lora:
        export_lora(edit, model, out / "lora.safetensors")
    yield "lora", "written" if model.family.lora else NO_LORA
    named = replace(edit, sites={s: c for s, c in edit.sites.items() if _has_comfyui_name(s.name, model)})
    if named.sites and not real:
        export_lora(named, model, out / "comfyui.safetensors", naming="comfyui")
        expected["comfyui"] = latents(model, named)
    yield "comfyui", "written" if "comfyui" in expected else "not tried" if real else "names unknown"
    started = time.perf_counter()
    remark = bake_where_possible(saved, base, out / "baked", part(progress, 0.8, 1.0))
    if remark == "written":
        measure("bake")
    if not real:
        save_file({step: latent.clone() for step, latent in expected.items()}, out / "expected.safetensors")
    yield "bake", remark


def _has_comfyui_name(name: str, model: Model) -> bool:
    if model.family.lora is None:
        return False
    inner = name.partition(".")[2]
    if inner.endswith(".proj_mlp"):  # diffusers takes ComfyUI's linear1 apart at HunyuanVideo's width only
        return False
    return any(re.fullmatch(pattern, inner) for pattern in model.family.comfyui)


def latents(model: Model, edit: Edit | None = None) -> Tensor:
    """Return the latents of one prompt, the sound's behind the picture's, with an edit or without.

    Some tiny decoders hide any change.
    """
    if edit is not None:
        with applied(model, edit):
            return latents(model)
    request = Request([PROMPT], [7], SamplingSettings(), output="latent")
    with torch.inference_mode():
        made = call_pipeline(model, request, lambda _denoiser, _arguments: None)
    parts = [made.frames, *([made.audio] if model.family.makes_sound else [])]
    return torch.cat([torch.as_tensor(part).float().flatten() for part in parts])


def _check(holds: bool, sentence: str) -> None:
    if not holds:
        raise InputError(sentence)


def bake_where_possible(edit: Edit, folder: Path, out: Path, progress: Progress = silent) -> str:
    """Bake a folder where there is one, and room for its copy; return what was done, in words."""
    if not folder.is_dir():
        return "no local folder"
    if sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) > shutil.disk_usage(out.parent).free:
        return "no room on disk"
    bake(folder, edit, out, progress)
    return "written"


def peak_memory() -> dict[str, str]:
    """Return the most memory of the GPU that was ever taken; nothing where there is none."""
    if not torch.cuda.is_available():
        return {}
    return {"GPU memory": f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB"}


# --- the other process -------------------------------------------------------------------------------

_CHILD = "import sys; from refusal_core.evaluate.family_steps import child; child(sys.argv[1], sys.argv[2:])"


def _reload(results: list[FamilyResult], folder: Path) -> None:
    """Let a fresh process load what was exported, and note how each step went."""
    command = [sys.executable, "-W", "ignore", "-c", _CHILD, str(folder), *(r.id for r in results)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answers = json.loads(run.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        answers = {}
    for result in results:
        lost = {"bake": {"ok": False, "why": run.stderr.strip()[-200:] or "the process stopped"}}
        result.steps |= {name: Step(**step) for name, step in answers.get(result.id, lost).items()}


def child(folder: str, names: Sequence[str]) -> None:
    """Load each family's exports and print as JSON how that went."""
    answers: dict[str, dict[str, dict[str, Any]]] = {}
    for name in names:
        home, answers[name] = Path(folder) / name, {}
        expected = load_file(home / "expected.safetensors")
        for step in ("lora", "comfyui", "bake"):
            files = [p for p in (home / f"{step}.safetensors", home / f"{step}-2.safetensors") if p.exists()]
            if not files and step != "bake":
                continue
            try:
                made = _plain(home / ("base" if files else "baked"), name, files)
                away = float((made - expected[step]).abs().max())
                _check(away <= TOLERANCE, f"{away:.1e} away from the edited model")
                answers[name][step] = asdict(Step(True))
            except Exception as e:
                answers[name][step] = asdict(Step(False, _reason(e)))
    print(json.dumps(answers))


def _recognisable(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add what diffusers knows Hunyuan's original names by: a layer that these edits leave alone."""
    if first := next((name for name in weights if "double_blocks" in name), ""):
        a = next(w for name, w in weights.items() if "img_attn_proj.lora_A" in name)
        layer = ".".join([*first.split(".")[:3], "img_attn_qkv"])
        weights[f"{layer}.lora_A.weight"] = torch.zeros_like(a)
        weights[f"{layer}.lora_B.weight"] = a.new_zeros(3 * a.shape[1], len(a))
    return weights


def _plain(folder: Path, name: str, loras: Sequence[Path] = ()) -> Tensor:
    """Load with diffusers alone, add LoRAs as the snippets do, and generate."""
    from diffusers import DiffusionPipeline

    plain = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    model = tiny.tiny_model(name, plain)
    denoiser: Any = model.denoisers[0]
    for number, path in enumerate(loras):
        weights = _recognisable(load_file(path))
        if model.family.lora == "model":
            denoiser.load_lora_adapter(weights, adapter_name="unlearned")
            continue
        second = {"load_into_transformer_2": True} if number else {}
        plain.load_lora_weights(weights, adapter_name=f"unlearned{number or ''}", **second)
    return latents(model)
