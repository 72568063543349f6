"""Quantised denoisers: read, edited beside their layers, undone, and carried out by full precision."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import refusal_core as rc
from refusal_core.edit import Edit, resolved
from refusal_core.errors import FileError, InputError, ModelError
from refusal_core.evaluate.family_steps import CONCEPT
from refusal_core.export.lora import export_lora, export_weights
from refusal_core.fold import project_out, shift_bias
from refusal_core.io.files import write_json
from refusal_core.models import load
from refusal_core.models.calling import Request, call_pipeline
from refusal_core.models.families.family import DEFAULTS_FILE
from refusal_core.models.model import Model
from refusal_core.models.quantised import dequantised, kind_of
from refusal_core.models.tiny import build, tiny_model
from refusal_core.settings import CaptureSettings, SamplingSettings, SubspaceSettings

pytestmark = pytest.mark.filterwarnings("ignore")
HAS_TORCHAO = find_spec("torchao") is not None
KINDS = ("int8",) if HAS_TORCHAO else ("fp8", "gguf")
ROOT = Path(__file__).parents[1]
EVERYWHERE = CaptureSettings(kinds=("text", "cross-attention", "feed-forward"), timesteps=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan whose widths are whole blocks of GGUF's Q8_0, 32 numbers each."""
    made = tmp_path_factory.mktemp("whole") / "wan"
    small = tiny_model("wan")
    pipeline = small.pipeline
    config = {**pipeline.transformer.config, "attention_head_dim": 16, "ffn_dim": 64}
    torch.manual_seed(0)
    pipeline.transformer = type(pipeline.transformer).from_config(config)
    for parameter in pipeline.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pipeline.save_pretrained(made)
    write_json(made / DEFAULTS_FILE, {"defaults": asdict(small.defaults)})
    return made


@pytest.fixture(scope="module")
def packed(folder: Path) -> Path:
    """The denoiser as a .gguf file: the blocks' matrices in Q8_0, all else as it was."""
    file, kind = folder.parent / "denoiser.gguf", gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(str(file), "wan")
    for name, tensor in weights_in(folder).items():
        values = tensor.numpy()
        if values.ndim == 2 and name.startswith("blocks."):
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, folder: Path) -> Model:
    """The same model in each kind of quantised weights."""
    if request.param == "gguf":
        settings = rc.LoadSettings(device="cpu", denoiser=request.getfixturevalue("packed"))
    else:
        settings = rc.LoadSettings(device="cpu", quantise=request.param)
    return rc.load_model(str(folder), settings)


@pytest.fixture(scope="module")
def edit(model: Model) -> Edit:
    seen = rc.capture(model, CONCEPT, EVERYWHERE)
    return rc.make_edit(rc.estimate(seen, SubspaceSettings(rank=2)))


def weights_in(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(next((folder / "transformer").glob("*.safetensors"))))


def latents(model: Model) -> Tensor:
    asked = Request(["a robot on fire"], [3], SamplingSettings(3, steps=2), False, "latent")
    made: Tensor = call_pipeline(model, asked, lambda *_: None).frames
    return made


def test_each_kind_is_told_and_its_numbers_are_near_those_it_was_made_from(
    model: Model, folder: Path
) -> None:
    whole = weights_in(folder)
    kinds = {kind_of(layer) for name, layer in model.layers.items() if ".blocks." in name}
    assert kinds == {model.precision} and model.precision in ("torchao", "fp8", "gguf")
    for name, layer in model.layers.items():
        true = whole[f"{name.partition('.')[2]}.weight"]
        assert dequantised(layer).shape == true.shape
        assert float((dequantised(layer) - true).norm() / true.norm()) < 0.04


def test_a_quantised_model_is_the_same_model(model: Model, folder: Path) -> None:
    """So that an edit made on either fits the other."""
    assert model.fingerprint.fits(rc.load_model(str(folder), rc.LoadSettings(device="cpu")).fingerprint)


def test_an_edit_does_beside_a_layer_what_it_would_do_in_its_weight(model: Model, edit: Edit) -> None:
    """y + B (A x) against the weight that is folded, in float64, anchored too."""
    draw = torch.Generator().manual_seed(0)
    for site, change in edit.sites.items():
        layer = model.layers[site.name]
        x = torch.randn(5, site.inputs, generator=draw)
        level = torch.randn(len(change.remove), generator=draw) if site.has_bias else None
        moved = replace(edit, sites={site: replace(change, level=level)})
        with rc.applied(model, moved):
            found = layer(x)
        clean = resolved(moved.sites[site], edit.origins, site.name)
        weight = dequantised(layer).double()
        folded = project_out(weight, clean.remove, clean.detect, clean.strength)
        bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.float()
        if clean.level is not None:
            bias = shift_bias(weight, bias.double(), clean.remove, clean.strength, clean.level)
        wanted = x.double() @ folded.T + bias
        # The layer itself rounds: torchao and gguf multiply in float32, casting stores in fp8.
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


