"""However weights are held (offloaded, wrapped, compiled, half precision), an edit is exact and undone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import accelerate
import httpx
import peft
import pytest
import torch
from huggingface_hub import ModelInfo
from huggingface_hub import errors as hub
from huggingface_hub.utils import SafetensorsFileMetadata, TensorInfo
from test_cli import run

import refusal_core as rc
from refusal_core.edit import Edit
from refusal_core.errors import InputError, MemoryLimitError, ModelError
from refusal_core.evaluate.family_steps import CONCEPT, latents
from refusal_core.evaluate.selftest import hashes
from refusal_core.models import hub_files, load
from refusal_core.models.devices import device_of
from refusal_core.models.discovery import describe_guess, guess_family
from refusal_core.models.families import LEFT_OUT
from refusal_core.models.model import Model, wrap_pipeline
from refusal_core.models.tiny import tiny_model

PRESETS = Path(__file__).resolve().parents[1] / "presets"


@pytest.fixture
def model() -> Model:
    return tiny_model("wan")


@pytest.fixture
def edit(model: Model) -> Edit:
    seen = rc.capture(model, CONCEPT, rc.CaptureSettings(kinds=("text", "cross-attention"), timesteps=2))
    return rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")))


@pytest.fixture
def expected(model: Model, edit: Edit) -> torch.Tensor:
    with rc.applied(model, edit):
        return latents(model)


def rewrapped(model: Model) -> Model:
    return replace(wrap_pipeline(model.pipeline, "again"), defaults=model.defaults)


def test_sequential_offload_is_edited_where_the_weights_are(model: Model, edit: Edit, expected) -> None:
    """The layers themselves are empty then: writing into them would change nothing, silently."""
    before = latents(model)
    accelerate.cpu_offload(model.pipeline.transformer, execution_device="cpu")
    held = rewrapped(model)
    assert next(iter(held.layers.values())).weight.device.type == "meta"
    with rc.applied(held, edit):
        torch.testing.assert_close(latents(held), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(latents(held), before, rtol=0, atol=0)
    captured = rc.capture(held, CONCEPT, rc.CaptureSettings(kinds=("text",)))
    assert all(s.unsafe.abs().max() > 0 for s in captured.sites.values())


@pytest.mark.parametrize("kind", ["leaf_level", "block_level"])
def test_group_offload_is_edited(model: Model, edit: Edit, expected, kind: str) -> None:
    cpu = torch.device("cpu")
    more = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    model.pipeline.transformer.enable_group_offload(cpu, cpu, offload_type=kind, **more)
    held = rewrapped(model)
    before = latents(held)
    with rc.applied(held, edit):
        torch.testing.assert_close(latents(held), expected, rtol=0, atol=1e-6)
    assert torch.equal(latents(held), before)


def test_below_an_adapter_the_base_is_edited(model: Model, edit: Edit) -> None:
    names = [s.name.removeprefix("transformer.") for s in edit.sites]
    config = peft.LoraConfig(r=2, target_modules=names, init_lora_weights=False)
    peft.inject_adapter_in_model(config, model.pipeline.transformer)
    held = rewrapped(model)
    assert {s.name for s in held.sites} == {s.name for s in model.sites}
    adapters = {n: p.clone() for n, p in model.pipeline.transformer.named_parameters() if "lora_" in n}
    before = latents(held)
    with rc.applied(held, edit):
        assert not torch.equal(latents(held), before)
    assert torch.equal(latents(held), before)
    after = dict(model.pipeline.transformer.named_parameters())
    assert adapters and all(torch.equal(after[n], p) for n, p in adapters.items())


def test_a_compiled_denoiser_is_edited(model: Model, edit: Edit, expected) -> None:
    before = latents(model)
    model.pipeline.transformer = torch.compile(model.pipeline.transformer, backend="eager")
    held = rewrapped(model)
    assert [s.name for s in held.sites] == [s.name for s in model.sites]
    torch.testing.assert_close(latents(held), before, rtol=0, atol=1e-5)
    with rc.applied(held, edit):
        torch.testing.assert_close(latents(held), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(latents(held), before, rtol=0, atol=1e-5)
    again = rc.capture(held, CONCEPT, rc.CaptureSettings(kinds=("cross-attention",), timesteps=2))
    assert len(again.sites) == 2


def test_fused_projections_are_refused_with_the_way_out(model: Model) -> None:
    model.pipeline.transformer.fuse_qkv_projections()
    with pytest.raises(ModelError, match="unfuse_qkv_projections"):
        rewrapped(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_edited_in_its_own_dtype(model: Model, edit: Edit, dtype: torch.dtype) -> None:
    model.pipeline.transformer.to(dtype)
    held = rewrapped(model)
    before = hashes(held)
    with rc.applied(held, edit):
        assert hashes(held) != before
        assert {held.layers[s.name].weight.dtype for s in edit.sites} == {dtype}
    assert hashes(held) == before


def test_a_quantised_layer_is_named_and_refused(model: Model) -> None:
    layer = model.pipeline.transformer.blocks[0].attn2.to_k
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(ModelError, match=r"float8_e4m3fn; edit the unquantised model"):
        rewrapped(model)


class Quantised(torch.Tensor):
    """As torchao's weights are: the layer stays a plain Linear and claims a usual dtype."""


