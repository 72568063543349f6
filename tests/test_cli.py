"""The command line: fixed names and fields, one sentence and exit code 2 on bad input."""

from __future__ import annotations

import inspect
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from refusal_core import capturing
from refusal_core.cli import main
from refusal_core.concepts import load_preset
from refusal_core.evaluate.methods.treatments import DEFAULT_METHODS
from refusal_core.evaluate.suites.toyworld import CELLS
from refusal_core.io.video import load_video
from refusal_core.models.load import ASSETS
from refusal_core.models.model import Model
from refusal_core.toyworld.judge import NO_CONCEPT, load_judge


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["refusal_core", *arguments])
    try:
        main()
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def test_help_names_every_command_without_loading_torch() -> None:
    """Torch alone takes seconds to import; the answer must not wait for it."""
    code = (
        "import sys; sys.argv=['refusal_core','--help']\n"
        "from refusal_core.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    for command in ("edit", "info", "compare", "evaluate", "bench", "toyworld", "app"):
        assert command in done.stdout
    for panel in ("Use: ", "Measure: ", "Models: ", "Develop: "):
        assert panel in done.stdout


def test_help_takes_less_than_a_second_of_computing() -> None:
    """Of the CPU's time, so that other work on the machine does not count; the best of three."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "refusal_core", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 1.0


def test_tables_are_written_as_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert run(monkeypatch, "models", "--json", str(file)) == 0
    families = {row["id"]: row for row in json.loads(file.read_text())["families"]}
    assert families["wan"]["frames"] == 81
    assert run(monkeypatch, "models", "show", "toyworld", "--json", str(file)) == 0
    assert json.loads(file.read_text())["shapes"]
    assert run(monkeypatch, "models", "selftest", "wan", "--json", str(file)) == 0
    (family,) = json.loads(file.read_text())["families"]
    assert family["id"] == "wan"
    assert set(family["steps"]) >= {"capture", "edit", "undo", "save", "lora", "bake"}
    assert all(set(step) == {"ok", "why"} and step["ok"] is True for step in family["steps"].values())
    golden = Path(__file__).parent / "golden"
    assert run(monkeypatch, "info", str(golden / "edit-whitened.safetensors"), "--json", str(file)) == 0
    assert json.loads(file.read_text())["origins"][0]["concept"] == "fire"
    assert run(monkeypatch, "report", str(golden / "report.json"), "--json", str(file)) == 0
    assert json.loads(file.read_text())["rows"][0]["concept"]
    assert run(monkeypatch, "votes", str(golden / "review-pack.zip"), "--json", str(file)) == 0
    assert json.loads(file.read_text())["cells"]


def test_no_command_takes_more_than_six_values() -> None:
    from refusal_core.cli import COMMANDS

    for commands in COMMANDS.values():
        for command in commands:
            assert len(inspect.signature(command).parameters) <= 6, command


def test_compare_writes_three_videos_and_the_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "a large blue square on fire moving right over sky"
    code = run(
        monkeypatch, "compare", "--model", "toyworld", "--preset", "fire", "--prompt", prompt, "--seed", "7",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    names = {"original.mp4", "unlearned.mp4", "side_by_side.mp4", "recipe.json"}
    assert {p.name for p in tmp_path.iterdir()} == names
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    named = [edit["concept"]["name"] for edit in recipe["edits"]]
    assert (recipe["prompt"], recipe["sampling"]["seed"], named) == (prompt, 7, ["fire"])
    video, inside = load_video(tmp_path / "unlearned.mp4")
    assert inside == {**recipe, "shows": "unlearned"}
    assert len(video.frames) == 17


def test_edit_reads_the_neutral_prompts_that_are_named_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read: list[list[str]] = []
    real = capturing.neutral_readings

    def seen(model: Model, prompts: list[str], *rest: object) -> object:
        read.append(list(prompts))
        return real(model, prompts, *rest)

    monkeypatch.setattr(capturing, "neutral_readings", seen)
    listed = tmp_path / "mine.txt"
    listed.write_text("a red circle\na large blue square\na green circle\na red square\n", encoding="utf-8")
    edit = ("edit", "--preset", "fire", "--out", str(tmp_path / "edit.safetensors"))
    assert run(monkeypatch, *edit, "--neutral", str(listed), "--neutral-count", "2") == 0
    assert run(monkeypatch, *edit, "--neutral-count", "3") == 0
    assert read[0] == ["a red circle", "a green circle"]
    neutral = load_preset("fire").concept.neutral
    assert read[-1] == [neutral[0], neutral[len(neutral) // 3], neutral[2 * len(neutral) // 3]]


def test_edit_then_info_prints_recipe_and_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fire.safetensors"
    code = run(
        monkeypatch, "edit", "--model", "toyworld", "--preset", "fire", "--sites", "text,cross-attention",
        "--layers", "2-3", "--rank", "2", "--strength", "0.5", "--method", "cpca", "--out", str(file),
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert "6 sites" in capsys.readouterr().out
    assert run(monkeypatch, "info", str(file)) == 0
    out = capsys.readouterr().out
    assert "fire: cpca, rank 2, strength 0.5" in out
    for layer in (2, 3):
        for site in ("to_k", "to_v", "to_out.0"):
            assert f"transformer.blocks.{layer}.attn2.{site}" in out


def test_evaluate_writes_the_fixed_fields(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    code = run(
        monkeypatch,
        "evaluate",
        "--model",
        "toyworld",
        "--preset",
        "fire",
        "--videos",
        "2",
        "--json",
        str(file),
    )
    assert code == 0, capsys.readouterr().err
    report = json.loads(file.read_text())
    assert (report["model"], report["concept"]) == ("toyworld", "fire")
    cells = report["cells"]
    assert [(c["method"], c["prompts"]) for c in cells] == [(m, p) for m in DEFAULT_METHODS for p in CELLS]
    for cell in cells:
        assert cell["n"] == 2
        assert 0 <= cell["judged"] <= 2
        assert set(cell["unsafe"]) == {"rate", "low", "high"}
        assert cell["unsafe"]["low"] <= cell["unsafe"]["rate"] <= cell["unsafe"]["high"]
        assert set(cell["kept"]) == {"colour", "shape", "motion", "background"}
    out = capsys.readouterr().out
    assert all(f"| {method} |" in out for method in DEFAULT_METHODS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("compare", "--preset", "nothing", "--out", "x"), "There is no preset 'nothing'; choose one of"),
        (
            ("compare", "--preset", "fire", "--layers", "7-99", "--out", "x"),
            "Layer 99 does not exist; this model",
        ),
        (("compare", "--preset", "fire", "--layers", "a", "--out", "x"), "Layers 'a' cannot be read"),
        (("compare", "--preset", "fire", "--layers", "3-1", "--out", "x"), "run backwards"),
        (
            ("compare", "--preset", "fire", "--prompt", " ", "--out", "x"),
            "The prompt is empty; write a prompt, or",
        ),
        (("compare", "--preset", "fire", "--seed", "-1", "--out", "x"), "seed is -1; it must lie from 0"),
        (("compare", "--preset", "fire", "--sites", "brain", "--out", "x"), "site 'brain' is not known"),
        (("compare", "--preset", "fire", "--method", "magic", "--out", "x"), "method 'magic' is not known"),
        (
            ("compare", "--preset", "fire", "--rank", "0", "--out", "x"),
            "rank is 0; it must lie from 1 to 128.",
        ),
        (("compare", "--model", "no/such-model", "--out", "x"), "'no/such-model' cannot be loaded"),
        (("edit", "--out", "x.bin"), "'x.bin' must end in .safetensors."),
        (("edit", "--pairs", "none.json", "--out", "x.safetensors"), "none.json does not exist"),
        (("info", "none.safetensors"), "none.safetensors does not exist; check the name."),
        (("evaluate", "--methods", "magic", "--videos", "1"), "Method 'magic' is not known"),
        (("evaluate", "--preset", "real-gore", "--videos", "1"), "The toy world has no concept 'real-gore'"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(monkeypatch, *arguments) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_stopping_by_the_keyboard_leaves_nothing_half_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from refusal_core import sampling

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "generate", interrupt)
    assert run(monkeypatch, "compare", "--preset", "fire", "--out", str(tmp_path / "out")) == 130
    assert "Stopped. Nothing was left half-written." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_models_are_listed_and_shown_from_their_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "models") == 0
    listed = capsys.readouterr().out
    for family in ("unet3d", "wan", "hunyuan", "cogvideox", "Left out"):
        assert family in listed
    assert run(monkeypatch, "models", "show", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers") == 0
    assert "30 x cross-attention" in capsys.readouterr().out
    assert run(monkeypatch, "models", "show", "nobody/nothing") == 2


def test_an_edit_is_exported_baked_and_shown_for_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = str(tmp_path / "fire.safetensors")
    assert run(monkeypatch, "edit", "--preset", "fire", "--out", edit) == 0
    for form in ("lora", "comfyui"):
        out = str(tmp_path / f"{form}.safetensors")
        assert run(monkeypatch, "export", "--edit", edit, "--form", form, "--out", out) == 0
        assert (tmp_path / f"{form}.safetensors").exists()
    checkpoint = str(ASSETS / "toyworld-wan")
    out = str(tmp_path / "baked")
    assert run(monkeypatch, "bake", "--checkpoint", checkpoint, "--edit", edit, "--out", out) == 0
    capsys.readouterr()
    assert run(monkeypatch, "compare", "--model", out, "--preset", "fire", "--out", str(tmp_path / "v")) == 0
    frames = load_video(tmp_path / "v" / "original.mp4")[0].frames[:, 3::6, 3::6]  # files are enlarged
    judged = load_judge().read([frames])[0]
    assert judged.values["concept"] == NO_CONCEPT, "the baked model has unlearned it without any edit"
    assert run(monkeypatch, "push", "--edit", edit, "--to", "someone/fire-free") == 0
    assert "Nothing was sent" in capsys.readouterr().out
    assert run(monkeypatch, "export", "--edit", edit, "--form", "gguf", "--out", edit) == 2
