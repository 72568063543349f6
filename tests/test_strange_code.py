"""Code in what strangers send, as pickles and as Python, in a model's folder or a pack: none of it runs."""

from __future__ import annotations

import builtins
import io
import json
import pickle
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from strangers import watched

import refusal_core as rc
from refusal_core.errors import FileError, ModelError
from refusal_core.io.shards import expect_safetensors
from refusal_core.models.model import Model

pytestmark = pytest.mark.security
PARTS = ("transformer", "text_encoder", "vae")
Plant = Callable[[Path, Path], Path]


class Payload:
    """Unpickled, it would leave a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def detonate(path: Path) -> None:
    """Run a payload as a careless loader would."""
    if path.suffix == ".py":
        runpy.run_path(str(path))
    else:
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)


@pytest.fixture(scope="module")
def sound(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "tiny"
    tiny.pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a sound model, in a place that modules are imported from, as the current folder often is."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("a question on the terminal"))
    return Path(shutil.copytree(sound, tmp_path / "stranger"))


def update(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


# --- weights that are pickles --------------------------------------------------------------------------


def pickled(part: str, name: str) -> Plant:
    """Put a pickle in the place of a part's weights."""

    def plant(folder: Path, mark: Path) -> Path:
        (weights,) = (folder / part).glob("*.safetensors")
        weights.unlink()
        path = folder / part / (name or weights.name)
        torch.save({"weight": Payload(mark)}, path)
        if name == "hidden.bin":
            index = {"metadata": {"total_size": 1}, "weight_map": {"weight": name}}
            (folder / part / f"{weights.name}.index.json").write_text(json.dumps(index))
        return path

    return plant


def linked(folder: Path, mark: Path) -> Path:
    """Put an index that names a pickle behind a link to a folder."""
    path = pickled("text_encoder", "hidden.bin")(folder, mark)
    (folder / "text_encoder").rename(folder / "away")
    (folder / "text_encoder").symlink_to("away")
    return folder / "away" / path.name


def adapter(folder: Path, mark: Path) -> Path:
    """Put a pickled adapter beside sound weights, which transformers loads along."""
    config = {"peft_type": "LORA", "base_model_name_or_path": str(folder / "text_encoder"), "r": 1}
    (folder / "text_encoder" / "adapter_config.json").write_text(
        json.dumps({**config, "target_modules": ["q"]})
    )
    path = folder / "text_encoder" / "adapter_model.bin"
    torch.save({"weight": Payload(mark)}, path)
    return path


# --- code ----------------------------------------------------------------------------------------------


def module(path: Path, mark: Path) -> Path:
    """Write a module that leaves a file when it is run, and has the classes that may be looked for."""
    path.write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        "from diffusers import WanPipeline, WanTransformer3DModel\nclass Evil(WanTransformer3DModel): pass\n"
    )
    return path


def component(library: str, at: str) -> Plant:
    """Let the index take a class from a module of the folder."""

    def plant(folder: Path, mark: Path) -> Path:
        update(folder / "model_index.json", transformer=[library, "Evil"])
        return module(folder / at, mark)

    return plant


def pipeline(kind: object, at: str) -> Plant:
    """Put a module where a pipeline of one's own is looked for."""

    def plant(folder: Path, mark: Path) -> Path:
        update(folder / "model_index.json", _class_name=kind)
        return module(folder / at, mark)

    return plant


def automatic(part: str, library: str, auto: str, config: str, **changes: object) -> Plant:
    """Let a part's configuration name a class of its own."""

    def plant(folder: Path, mark: Path) -> Path:
        update(folder / "model_index.json", **{part: [library, auto]})
        update(folder / part / config, auto_map={auto: "evil.Evil"}, **changes)
        return module(folder / part / "evil.py", mark)

    return plant


def kernel(folder: Path, mark: Path) -> Path:
    """Let the configuration ask for an attention that is compiled code from the hub."""
    update(folder / "text_encoder" / "config.json", attn_implementation="stranger/kernel")
    return module(folder / "kernel.py", mark)


