"""Trying every step on every family: capture, edit, compare, undo, save, LoRA, bake, reload.

The pipelines are tiny and random, but of the real classes; what was exported is loaded by plain
diffusers in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from refusal_core.export.bake import bake
from refusal_core.export.lora import export_lora
from refusal_core.models import tiny
from refusal_core.models.calling import Request, call_pipeline
from refusal_core.models.model import Model, wrap_pipeline
from refusal_core.models.slots import slot_of
from refusal_core.progress import Progress, part, silent
from refusal_core.settings import CaptureSettings, SamplingSettings, SubspaceSettings

STEPS = ("capture", "edit", "undo", "save", "lora", "comfyui", "bake")
MEASURES = ("capture time", "edit time", "bake time", "GPU memory")  # of a real model
TOLERANCE = 1e-5  # float32, largest difference of the latents
PROMPT = "a robot on fire"
CONCEPT = Concept(
    "fire",
    (
        PromptPair("a robot on fire", "a robot"),
        PromptPair("a burning car at night", "a car at night"),
        PromptPair("the dog on fire", "the dog"),
    ),
    ("a cat", "the woman dancing", "a man on the street", "a red car", "the beach at night"),
)


@dataclass(slots=True)
class Row:
    """What one family has passed: a step is there only when it ran and held."""

    name: str
    sites: int = 0
    passed: dict[str, str] = field(default_factory=dict)
    trouble: str = ""
    steps: tuple[str, ...] = STEPS  # those that are tried
    measured: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every step ran and held, or was left out for a stated reason."""
        return not self.trouble and set(self.steps) <= set(self.passed)