class Linear4bit(torch.nn.Linear):
    """As bitsandbytes' layers are: packed bytes, in one column."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)
        packed = torch.zeros(layer.weight.numel() // 2, 1, dtype=torch.uint8)
        self.weight = torch.nn.Parameter(packed, requires_grad=False)


def as_torchao(layer: torch.nn.Linear) -> torch.nn.Linear:
    layer.weight = torch.nn.Parameter(layer.weight.data.as_subclass(Quantised), requires_grad=False)
    return layer


def as_bitsandbytes_8bit(layer: torch.nn.Linear) -> torch.nn.Linear:
    layer.weight = torch.nn.Parameter(layer.weight.data.to(torch.int8), requires_grad=False)
    return layer


@pytest.mark.parametrize(
    ("quantise", "name"),
    [
        (Linear4bit, "Linear4bit with a Parameter of torch.uint8"),
        (as_torchao, "Linear with a Quantised of torch.float32"),
        (as_bitsandbytes_8bit, "Linear with a Parameter of torch.int8"),
    ],
)
def test_layers_of_quantising_libraries_are_recognised(model: Model, quantise, name: str) -> None:
    """Stand-ins with the same kinds of layers and weights; an edit of packed bytes would be nonsense."""
    attention = model.pipeline.transformer.blocks[0].attn2
    attention.to_k = quantise(attention.to_k)
    with pytest.raises(ModelError, match=f"to_k is a {name}; edit the unquantised model, then quantise"):
        rewrapped(model)


# --- loading -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    model.pipeline.save_pretrained(tmp_path / "tiny-wan")
    return tmp_path / "tiny-wan"


def test_a_folder_loads_in_the_dtype_asked_for(folder: Path) -> None:
    found = rc.load_model(str(folder), rc.LoadSettings(dtype="bfloat16"))
    assert found.layers[found.sites[0].name].weight.dtype == torch.bfloat16 and found.precision == "bfloat16"
    assert found.pipeline.vae.dtype == torch.float32, "as diffusers' documentation loads it"


def _index(folder: Path, **changes: object) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_wrong_kind_of_model_is_told_before_its_weights_are_read(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(load, "_from_pretrained", lambda *_: pytest.fail("weights were read"))
    _index(folder, _class_name="FluxPipeline")
    with pytest.raises(ModelError, match="FluxPipeline is not supported yet"):
        rc.load_model(str(folder))
    with pytest.raises(ModelError, match="holds one model, no pipeline"):
        rc.load_model(str(folder / "transformer"))
    with pytest.raises(ModelError, match="is a single file"):
        rc.load_model(str(folder / "model_index.json"))
    (folder / "model_index.json").unlink()
    with pytest.raises(ModelError, match="cannot be loaded as a diffusers video pipeline"):
        rc.load_model(str(folder))


def test_a_language_model_is_told_that_it_is_no_video_pipeline(tmp_path: Path) -> None:
    """There is no pipeline's folder above it to be sent to."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ModelError, match=f"^'{tmp_path.name}' is no video pipeline: it lacks model_index.json"
    ):
        rc.load_model(str(tmp_path))


def test_a_folder_written_below_an_adapter_is_refused_in_one_sentence(model: Model, tmp_path: Path) -> None:
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["to_k"]), model.pipeline.transformer)
    model.pipeline.save_pretrained(tmp_path / "wrapped")
    with pytest.raises(
        ModelError, match=r"^transformer holds a LoRA \(blocks.*and 13 more\), no whole model"
    ):
        rc.load_model(str(tmp_path / "wrapped"))