REFUSED: dict[str, Plant] = {
    **{f"{part} as .bin": pickled(part, "diffusion_pytorch_model.bin") for part in ("transformer", "vae")},
    "text_encoder as .bin": pickled("text_encoder", "pytorch_model.bin"),
    **{f"{part} named .safetensors": pickled(part, "") for part in PARTS},
    **{f"{part} by its index": pickled(part, "hidden.bin") for part in PARTS},
    "behind a link": linked,
    "adapter": adapter,
    "module of a part": component("evil", "transformer/evil.py"),
    "module like a library": lambda folder, mark: module(folder / "tokenizer" / "transformers.py", mark),
    "module on the path": component("stranger.evil", "evil.py"),
    "pipeline and module": pipeline(["pipeline", "WanPipeline"], "pipeline.py"),
    "pipeline by name": pipeline("EvilPipeline", "EvilPipeline.py"),
    "pipeline None": pipeline("WanPipeline", "None.py"),
    "transformer of its own": automatic(
        "transformer", "diffusers", "AutoModel", "config.json", _class_name="Evil"
    ),
    "encoder of its own": automatic(
        "text_encoder", "transformers", "AutoModel", "config.json", model_type="evil"
    ),
    "tokenizer of its own": automatic(
        "tokenizer", "transformers", "AutoTokenizer", "tokenizer_config.json", tokenizer_class="Evil"
    ),
    "kernel": kernel,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_brings_code_is_refused_and_the_code_never_runs(
    name: str, folder: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "pwned"
    payload = REFUSED[name](folder, mark)
    with watched(folder) as touched, pytest.raises((ModelError, FileError)) as caught:
        rc.load_model(str(folder))
    assert "pickle.find_class" not in touched
    assert not mark.exists()
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    detonate(payload)
    assert mark.exists(), "the payload is a dud, and the test with it"


def test_code_that_nothing_asks_for_lies_still(folder: Path, tmp_path: Path) -> None:
    marks = [tmp_path / f"pwned{i}" for i in range(4)]
    inside = ("pipeline.py", "transformer/evil.py", "__init__.py", "transformer/diffusers.py")
    at = [folder / path for path in inside]
    for path, mark in zip(at, marks, strict=True):
        module(path, mark)
    torch.save({"weight": Payload(marks[0])}, folder / "transformer" / "diffusion_pytorch_model.bin")
    update(folder / "transformer" / "config.json", auto_map={"AutoModel": "evil.Evil"})
    assert rc.load_model(str(folder)).sites
    assert not any(mark.exists() for mark in marks)


def test_a_denoiser_under_a_false_name_is_refused(folder: Path, tmp_path: Path) -> None:
    mark, path = tmp_path / "pwned", tmp_path / "denoiser.safetensors"
    torch.save({"weight": Payload(mark)}, path)
    with pytest.raises(FileError, match="is not a sound safetensors file"):
        rc.load_model(str(folder), rc.LoadSettings(denoiser=path))
    assert not mark.exists()


def test_baking_reads_no_pickle(folder: Path, tiny: Model, fire: rc.Concept, tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    edit = rc.make_edit(rc.estimate(rc.capture(tiny, fire)))
    pickled("transformer", "diffusion_pytorch_model.bin")(folder, mark)
    with pytest.raises(
        rc.RefusalError, match=r"holds \.bin files, which are not edited on disk; .* as safetensors"
    ):
        rc.bake(folder, edit, tmp_path / "out")
    assert not mark.exists()


# --- the index of weights ------------------------------------------------------------------------------


def test_a_model_in_several_files_is_loaded(tiny: Model, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    tiny.pipeline.save_pretrained(folder, max_shard_size="100KB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    assert list((folder / "text_encoder").glob("*.index.json"))
    found = rc.load_model(str(folder))
    assert len(found.sites) == len(tiny.sites)
    (first, *_) = sorted((folder / "transformer").glob("*.safetensors"))
    name, value = next(iter(load_file(first).items()))
    assert torch.equal(found.pipeline.transformer.state_dict()[name], value)


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        (
            '{"weight_map": {"a": "x.pt"}}',
            "model.safetensors.index.json names 'x.pt'; only safetensors beside",
        ),
        ('{"weight_map": {"a": "../x.safetensors"}}', "names '../x.safetensors'"),
        ('{"weight_map": {"a": "x.safetensors", "b": ["x.bin"]}}', "names '['x.bin']'"),
        ('{"weight_map": ["x.bin"]}', "is no sound index of weights; get the model again."),
        ('{"weight_map": {"a": 1e999}}', "is no sound index of weights"),
        ("[" * 5000, "is no sound index of weights"),
        ("[]", "is no sound index of weights"),
    ],
)
def test_an_index_may_name_safetensors_beside_it_only(index: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "part" / "model.safetensors.index.json"
    path.parent.mkdir()
    path.write_text('{"weight_map": {"a": "x.safetensors"}}')
    expect_safetensors(tmp_path)
    path.write_text(index)
    for at in (tmp_path, path.parent):
        with pytest.raises(FileError) as caught:
            expect_safetensors(at)
        assert sentence in str(caught.value)


# --- a review pack -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_named_like_a_review_pack_is_refused(form: str, tmp_path: Path) -> None:
    from refusal_core.workbench.review import load_pack

    mark, path = tmp_path / "pwned", tmp_path / "pack.zip"
    if form == "torch":  # a zip with a pickle inside
        torch.save({"weight": Payload(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Payload(mark)))
    with watched(tmp_path) as touched, pytest.raises(FileError, match="is not a sound review pack"):
        load_pack(path, tmp_path / "opened")
    assert touched == [] and not mark.exists()
