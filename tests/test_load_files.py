"""Files as others write them: nothing that a loader lacks or leaves over goes unsaid.

The twins have the names, scales and marks of published files, and a tiny network's numbers.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelInfo
from safetensors.torch import load_file, save_file
from torch import Tensor

import refusal_core as rc
from refusal_core.errors import FileError, InputError, ModelError
from refusal_core.evaluate.family_steps import CONCEPT
from refusal_core.models import hub_files, load
from refusal_core.models.load import needed_bytes
from refusal_core.models.tiny import build, tiny_model

KEY = "blocks.0.attn2.to_k.weight"
# diffusers' names of Wan -> those of the published files, which ComfyUI keeps
ORIGINAL = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    (r"^scale_shift_table", "head.modulation"),
    ("scale_shift_table", "modulation"),
    ("proj_out", "head.head"),
    ("attn1", "self_attn"),
    ("attn2", "cross_attn"),
    (r"to_out\.0", "o"),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.norm2\.", ".norm3."),
    (r"ffn\.net\.0\.proj", "ffn.0"),
    (r"ffn\.net\.2", "ffn.2"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound Wan model of one expert."""
    made = tmp_path_factory.mktemp("sound") / "wan"
    build("wan").save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def weights(folder: Path) -> dict[str, Tensor]:
    """Of its denoiser, larger than a fresh network's, as fp8 has few steps near zero."""
    return {name: 3 * tensor for name, tensor in load_file(*(folder / "transformer").glob("*.safe*")).items()}