def test_memory_is_reckoned_before_loading(folder: Path, monkeypatch) -> None:
    whole = load.needed_bytes(str(folder), rc.LoadSettings())
    half = load.needed_bytes(str(folder), rc.LoadSettings(dtype="bfloat16"))
    for dtype, needed in {"float32": whole, "bfloat16": half}.items():
        parts = rc.load_model(str(folder), rc.LoadSettings(dtype=dtype)).pipeline.components.values()
        numbers = [p for part in parts if hasattr(part, "parameters") for p in part.parameters()]
        assert all(p.element_size() == 4 for p in numbers) == (dtype == "float32")
        more = 1.1 if dtype == "bfloat16" else 1.0  # diffusers keeps a few numbers of Wan in float32
        assert needed <= sum(p.nbytes for p in numbers) <= more * needed
    monkeypatch.setattr(load, "needed_bytes", lambda *_: 10**15)
    with pytest.raises(MemoryLimitError, match=r"needs about 1000000 GB, \d+ GB are free: try"):
        rc.load_model(str(folder))


def test_of_a_model_on_the_hub_the_text_encoder_is_reckoned_too(monkeypatch) -> None:
    """From the headers on the hub: of Wan 2.1 1.3B the text encoder is four times the denoiser."""
    numbers = {
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors": {"BF16": 1_000_000_000},
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors": {"BF16": 400_000_000},
        "text_encoder/model.safetensors": {"F32": 5_600_000_000, "I64": 1},
        "text_encoder/model.fp16.safetensors": {"F16": 5_600_000_000},
        "vae/config.json": {},
        "vae/diffusion_pytorch_model.bin": 400_000,
        "loras/style.safetensors": {"F16": 7},
    }

    class Hub:
        def model_info(self, *_: object, **__: object) -> ModelInfo:
            files = [{"rfilename": n, "size": v if isinstance(v, int) else 1} for n, v in numbers.items()]
            return ModelInfo(id="a/b", siblings=files, tags=[])

        def parse_safetensors_file_metadata(
            self, _repo: str, file: str, **__: object
        ) -> SafetensorsFileMetadata:
            return SafetensorsFileMetadata(
                {}, {d: TensorInfo(d, [n], (0, 0)) for d, n in numbers[file].items()}
            )

    monkeypatch.setattr(hub_files, "HfApi", Hub)
    name, settings = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", rc.LoadSettings(dtype="bfloat16")
    whole = load.needed_bytes(name, settings)
    assert whole == 2 * (1_400_000_000 + 5_600_000_001) + 400_000, ".bin is taken for float32"

    def unreachable(*_: object, **__: object) -> None:
        raise hub.OfflineModeIsEnabled("offline")

    monkeypatch.setattr(Hub, "model_info", unreachable)
    denoiser = load.needed_bytes(name, settings)
    assert denoiser is not None and 2.8e9 < denoiser < 2.9e9, "what the table knows"
    assert load.needed_bytes("someone/something", settings) is None


def test_offloading_needs_a_gpu_to_make_sense(folder: Path) -> None:
    with pytest.raises(InputError, match="on a CPU alone leave it out"):
        rc.load_model(str(folder), rc.LoadSettings(device="cpu", offload="model"))
    with pytest.raises(InputError, match="offload 'disk' is not known"):
        rc.LoadSettings(offload="disk")


def test_an_unknown_pipeline_is_used_only_when_its_structure_is_confirmed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(LEFT_OUT, "WanVideoToVideoPipeline")
    _index(folder, _class_name="WanVideoToVideoPipeline")  # its class is no family's
    with pytest.raises(ModelError, match="not supported yet"):
        rc.load_model(str(folder))
    shown: list[str] = []
    with pytest.raises(ModelError, match="was not confirmed"):
        rc.load_model(str(folder), rc.LoadSettings(accept_guess=lambda text: bool(shown.append(text))))
    assert "blocks.*" in shown[0] and "attn2.to_out.0" in shown[0]
    found = rc.load_model(str(folder), rc.LoadSettings(accept_guess=lambda _text: True))
    assert {s.kind for s in found.sites} == {"text", "cross-attention", "feed-forward", "feed-forward-out"}


