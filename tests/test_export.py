"""Exports: exact, whole or not at all, and readable by others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from huggingface_hub import CommitOperationAdd
from safetensors.torch import load_file, save_file
from test_cli import run
from test_workbench import request

import refusal_core as rc
from refusal_core.edit import Edit, save_edit
from refusal_core.errors import FileError, InputError, ModelError
from refusal_core.evaluate.family_steps import CONCEPT, latents
from refusal_core.evaluate.selftest import random_edit
from refusal_core.export import bake as baking
from refusal_core.export.hub import publish
from refusal_core.io import shards
from refusal_core.io.video import load_video
from refusal_core.models.model import Model, wrap_pipeline
from refusal_core.models.tiny import tiny_model
from refusal_core.workbench.exporting import export as export_edit
from refusal_core.workbench.workbench import Workbench

KEY = "blocks.0.attn2.to_k.weight"


@pytest.fixture(scope="module")
def edit(tiny: Model, fire: rc.Concept) -> Edit:
    seen = rc.capture(tiny, fire, rc.CaptureSettings(kinds=("text", "feed-forward"), timesteps=2))
    return rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(rank=2)))


@pytest.fixture(scope="module")
def anchored(tiny: Model, fire: rc.Concept) -> Edit:
    seen = rc.capture(tiny, fire, rc.CaptureSettings(kinds=("text",)))
    return rc.make_edit(rc.estimate(seen), rc.EditSettings(anchor="mean"))


@pytest.fixture
def checkpoint(tiny: Model, tmp_path: Path) -> Path:
    """The tiny denoiser in several shards, beside a file that is no weight."""
    tiny.pipeline.transformer.save_pretrained(tmp_path / "model" / "transformer", max_shard_size="300KB")
    (tmp_path / "model" / "notes.txt").write_text("kept")
    assert len(list((tmp_path / "model" / "transformer").glob("*.safetensors"))) > 3
    return tmp_path / "model"


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


def test_lora_factors_in_the_file_are_the_fold(tiny: Model, edit: Edit, tmp_path: Path) -> None:
    written = rc.export_lora(edit, tiny, tmp_path / "lora.safetensors")
    factors = load_file(written.paths[0])
    before = {s.name: tiny.layers[s.name].weight.detach().clone() for s in edit.sites}
    with rc.applied(tiny, edit):
        for site in edit.sites:
            a, b = (factors[f"{site.name}.lora_{part}.weight"] for part in "AB")
            torch.testing.assert_close(before[site.name] + b @ a, tiny.layers[site.name].weight.data)
    assert "load_lora_weights" in written.snippet


def test_in_comfyui_s_names_hunyuan_s_parts_are_rows_of_the_layers_they_are_stacked_in(
    tmp_path: Path,
) -> None:
    """Against the weights themselves, edited and not, put together as ComfyUI has them."""
    model = tiny_model("hunyuan")
    kinds = tuple(dict.fromkeys(site.kind for site in model.sites))
    seen = rc.capture(model, CONCEPT, rc.CaptureSettings(kinds=kinds, timesteps=2))
    edit = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")))
    (path,) = rc.export_lora(edit, model, tmp_path / "lora.safetensors", naming="comfyui").paths
    factors = load_file(path)
    before = {name: layer.weight.detach().clone() for name, layer in model.layers.items()}
    with rc.applied(model, edit):
        moved = {name: layer.weight.detach() - before[name] for name, layer in model.layers.items()}
    inner = {name.removeprefix("transformer."): delta for name, delta in moved.items()}
    wanted = {"txt_in.input_embedder": inner["context_embedder.proj_in"]}
    for i in range(len(model.pipeline.transformer.transformer_blocks)):
        k, v = (inner[f"transformer_blocks.{i}.attn.add_{part}_proj"] for part in "kv")
        wanted[f"double_blocks.{i}.txt_attn_qkv"] = torch.cat([torch.zeros_like(k), k, v])
        wanted[f"double_blocks.{i}.img_attn_proj"] = inner[f"transformer_blocks.{i}.attn.to_out.0"]
    for i in range(len(model.pipeline.transformer.single_transformer_blocks)):
        mlp = inner[f"single_transformer_blocks.{i}.proj_mlp"]
        attention = mlp.new_zeros(3 * mlp.shape[1], mlp.shape[1])
        wanted[f"single_blocks.{i}.linear1"] = torch.cat([attention, mlp])
    assert wanted["double_blocks.0.txt_attn_qkv"].norm() > 0
    for name, delta in wanted.items():
        a, b = (factors[f"diffusion_model.{name}.lora_{part}.weight"] for part in "AB")
        torch.testing.assert_close(b @ a, delta, rtol=1e-4, atol=1e-6)
    assert len({len(factors[key]) for key in factors if ".lora_A." in key}) == 1, (
        "one rank: loaders scale by it"
    )


def test_a_lora_refuses_what_it_cannot_carry(tiny: Model, anchored: Edit, edit: Edit, tmp_path: Path) -> None:
    target = tmp_path / "lora.safetensors"
    with pytest.raises(InputError, match="no LoRA carries"):
        rc.export_lora(anchored, tiny, target)
    none = replace(tiny, family=replace(tiny.family, lora=None))
    with pytest.raises(ModelError, match="export baked weights instead"):
        rc.export_lora(edit, none, target)
    with pytest.raises(ModelError, match="names for"):
        unnamed = replace(tiny, family=replace(tiny.family, comfyui={}))
        rc.export_lora(edit, unnamed, target, naming="comfyui")
    assert not list(tmp_path.iterdir())


def test_baking_equals_applying_and_touches_nothing_else(
    tiny: Model, edit: Edit, checkpoint: Path, tmp_path: Path
) -> None:
    done = rc.bake(checkpoint, edit, tmp_path / "out")
    baked, original = weights_of(tmp_path / "out" / "transformer"), weights_of(checkpoint / "transformer")
    with rc.applied(tiny, edit):
        for name, value in tiny.pipeline.transformer.state_dict().items():
            assert torch.equal(baked[name], value), name
    changed = {name for name in original if not torch.equal(original[name], baked[name])}
    assert changed == {f"{site.name.partition('.')[2]}.weight" for site in edit.sites}
    assert done.edited == len(edit.sites)
    assert (tmp_path / "out" / "notes.txt").read_text() == "kept"
    recipe = json.loads((tmp_path / "out" / "unlearning.json").read_text())
    assert recipe["origins"][0]["concept"] == "fire"


def test_baking_moves_a_bias_too(tiny: Model, anchored: Edit, checkpoint: Path, tmp_path: Path) -> None:
    rc.bake(checkpoint, anchored, tmp_path / "out")
    baked = weights_of(tmp_path / "out" / "transformer")
    with rc.applied(tiny, anchored):
        for name, value in tiny.pipeline.transformer.state_dict().items():
            assert torch.equal(baked[name], value), name


def test_baking_keeps_half_precision(tiny: Model, edit: Edit, checkpoint: Path, tmp_path: Path) -> None:
    for path in (checkpoint / "transformer").glob("*.safetensors"):
        save_file({k: v.bfloat16() for k, v in load_file(path).items()}, path)
    rc.bake(checkpoint, edit, tmp_path / "out")
    baked = weights_of(tmp_path / "out" / "transformer")
    assert {v.dtype for v in baked.values()} == {torch.bfloat16}


def test_baking_leaves_nothing_behind_when_it_fails(edit: Edit, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileError, match="is no folder"):
        rc.bake(tmp_path / "missing", edit, out)
    shard = next(p for p in (checkpoint / "transformer").glob("*.safetensors") if _holds_a_site(p, edit))
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) - 100])
    with pytest.raises(FileError, match="not a sound safetensors file"):
        rc.bake(checkpoint, edit, out)
    shard.unlink()
    with pytest.raises(FileError, match="has no tensor"):
        rc.bake(checkpoint, edit, out)
    out.mkdir()
    with pytest.raises(FileError, match="exists"):
        rc.bake(checkpoint, edit, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "out"]
    assert not list(out.iterdir())


def _holds_a_site(path: Path, edit: Edit) -> bool:
    wanted = {f"{site.name.partition('.')[2]}.weight" for site in edit.sites}
    return bool(wanted & set(load_file(path)))


def test_a_full_disk_is_one_sentence(edit: Edit, checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(baking, "_transfer", full)
    with pytest.raises(FileError, match="No space left"):
        rc.bake(checkpoint, edit, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize(
    "header",
    [
        b"not json at all.",
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 999]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [8, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}',
        b'{"a": 3}',
        b"[]",
    ],
)
def test_a_header_that_lies_is_refused(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(FileError, match=r"x\.safetensors is not a sound safetensors file"):
        shards.read_index(tmp_path)


def test_exported_weights_are_a_whole_pipeline(tiny: Model, edit: Edit, tmp_path: Path) -> None:
    rc.export_weights(edit, tiny, tmp_path / "unlearned")
    saved = weights_of(tmp_path / "unlearned" / "transformer")
    with rc.applied(tiny, edit):
        for site in edit.sites:
            assert torch.equal(saved[f"{site.name.partition('.')[2]}.weight"], tiny.layers[site.name].weight)
    assert (tmp_path / "unlearned" / "model_index.json").exists()
    with pytest.raises(FileError, match="nothing is overwritten"):
        rc.export_weights(edit, tiny, tmp_path / "unlearned")
    shutil.rmtree(tmp_path / "unlearned")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_weights_are_written_in_the_precision_they_had(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CPU computes in float32, which is no reason to write twice the bytes."""
    tiny = tiny_model("wan")
    tiny.pipeline.transformer.to(getattr(torch, dtype))
    tiny.pipeline.save_pretrained(tmp_path / "base")
    model = rc.load_model(str(tmp_path / "base"))
    assert model.precision == "float32"
    edit = random_edit(model, model.sites, 1, torch.Generator().manual_seed(0))
    save_edit(edit, tmp_path / "edit.safetensors")
    words = ["export", "--edit", str(tmp_path / "edit.safetensors"), "--model", str(tmp_path / "base")]
    assert run(monkeypatch, *words, "--form", "weights", "--out", str(tmp_path / "out")) == 0
    assert f"{len(model.sites)} layers edited, weights in {dtype}" in capsys.readouterr().out
    base, out = (weights_of(tmp_path / name / "transformer")[KEY] for name in ("base", "out"))
    assert base.dtype == out.dtype and not torch.equal(base, out)