def selftest(names: Sequence[str] = (), progress: Progress = silent) -> list[Row]:
    """Run every step on the tiny pipeline of each family.

    Args:
        names: of families; none means all.
        progress: told per family.

    Raises:
        InputError: a name is not known.
    """
    chosen = list(names) or list(tiny.BUILDERS)
    for name in chosen:
        if name not in tiny.BUILDERS:
            raise InputError(f"'{name}' is not known; choose among {', '.join(tiny.BUILDERS)}.")
    rows = [Row(name) for name in chosen]
    with tempfile.TemporaryDirectory(prefix="refusal-studio-selftest-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, row in enumerate(rows):
            progress(0.9 * number / len(rows), f"Trying {row.name}")
            _attempt(row, lambda row=row: _try_family(row, Path(folder) / row.name))
        progress(0.9, "Loading the exports with plain diffusers")
        _reload([r for r in rows if not r.trouble], Path(folder))
    progress(1.0, "Done")
    return rows


def _attempt(row: Row, work: Callable[[], None]) -> None:
    try:
        work()
    except RefusalError as e:
        row.trouble = str(e)
    except Exception as e:  # diffusers may raise anything; the table must show it and go on
        row.trouble = f"{type(e).__name__}: {e}"[:200]


def tiny_model(name: str) -> Model:
    """Return the Model of a tiny pipeline."""
    built = tiny.build(name)
    return replace(wrap_pipeline(built.pipeline, name), defaults=built.defaults, extras=built.extras)


def _try_family(row: Row, folder: Path) -> None:
    model = tiny_model(row.name)
    model.pipeline.save_pretrained(folder / "base")
    before = fingerprint(model)
    row.sites = len(model.sites)
    kinds = tuple(dict.fromkeys(site.kind for site in model.sites))
    seen = capture(model, CONCEPT, CaptureSettings(kinds=kinds, timesteps=2))
    _check(set(seen.sites) == set(model.sites), "not every site was read")
    row.passed["capture"] = "yes"

    edit = make_edit(estimate(seen, SubspaceSettings(method="rv")))
    original = latents(model)
    with applied(model, edit):
        edited = latents(model)
    _check(not torch.equal(original, edited), "the edit changes nothing")
    row.passed["edit"] = "yes"
    _check(fingerprint(model) == before and torch.equal(latents(model), original), "undo is not exact")
    row.passed["undo"] = "yes"

    saved = load_edit(save_edit(edit, folder / "edit.safetensors"))
    with applied(model, saved):
        _check(torch.equal(latents(model), edited), "the saved edit differs")
    row.passed["save"] = "yes"
    job = {"original": original, "edited": edited}
    save_file({k: v.contiguous() for k, v in job.items()}, folder / "expected.safetensors")
    bake(folder / "base", saved, folder / "baked")
    _export(row, model, edit, folder)


def _export(row: Row, model: Model, edit: Edit, folder: Path) -> None:
    if model.family.lora is None:
        row.passed["lora"] = row.passed["comfyui"] = "none in diffusers"
        return
    export_lora(edit, model, folder / "lora.safetensors")
    named = {s: c for s, c in edit.sites.items() if _has_comfyui_name(s.name, model)}
    if named:
        export_lora(replace(edit, sites=named), model, folder / "comfyui.safetensors", naming="comfyui")
        with applied(model, replace(edit, sites=named)):
            save_file({"edited": latents(model).contiguous()}, folder / "expected-comfyui.safetensors")
    else:
        row.passed["comfyui"] = "names unknown"


def _has_comfyui_name(name: str, model: Model) -> bool:
    import re

    inner = name.partition(".")[2]
    if inner.endswith(
        ".proj_mlp"
    ):  # diffusers takes ComfyUI's linear1 apart at HunyuanVideo's own width only
        return False
    return any(re.fullmatch(pattern, inner) for pattern in model.family.comfyui)


def fingerprint(model: Model) -> str:
    """Return a hash of every tensor of the denoisers; of those offloaded one by one, the editable ones."""
    digest = hashlib.sha256()
    for name, tensor in _tensors(model):
        content = tensor.detach().cpu().contiguous().view(torch.uint8)
        digest.update(name.encode() + content.numpy().tobytes())
    return digest.hexdigest()


def _tensors(model: Model) -> Iterator[tuple[str, Tensor]]:
    for denoiser in model.denoisers:
        yield from ((name, t) for name, t in denoiser.state_dict().items() if not t.is_meta)
    for name, layer in model.layers.items():
        if layer.weight.is_meta:
            yield name, slot_of(layer, name, "weight").get()


def latents(model: Model) -> Tensor:
    """Return the latents of one prompt: some families' tiny decoders hide any change."""
    request = Request([PROMPT], [7], SamplingSettings(), output="latent")
    with torch.inference_mode():
        found = call_pipeline(model, request, lambda _denoiser, _arguments: None).frames
    return torch.as_tensor(found).float().clone()


def _check(holds: bool, sentence: str) -> None:
    if not holds:
        raise InputError(sentence)


def try_real(source: str, offload: str, progress: Progress = silent) -> list[Row]:
    """Capture, edit, undo, save, export a LoRA and bake a real model, with two short prompts.

    Only a model in a local folder is baked. What was exported is written, not loaded again.

    Raises:
        RefusalError: the model cannot be loaded.
    """
    from refusal_core.models.load import LoadSettings, bundled_folder, load_model

    settings = LoadSettings(offload=offload)  # type: ignore[arg-type]  # checked there
    model = load_model(source, settings, progress=part(progress, 0.0, 0.2))
    folder = Path(bundled_folder(source) or source)
    steps = ["capture", "edit", "undo", "save"]
    steps += ["lora"] if model.family.lora else []
    steps += ["bake"] if folder.is_dir() else []
    row = Row(source, len(model.sites), steps=tuple(steps))
    _attempt(row, lambda: _try_real(row, model, folder, part(progress, 0.2, 1.0)))
    row.measured |= peak_memory()
    return [row]


def _try_real(row: Row, model: Model, folder: Path, progress: Progress) -> None:
    before = fingerprint(model)
    pairs = Concept("fire", CONCEPT.pairs[:2], CONCEPT.neutral[:2])
    with _timed(row, "capture"):
        settings = CaptureSettings(kinds=("cross-attention",), timesteps=2)
        seen = capture(model, pairs, settings, progress=part(progress, 0.0, 0.4))
    row.passed["capture"] = "yes"
    edit = make_edit(estimate(seen, SubspaceSettings(method="rv")))
    progress(0.4, "Comparing")
    with _timed(row, "edit"):
        original = latents(model)
        with applied(model, edit):
            edited = latents(model)
    _check(fingerprint(model) == before, "the weights are not as before")
    row.passed["undo"] = "yes"
    _check(not torch.equal(original, edited), "the edit changes nothing")
    row.passed["edit"] = "yes"
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        load_edit(save_edit(edit, out / "edit.safetensors"))
        row.passed["save"] = "yes"
        if "lora" in row.steps:
            export_lora(edit, model, out / "lora.safetensors")
            row.passed["lora"] = "written"
        if "bake" in row.steps:
            _bake_real(row, edit, folder, out / "baked", part(progress, 0.8, 1.0))


def _bake_real(row: Row, edit: Edit, folder: Path, out: Path, progress: Progress) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > shutil.disk_usage(out.parent).free:
        row.passed["bake"] = "no room on disk"
        return
    with _timed(row, "bake"):
        bake(folder, edit, out, progress)
    row.passed["bake"] = "written"


@contextmanager
def _timed(row: Row, step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    row.measured[f"{step} time"] = f"{time.perf_counter() - started:.1f} s"


def peak_memory() -> dict[str, str]:
    """Return the most memory of the GPU that was ever taken; nothing where there is none."""
    if not torch.cuda.is_available():
        return {}
    return {"GPU memory": f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB"}


# --- the other process -------------------------------------------------------------------------------


def _reload(rows: list[Row], folder: Path) -> None:
    """Let a fresh process load what was exported, and note what it found."""
    command = [sys.executable, "-W", "ignore", "-c", _CHILD, str(folder), *(row.name for row in rows)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(run.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        found = {}
    for row in rows:
        result = found.get(row.name, {"trouble": run.stderr.strip()[-200:] or "the process stopped"})
        row.trouble = result.pop("trouble", "")
        row.passed |= result


_CHILD = "import sys; from refusal_core.evaluate.selftest import child; child(sys.argv[1], sys.argv[2:])"


def child(folder: str, names: Sequence[str]) -> None:
    """Load each family's exports and print as JSON what held."""
    print(json.dumps({name: _load_exports(Path(folder) / name, name) for name in names}))


def _load_exports(folder: Path, name: str) -> dict[str, str]:
    row = Row(name)
    _attempt(row, lambda: _compare_exports(row, folder, name))
    return row.passed | ({"trouble": row.trouble} if row.trouble else {})


def _compare_exports(row: Row, folder: Path, name: str) -> None:
    expected = load_file(folder / "expected.safetensors")
    _near(_plain(folder / "baked", name), expected["edited"], "baked")
    row.passed["bake"] = "yes"
    if (folder / "lora.safetensors").exists():
        _near(_plain(folder / "base", name, _files(folder, "lora")), expected["edited"], "LoRA")
        row.passed["lora"] = "yes"
    if (folder / "comfyui.safetensors").exists():
        wanted = load_file(folder / "expected-comfyui.safetensors")["edited"]
        _near(_plain(folder / "base", name, _files(folder, "comfyui")), wanted, "ComfyUI LoRA")
        row.passed["comfyui"] = "yes"


def _files(folder: Path, stem: str) -> list[Path]:
    return [p for p in (folder / f"{stem}.safetensors", folder / f"{stem}-2.safetensors") if p.exists()]


def _near(found: Tensor, wanted: Tensor, what: str) -> None:
    away = float((found - wanted).abs().max())
    _check(away <= TOLERANCE, f"{what}: {away:.1e} away from the edited model")


def _recognisable(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add what diffusers knows Hunyuan's original names by: a layer that these edits leave alone."""
    if any("double_blocks" in name for name in weights):
        first = next(name for name in weights if "double_blocks" in name).split(".")[:3]
        a = next(w for name, w in weights.items() if "img_attn_proj.lora_A" in name)
        layer = ".".join([*first, "img_attn_qkv"])
        weights |= {f"{layer}.lora_A.weight": torch.zeros_like(a)}
        weights |= {f"{layer}.lora_B.weight": a.new_zeros(3 * a.shape[1], len(a))}
    return weights


def _plain(folder: Path, name: str, loras: Sequence[Path] = ()) -> Tensor:
    """Load with diffusers alone, add LoRAs as the snippets do, and generate."""
    from diffusers import DiffusionPipeline

    plain = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    built = replace(tiny.build(name), pipeline=plain)
    pipeline = tiny.prepare(built).pipeline
    model = replace(wrap_pipeline(pipeline, name), defaults=built.defaults, extras=built.extras)
    for number, path in enumerate(loras):
        weights: Any = _recognisable(load_file(path))
        if model.family.lora == "model":
            getattr(pipeline, model.denoiser_names[0]).load_lora_adapter(weights, adapter_name="unlearned")
            continue
        second = {"load_into_transformer_2": True} if number else {}
        pipeline.load_lora_weights(weights, adapter_name=f"unlearned{number or ''}", **second)
    return latents(model)