def test_the_structure_that_is_guessed_is_that_of_the_table() -> None:
    for name in ("wan", "ltx", "allegro"):
        model = tiny_model(name)
        guessed = wrap_pipeline(model.pipeline, "x", guess_family(model.pipeline))
        known = {s.name for s in model.sites if s.kind in ("text", "cross-attention", "feed-forward")}
        assert known <= {s.name for s in guessed.sites}
        assert "structure guessed" in describe_guess(guessed.family)
    with pytest.raises(ModelError, match="No list of blocks with cross-attention"):
        guess_family(tiny_model("mochi").pipeline)


def answered(kind: type[hub.HfHubHTTPError], status: int) -> hub.HfHubHTTPError:
    """What huggingface_hub raises for an answer of the hub."""
    return kind("no", response=httpx.Response(status, request=httpx.Request("GET", "http://x")))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (answered(hub.GatedRepoError, 403), "is gated; accept its licence on the hub, then set HF_TOKEN."),
        (answered(hub.RepositoryNotFoundError, 404), "is not on the hub, or private; check the name"),
        (answered(hub.RevisionNotFoundError, 404), "has no such revision; give a branch, tag or commit"),
        (answered(hub.RemoteEntryNotFoundError, 404), "is no video pipeline: it lacks model_index.json"),
        (answered(hub.HfHubHTTPError, 500), "the hub cannot be reached; check the connection"),
        (hub.LocalEntryNotFoundError("not in the cache"), "the hub cannot be reached; check the connection"),
        (hub.OfflineModeIsEnabled("offline"), "the hub cannot be reached; check the connection"),
        (hub.HTTPError("proxy"), "the hub cannot be reached; check the connection"),
        (ValueError("no name of a model"), "cannot be loaded as a diffusers video pipeline"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_hub_refuses_is_said_in_one_sentence(monkeypatch, error: Exception, sentence: str) -> None:
    """diffusers puts an OSError of its own around what the hub said."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("diffusers.configuration_utils.hf_hub_download", refuse)
    with pytest.raises(ModelError, match=f"^'someone/something' .*{sentence}"):
        rc.load_model("someone/something", rc.LoadSettings(revision="v9"))


@pytest.mark.parametrize("asked", ["cuda:9", "abacus", "meta", "cpu:x"])
def test_a_device_that_is_not_here_gets_one_sentence(folder: Path, asked: str) -> None:
    with pytest.raises(InputError, match=f"There is no device '{asked}' here; choose one of auto, cpu"):
        rc.load_model(str(folder), rc.LoadSettings(device=asked))


def test_the_commands_take_device_and_denoiser_and_hand_them_on(
    folder: Path, model: Model, tmp_path: Path, monkeypatch, capsys
) -> None:
    from safetensors.torch import load_file, save_file

    from refusal_core.edit import load_edit

    weights = load_file(next((folder / "transformer").glob("*.safetensors")))
    other = tmp_path / "other.safetensors"
    save_file({key: value + 0.01 for key, value in weights.items()}, other)
    (folder / "studio.json").write_text(json.dumps({"defaults": asdict(model.defaults)}))
    content = json.loads((PRESETS / "fire.json").read_text())
    content["pairs"] = [asdict(pair) for pair in CONCEPT.pairs]  # short ones, as this model reads few tokens
    preset = tmp_path / "fire.json"
    preset.write_text(json.dumps(content | {"neutral": CONCEPT.neutral, "prompt": "a robot"}))
    loading = rc.LoadSettings(device="cpu", denoiser=other)
    made = []
    for number, more in enumerate(([], ["--device", "cpu", "--denoiser", str(other)])):
        out = tmp_path / f"{number}.safetensors"
        words = ["edit", "--preset", str(preset), "--model", str(folder), "--out", str(out)]
        assert run(monkeypatch, *words, *more) == 0
        made.append(load_edit(out).model.weights)
    assert made[0] != made[1], "another denoiser, another model"
    assert made[1] == rc.load_model(str(folder), loading).fingerprint.weights


def test_each_process_of_a_launcher_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert device_of("auto") == "cuda:1"
    assert device_of("cuda:3") == "cuda:3"
    monkeypatch.delenv("LOCAL_RANK")
    assert device_of("auto") == "cuda"