def test_the_video_changes_and_comes_back_bit_for_bit(model: Model, edit: Edit) -> None:
    before, inner = latents(model), model.pipeline.transformer
    held = {name: id(parameter) for name, parameter in inner.named_parameters()}
    with rc.applied(model, edit):
        assert not torch.equal(latents(model), before)
        with rc.applied(model, rc.with_strength(edit, 0.5)):
            half = latents(model)
        assert not torch.equal(half, latents(model)), "the outer edit is back"
    assert torch.equal(latents(model), before)
    assert {name: id(parameter) for name, parameter in inner.named_parameters()} == held
    assert not any(layer._forward_hooks for layer in model.layers.values())


def test_an_error_inside_leaves_nothing_beside_the_layers(model: Model, edit: Edit) -> None:
    before = latents(model)
    with pytest.raises(KeyError), rc.applied(model, edit):
        raise KeyError
    assert torch.equal(latents(model), before)


def test_full_precision_carries_the_edit_out(model: Model, edit: Edit, folder: Path, tmp_path: Path) -> None:
    """The file, the LoRA from the whole checkpoint read from disk, and the baked folder are one edit."""
    saved = rc.load_edit(rc.save_edit(edit, tmp_path / "edit.safetensors"))
    with pytest.raises(ModelError, match=r"quantised .* --checkpoint"):
        export_lora(saved, model, tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="bake the edit into the folder of full precision"):
        export_weights(saved, model, tmp_path / "none")
    lora = export_lora(saved, model, tmp_path / "lora.safetensors", checkpoint=folder)
    rc.bake(folder, saved, tmp_path / "baked")
    whole, baked, factors = weights_in(folder), weights_in(tmp_path / "baked"), load_file(lora.paths[0])
    assert lora.edited == len(edit.sites)
    for site in edit.sites:
        a, b = (factors[f"{site.name}.lora_{part}.weight"] for part in "AB")
        name = f"{site.name.partition('.')[2]}.weight"
        torch.testing.assert_close(whole[name] + b @ a, baked[name], rtol=1e-4, atol=1e-5)
        assert not torch.equal(baked[name], whole[name])


def test_what_replaces_weights_says_that_it_cannot(model: Model) -> None:
    name = next(name for name, layer in model.layers.items() if kind_of(layer))
    with (
        pytest.raises(ModelError, match=r"is quantised \(.*\): its numbers cannot be replaced"),
        rc.apply.replaced(model, {name: torch.zeros(1, 1)}),
    ):
        pass


def test_quantised_weights_take_less_memory(folder: Path) -> None:
    """As told before anything is loaded."""
    whole, small = (
        load.needed_bytes(str(folder), rc.LoadSettings(device="cpu", quantise=how))
        for how in ("none", "int8")
    )
    numbers = sum(tensor.numel() for tensor in weights_in(folder).values())
    assert whole is not None and small is not None
    assert whole - small == 3 * numbers, "three of the four bytes of float32"


@pytest.mark.skipif(HAS_TORCHAO, reason="this is the process with torchao")
def test_int8_by_torchao_passes_all_of_this() -> None:
    """In a process of its own, as diffusers imports torchao wherever it is."""
    apart = Path(sys.prefix) / "apart"
    assert apart.is_dir(), "tests/run.sh installs it"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "ignore",
        "-p",
        "no:cacheprovider",
        "-k",
        "int8 and not torchao",
        __file__,
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(apart)])}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
    assert re.search(r"\b7 passed, \d+ deselected", run.stdout), run.stdout[-500:]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:2000])


def no_gguf(file: Path) -> None:
    file.write_bytes(b"GGUF" + b"\xff" * 400)


@pytest.mark.parametrize("spoil", [cut, no_gguf])
def test_a_damaged_gguf_file_gives_one_sentence(
    spoil: Callable[[Path], None], folder: Path, packed: Path, tmp_path: Path
) -> None:
    file = tmp_path / "d.gguf"
    file.write_bytes(packed.read_bytes())
    spoil(file)
    with pytest.raises(FileError, match=r"'d\.gguf' is no \.gguf file that diffusers reads"):
        rc.load_model(str(folder), rc.LoadSettings(device="cpu", denoiser=file))


def test_a_gguf_file_of_another_model_is_refused(packed: Path, tmp_path: Path) -> None:
    build("wan").save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="give a file of the same model size"):
        rc.load_model(str(tmp_path / "other"), rc.LoadSettings(device="cpu", denoiser=packed))


def test_compiling_and_quantising_are_not_done_together() -> None:
    """A compiled block would not see what rides beside its layers."""
    with pytest.raises(InputError, match="Compile or quantise, not both"):
        rc.LoadSettings(quantise="int8", compiled=True)