def test_weights_below_an_adapter_are_not_written(tmp_path: Path) -> None:
    """PEFT renames them, so that nothing could read the folder again."""
    model = tiny_model("wan")
    seen = rc.capture(model, CONCEPT, rc.CaptureSettings(kinds=("text",)))
    edit = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")))
    config = peft.LoraConfig(r=2, target_modules=["to_k"])
    peft.inject_adapter_in_model(config, model.pipeline.transformer)
    held = replace(wrap_pipeline(model.pipeline, "again"), defaults=model.defaults)
    with pytest.raises(ModelError, match=r"into transformer; unload it .* or export the edit as a LoRA"):
        rc.export_weights(edit, held, tmp_path / "unlearned")
    assert not list(tmp_path.iterdir())
    assert rc.export_lora(edit, held, tmp_path / "lora.safetensors").paths[0].exists()


def test_an_export_is_refused_for_another_model(edit: Edit, tmp_path: Path) -> None:
    """Without this a LoRA of nothing was written, or half of one."""
    other = tiny_model("ltx")
    for write in (rc.export_lora, rc.export_weights):
        with pytest.raises(ModelError, match="made for WanPipeline with another configuration"):
            write(edit, other, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_one_denoisers_folder_gets_its_own_part_of_an_edit(tmp_path: Path) -> None:
    """The two experts of Wan 2.2 have layers of the same names."""
    model = tiny_model("wan-2.2")
    seen = rc.capture(model, CONCEPT, rc.CaptureSettings(kinds=("text-entry", "text")))
    edit = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")))
    assert {site.name.partition(".")[0] for site in edit.sites} == {"transformer", "transformer_2"}
    folder = tmp_path / "pipeline"
    for name in ("transformer", "transformer_2"):
        getattr(model.pipeline, name).save_pretrained(folder / name)
    baking.bake(folder, edit, tmp_path / "both")
    baking.bake(folder / "transformer_2", edit, tmp_path / "second")
    whole, alone = weights_of(tmp_path / "both" / "transformer_2"), weights_of(tmp_path / "second")
    assert all(torch.equal(whole[name], alone[name]) for name in whole)
    assert any(not torch.equal(whole[name], t) for name, t in weights_of(folder / "transformer_2").items())
    (folder / "transformer").rename(tmp_path / "renamed")
    with pytest.raises(FileError, match="give the folder with both, not renamed"):
        baking.bake(tmp_path / "renamed", edit, tmp_path / "third")


def test_an_edit_too_large_to_be_read_again_is_not_written(edit: Edit, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("refusal_core.edit.MAX_BYTES", 1000)
    with pytest.raises(FileError, match="is the limit: take fewer layers or ranks"):
        save_edit(edit, tmp_path / "edit.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_card_of_a_model_of_two_experts_loads_both_loras(tmp_path: Path, edit: Edit) -> None:
    file = save_edit(edit, tmp_path / "edit.safetensors")
    for name in ("lora.safetensors", "lora-2.safetensors"):
        (tmp_path / name).write_bytes(b"")
    done = publish(file, "me/unlearned", lora=tmp_path / "lora.safetensors")
    assert done.files == ("README.md", "edit.safetensors", "lora.safetensors", "lora-2.safetensors")
    assert 'load_lora_weights("lora-2.safetensors", adapter_name="unlearned1", load_into_tr' in done.card


def test_push_shows_first_and_names_its_limits(edit: Edit, tmp_path: Path) -> None:
    path = save_edit(edit, tmp_path / "fire.safetensors")
    shown = publish(path, "someone/fire-free")
    assert "no guarantee" in shown.card
    assert edit.origins[0].pairs[0][0] in shown.card
    assert shown.files == ("README.md", "fire.safetensors")
    with pytest.raises(InputError, match="is no name on the hub"):
        publish(path, "../../etc")


@pytest.mark.parametrize("name", ["wan", "wan-2.2", "mochi", "hunyuan", "wan-i2v", "latte"])
def test_the_lines_that_come_with_an_export_give_the_edited_model_and_a_video(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with nothing but what was exported."""
    tiny = tiny_model(name)
    tiny.pipeline.save_pretrained(tmp_path / "models" / "base")
    monkeypatch.chdir(tmp_path / "models")  # the model is called by a path that holds nowhere else
    model = replace(rc.load_model("base"), defaults=tiny.defaults, extras=tiny.extras)
    seen = rc.capture(model, CONCEPT, rc.CaptureSettings(kinds=("text",)))
    edit = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")))
    before = latents(model)
    with rc.applied(model, edit):
        wanted = latents(model)
    assert (wanted - before).abs().max() > 1e-3
    forms = [rc.export_weights, *([rc.export_lora] if model.family.lora else [])]
    for number, write in enumerate(forms):
        empty = tmp_path / str(number)
        empty.mkdir()
        monkeypatch.chdir(tmp_path / "models")
        written = write(edit, model, empty / "made.safetensors")
        assert written.edited == len(edit.sites)
        monkeypatch.chdir(empty)
        lines: dict[str, Any] = {}
        exec(compile(written.snippet, "snippet", "exec"), lines)
        again = replace(wrap_pipeline(lines["pipe"], "again"), defaults=tiny.defaults, extras=tiny.extras)
        torch.testing.assert_close(latents(again), wanted, rtol=0, atol=1e-5)
        assert load_video(empty / "unlearned.mp4")[0].fps == tiny.defaults.fps


def test_of_a_finetune_the_lines_load_the_finetune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_model("wan")
    tiny.pipeline.save_pretrained(tmp_path / "base")
    weights = {name: tensor + 0.01 for name, tensor in weights_of(tmp_path / "base" / "transformer").items()}
    save_file(weights, tmp_path / "tuned.safetensors")
    monkeypatch.chdir(tmp_path)
    loading = rc.LoadSettings(denoiser=Path("tuned.safetensors"), dtype="bfloat16")
    model = replace(rc.load_model("base", loading), defaults=tiny.defaults)
    edit = rc.make_edit(rc.estimate(rc.capture(model, CONCEPT)))
    (tmp_path / "empty").mkdir()
    written = rc.export_lora(edit, model, tmp_path / "empty" / "lora.safetensors")
    lines: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path / "empty")
    exec(compile(written.snippet.partition("video = pipe(")[0], "snippet", "exec"), lines)
    loaded = lines["pipe"].transformer.blocks[0].attn2.to_q.weight
    assert torch.equal(loaded, weights["blocks.0.attn2.to_q.weight"].bfloat16())


def test_the_app_s_exports_run_in_an_empty_folder(tmp_path: Path) -> None:
    """Of a bundled model, in a process of its own; a folder comes as a zip, and is unpacked as zips are."""
    bench = Workbench("toyworld")
    script = []
    for form in ("edit", "lora", "weights"):
        made = export_edit(bench, request(bench), form, session="export")
        (tmp_path / form).mkdir()
        for path in made.paths:
            shutil.copy(path, tmp_path / form)
            if path.suffix == ".zip":
                shutil.unpack_archive(path, tmp_path / form)
        snippet = made.snippet.replace('"your prompt"', '"a red circle"')
        script += [f"os.chdir({str(tmp_path / form)!r})", f"exec({snippet!r}, {{}})"]
        assert ("lora.safetensors" in made.card) == (form == "lora"), "the card loads what is there"
    bench.close()
    run = [sys.executable, "-W", "ignore", "-c", "\n".join(["import os", *script])]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    made_videos = [load_video(tmp_path / form / "unlearned.mp4")[0] for form in ("edit", "lora", "weights")]
    assert {video.fps for video in made_videos} == {8.0}


class FakeHub:
    """Takes what ``push --go`` sends, as the hub's client hands it over."""

    sent: dict[str, bytes] = {}  # noqa: RUF012 - filled by the one test that reads it
    error: Exception | None = None

    def __init__(self, token: str | None = None) -> None:
        assert token is None, "from the environment, never from an argument"

    def create_repo(self, repository: str, *, exist_ok: bool) -> None:
        assert (repository, exist_ok) == ("someone/fire-free", True)

    def create_commit(self, _: str, operations: list[CommitOperationAdd], *, commit_message: str) -> None:
        if self.error:
            raise self.error
        for operation in operations:
            with operation.as_file() as file:
                self.sent[operation.path_in_repo] = file.read()


def test_push_go_sends_card_edit_and_lora_in_one_commit(
    tiny: Model, edit: Edit, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    file = save_edit(edit, tmp_path / "fire.safetensors")
    (lora,) = rc.export_lora(edit, tiny, tmp_path / "lora.safetensors").paths
    words = ["push", "--edit", str(file), "--lora", str(lora), "--to", "someone/fire-free"]
    for more in ([], ["--go"]):
        assert run(monkeypatch, *words, *more) == 0
        assert set(FakeHub.sent) == ({"README.md", file.name, lora.name} if more else set())
    assert FakeHub.sent["fire.safetensors"] == file.read_bytes()
    assert b"no guarantee" in FakeHub.sent["README.md"]
    assert "https://huggingface.co/someone/fire-free" in capsys.readouterr().out
    monkeypatch.setattr(FakeHub, "error", ValueError("no such namespace"))
    with pytest.raises(ModelError, match="The hub refused 'someone/fire-free'; log in"):
        publish(file, "someone/fire-free", send=True)
    monkeypatch.setattr(FakeHub, "error", ConnectionError("no route"))
    with pytest.raises(ModelError, match="The hub cannot be reached"):
        publish(file, "someone/fire-free", send=True)