def original(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        for pattern, new in ORIGINAL:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    return renamed


def scaled(weights: dict[str, Tensor], scale: str, *, rows: bool = False) -> dict[str, Tensor]:
    """Put the blocks' matrices into fp8, each with the scale that brings it back."""
    made = dict(weights)
    for name, tensor in weights.items():
        if tensor.ndim == 2 and name.startswith("blocks."):
            top = tensor.abs().amax(1) if rows else tensor.abs().max()
            factor = top / 448
            by = factor[:, None] if rows else factor
            made[name] = (tensor / by).to(torch.float8_e4m3fn)
            made[name.replace("weight", scale)] = factor.float()
    return made


def denoiser(folder: Path, file: Path, dtype: str = "float32") -> dict[str, Tensor]:
    model = rc.load_model(str(folder), rc.LoadSettings(denoiser=file, dtype=dtype))
    return dict(model.pipeline.transformer.state_dict())


# --- a single file for the denoiser ---------------------------------------------------------------------

MARK = {"format": "float8_e4m3fn"}
FORMS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "diffusers' names": lambda w: w,
    "original names": original,
    "with a prefix": lambda w: {f"model.diffusion_model.{k}": v for k, v in original(w).items()},
    "with another prefix": lambda w: {f"diffusion_model.{k}": v for k, v in original(w).items()},
    "fp8 scaled": lambda w: (
        scaled(original(w), "scale_weight")
        | {
            "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn),
            "blocks.0.ffn.0.scale_input": torch.ones(1),
        }
    ),
    "fp8 with marks": lambda w: (
        scaled(original(w), "weight_scale")
        | {
            "blocks.0.ffn.0.comfy_quant": torch.tensor(list(json.dumps(MARK).encode()), dtype=torch.uint8),
            "blocks.0.ffn.0.input_scale": torch.ones(()),
        }
    ),
    "fp8 by rows": lambda w: scaled(w, "weight_scale", rows=True),
    "fp8 without scales": lambda w: {
        k: v.to(torch.float8_e4m3fn) if v.ndim == 2 else v for k, v in original(w).items()
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_a_denoiser_comes_from_a_file_however_it_was_written(
    form: str, folder: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(FORMS[form](weights), tmp_path / "other.safetensors")
    loaded = denoiser(folder, tmp_path / "other.safetensors")
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        away = (loaded[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-9)
        assert away < (0.07 if "fp8" in form else 1e-9), name


def test_scales_count_in_half_precision_too(folder: Path, weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(scaled(weights, "scale_weight"), tmp_path / "other.safetensors")
    loaded = denoiser(folder, tmp_path / "other.safetensors", "bfloat16")[KEY]
    assert loaded.dtype == torch.bfloat16
    assert (loaded - weights[KEY]).abs().max() < 0.07 * weights[KEY].abs().max()


LORA = {f"blocks.0.attn2.to_k.lora_{side}.weight": torch.ones(1) for side in "AB"}
KOHYA = {f"lora_unet_blocks_0_cross_attn_k.{end}": torch.ones(1) for end in ("lora_up.weight", "alpha")}
SCALE = KEY.replace("weight", "weight_scale")
REFUSED: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "a LoRA": (lambda _w: LORA, "'x.safetensors' is a LoRA, no denoiser; fuse it into its base"),
    "a LoRA of kohya": (lambda _w: KOHYA, "'x.safetensors' is a LoRA, no denoiser; fuse it into its base"),
    "half of it": (
        lambda w: {k: v for k, v in w.items() if "blocks.1" not in k},
        "'x.safetensors' lacks blocks.1.attn1.norm_k.weight, blocks.1.attn1.norm_q.weight,"
        " blocks.1.attn1.to_k.bias and 24 more; get the whole model.",
    ),
    "half of it, original": (
        lambda w: {k: v for k, v in original(w).items() if "blocks.1" not in k},
        "'x.safetensors' lacks blocks.1.attn1.norm_k.weight, ",
    ),
    "another kind": (
        lambda _w: {"double_blocks.0.img_attn.qkv.weight": torch.ones(3, 3)},
        "'x.safetensors' is no WanTransformer3DModel; give a file of this kind of model.",
    ),
    "another size": (
        lambda w: w | {KEY: torch.ones(48, 24)},
        f"{KEY} of 'x.safetensors' is [48, 24], the model's is [24, 24]; give a file of the same model size.",
    ),
    "something more": (
        lambda w: w | {"blocks.0.attn2.add_k_proj.weight": torch.ones(24, 24)},
        "'x.safetensors' holds blocks.0.attn2.add_k_proj.weight, which its class does not use",
    ),
    "scales by blocks": (
        lambda w: scaled(w, "weight_scale") | {SCALE: torch.ones(24, 3)},
        "'x.safetensors' is quantised in a way that is not read (blocks.0.attn2.to_k.weight_scale)",
    ),
    "scales of bytes": (
        lambda w: w | {KEY: torch.ones(24, 24, dtype=torch.uint8), SCALE: torch.ones(1)},
        "'x.safetensors' is quantised in a way that is not read (blocks.0.attn2.to_k.weight_scale)",
    ),
    "a second scale": (
        lambda w: scaled(w, "weight_scale") | {f"{SCALE}_2": torch.ones(1)},
        "holds blocks.0.attn2.to_k.weight_scale_2, which its class does not use",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_whole_denoiser_is_named_as_what_it_is(
    name: str, folder: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    make, sentence = REFUSED[name]
    save_file(make(weights), tmp_path / "x.safetensors")
    with pytest.raises(ModelError) as caught:
        denoiser(folder, tmp_path / "x.safetensors")
    assert sentence in str(caught.value)


def test_a_file_in_the_place_of_a_model_is_named_as_what_it_is(
    folder: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(LORA, tmp_path / "lora.safetensors")
    save_file(weights, tmp_path / "whole.safetensors")
    with pytest.raises(ModelError, match=r"^'lora.safetensors' is a LoRA, no model; fuse it into its base"):
        rc.load_model(str(tmp_path / "lora.safetensors"))
    with pytest.raises(ModelError, match=r"holds one network; give its pipeline's folder .* as --denoiser"):
        rc.load_model(str(tmp_path / "whole.safetensors"))
    with pytest.raises(FileError, match=r"is no \.safetensors or \.gguf file"):
        denoiser(folder, tmp_path / "other.ckpt")


def test_each_of_two_experts_may_come_from_a_file_of_its_own(
    folder: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    build("wan-2.2").save_pretrained(tmp_path / "two")
    for number in (1, 2):
        save_file(weights | {KEY: weights[KEY] + number}, tmp_path / f"{number}.safetensors")
    files = {"denoiser": tmp_path / "1.safetensors", "denoiser_2": tmp_path / "2.safetensors"}
    pipeline = rc.load_model(str(tmp_path / "two"), rc.LoadSettings(**files)).pipeline
    for number, part in ((1, pipeline.transformer), (2, pipeline.transformer_2)):
        assert torch.equal(part.state_dict()[KEY], weights[KEY] + number)
    with pytest.raises(InputError, match="This model has one denoiser; leave --denoiser-2 out"):
        rc.load_model(str(folder), rc.LoadSettings(**files))


# --- a folder ------------------------------------------------------------------------------------------


def change(folder: Path, part: str, add: dict[str, Tensor], lose: str = "") -> None:
    (path,) = (folder / part).glob("*.safetensors")
    kept = {name: tensor.clone() for name, tensor in load_file(path).items() if name != lose}
    save_file(kept | add, path, {"format": "pt"})


ENCODER = "encoder.block.0.layer.0.SelfAttention.q.weight"
FOLDERS: dict[str, tuple[str, dict[str, Tensor], str, str]] = {
    "scales in the denoiser": (
        "transformer",
        {"blocks.0.attn2.to_k.scale_weight": torch.ones(1)},
        "",
        "transformer holds blocks.0.attn2.to_k.scale_weight, which its class does not use",
    ),
    "a LoRA in the denoiser": ("transformer", LORA, "", "transformer holds a LoRA (blocks.0.attn2.to_k.lora"),
    "a hole in the denoiser": ("transformer", {}, KEY, f"transformer lacks {KEY}; get the whole model."),
    "a hole in the text encoder": ("text_encoder", {}, ENCODER, f"text_encoder lacks {ENCODER}"),
    "a hole in the decoder": ("vae", {}, "decoder.conv_in.bias", "vae lacks decoder.conv_in.bias"),
    "scales in the text encoder": (
        "text_encoder",
        {ENCODER.replace("weight", "scale_weight"): torch.ones(1)},
        "",
        "SelfAttention.q.scale_weight, which its class does not use",
    ),
    "a LoRA in the text encoder": (
        "text_encoder",
        {ENCODER.replace("weight", "lora_A.weight"): torch.ones(1)},
        "",
        "text_encoder holds a LoRA",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_what_a_part_lacks_or_leaves_over_is_refused_by_name(name: str, tmp_path: Path) -> None:
    part, add, lose, sentence = FOLDERS[name]
    build("wan").save_pretrained(tmp_path)
    change(tmp_path, part, add, lose)
    with pytest.raises(ModelError) as caught:
        rc.load_model(str(tmp_path))
    assert sentence in str(caught.value)


def test_what_changes_nothing_may_be_left_over(tmp_path: Path) -> None:
    """A language model's head beside the encoder, and a table that the network computes."""
    build("wan").save_pretrained(tmp_path)
    change(tmp_path, "text_encoder", {"lm_head.weight": torch.ones(1)})
    change(tmp_path, "transformer", {"pos_embed.pos_embed": torch.ones(1), "rope.freqs": torch.ones(1)})
    assert rc.load_model(str(tmp_path)).sites


def test_an_adapter_beside_a_parts_weights_is_refused(tmp_path: Path) -> None:
    build("wan").save_pretrained(tmp_path)
    (tmp_path / "transformer" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="transformer has an adapter beside its weights; fuse it"):
        rc.load_model(str(tmp_path))


# --- .bin ------------------------------------------------------------------------------------------------

# What lies beside the parts of cerspense/zeroscope_v2_576w, as it is published.
BESIDE = ("README.md", ".gitattributes", "model_index.json", "zs2_576w/open_clip_pytorch_model.bin")
BIN = "diffusion_pytorch_model.bin"


@pytest.fixture(scope="module")
def zeroscope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A UNet3D pipeline as ZeroScope is published: its UNet and decoder are .bin files only."""
    made = tmp_path_factory.mktemp("published") / "zeroscope"
    build("unet3d").save_pretrained(made)
    for part in ("unet", "vae", "text_encoder"):
        (path,) = (made / part).glob("*.safetensors")
        name = "pytorch_model.bin" if part == "text_encoder" else BIN
        torch.save(load_file(path), made / part / name)
        if part != "text_encoder":
            path.unlink()
    (made / "zs2_576w").mkdir()
    (made / "zs2_576w" / "open_clip_pytorch_model.bin").write_bytes(b"no part of the pipeline")
    return made


def test_zeroscope_loads_as_it_is_published(zeroscope: Path) -> None:
    model, fresh = rc.load_model(str(zeroscope)), build("unet3d")
    for part in ("unet", "vae", "text_encoder"):
        loaded = getattr(model.pipeline, part).state_dict()
        expected = getattr(fresh, part).state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items()), part
    needed = needed_bytes(str(zeroscope), rc.LoadSettings())
    whole = sum(
        p.nbytes for part in ("unet", "vae", "text_encoder") for p in getattr(fresh, part).parameters()
    )
    assert whole <= needed <= 1.2 * whole, "a zip's own bytes count where tensors are this small"


def test_of_the_hub_each_part_is_fetched_in_one_format(
    zeroscope: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(path.relative_to(zeroscope)) for path in zeroscope.rglob("*") if path.is_file()]
    fetched: list[str] = []

    class Hub:
        def model_info(self, *_: object, **__: object) -> ModelInfo:
            listed = [{"rfilename": name} for name in (*files, *BESIDE)]
            return ModelInfo(id="a/b", siblings=listed, tags=[])

    def fetch(_repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        fetched.extend(allow_patterns)
        for name in allow_patterns:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(zeroscope / name, tmp_path / name)
        return str(tmp_path)

    monkeypatch.setattr(hub_files, "HfApi", Hub)
    monkeypatch.setattr(hub_files, "snapshot_download", fetch)
    monkeypatch.setattr(load, "check_memory", lambda *_: None)
    monkeypatch.setattr(
        load, "_pipeline_config", lambda *_: json.loads((zeroscope / "model_index.json").read_text())
    )
    assert rc.load_model("cerspense/zeroscope_v2_576w").sites
    weights = {name for name in fetched if name.endswith((".bin", ".safetensors"))}
    assert weights == {f"unet/{BIN}", f"vae/{BIN}", "text_encoder/model.safetensors"}
    assert "tokenizer/tokenizer_config.json" in fetched and "scheduler/scheduler_config.json" in fetched


def test_weights_on_disk_that_are_no_safetensors_are_edited_by_an_export(
    zeroscope: Path, tmp_path: Path
) -> None:
    model = rc.load_model(str(zeroscope))
    model = replace(model, defaults=tiny_model("unet3d").defaults)
    edit = rc.make_edit(rc.estimate(rc.capture(model, CONCEPT), rc.SubspaceSettings(method="rv")))
    with pytest.raises(FileError, match=r"^unet holds \.bin files.*`export --form weights` writes the whole"):
        rc.bake(zeroscope, edit, tmp_path / "baked")
    rc.export_weights(edit, model, tmp_path / "exported")
    assert all(list((tmp_path / "exported" / part).glob("*.safetensors")) for part in ("unet", "vae"))


def test_an_index_of_bin_files_may_name_those_beside_it_only(zeroscope: Path, tmp_path: Path) -> None:
    shutil.copytree(zeroscope, tmp_path / "x")
    index = tmp_path / "x" / "unet" / f"{BIN}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": f"../../{BIN}"}}))
    with pytest.raises(FileError, match="only bin beside it are read"):
        rc.load_model(str(tmp_path / "x"))
