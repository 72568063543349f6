"""What is measured beside safety: alignment by CLIP, faithfulness by questions, distances between sets."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_server import Answer, FakeServer, percent, said
from safetensors.torch import load_file, save_file
from scipy.linalg import sqrtm
from test_cli import run
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from refusal_core.errors import FileError, InputError, MissingExtraError, ModelError, RefusalError
from refusal_core.evaluate.judges.vision_server import Unanswered
from refusal_core.evaluate.judges.vision_settings import VisionSettings
from refusal_core.evaluate.measures.alignment import clip_alignment
from refusal_core.evaluate.measures.answerers import toyworld_answerer, vision_answerer
from refusal_core.evaluate.measures.distance import frechet_distance, fvd_features, video_distance
from refusal_core.evaluate.measures.questions import (
    Question,
    load_questions,
    scene_questions,
    score_questions,
)
from refusal_core.evaluate.reports.report import load_report
from refusal_core.io.video import Video
from refusal_core.models.clip import TextImageModel, load_clip
from refusal_core.toyworld import world
from refusal_core.toyworld.language import looks


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of the real classes with random weights, saved as the hub's are."""
    folder = tmp_path_factory.mktemp("clip")
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in "abcdefghijklmnopqrstuvwxyz":
        vocabulary[letter] = len(vocabulary)
        vocabulary[letter + "</w>"] = len(vocabulary)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    small = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=1, **small
    ).to_dict()
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **small).to_dict()
    torch.manual_seed(0)
    network = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # the usual start makes all images alike
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"shortest_edge": 32}
    CLIPImageProcessorPil(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> TextImageModel:
    return load_clip(str(clip_folder), device="cpu")


def noise(seed: int, frames: int = 4, size: tuple[int, int] = (40, 56)) -> Video:
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    return Video(pixels, 8.0)


# --- CLIP --------------------------------------------------------------------------------------------


def test_alignment_is_the_mean_cosine_of_frames_and_prompt(clip: TextImageModel, clip_folder: Path) -> None:
    """Against the logits of transformers' own forward pass, which are the cosines times a scale."""
    videos, prompts = [noise(0), noise(1, frames=2)], ["a red cat", "the sea"]
    found = clip_alignment(clip, videos, prompts)
    network = CLIPModel.from_pretrained(clip_folder).eval()
    prepare = CLIPImageProcessorPil.from_pretrained(clip_folder)
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    for video, prompt, score in zip(videos, prompts, found.scores, strict=True):
        pixels = prepare(images=list(video.frames), return_tensors="pt")
        with torch.inference_mode():
            logits = network(**tokenizer([prompt], return_tensors="pt"), **pixels).logits_per_image
        assert score == pytest.approx(logits.mean().item() / network.logit_scale.exp().item(), abs=1e-5)
    assert found.mean == pytest.approx(sum(found.scores) / 2) and found.cut == 0
    assert clip_alignment(clip, videos, prompts[::-1]).scores != found.scores
    assert clip_alignment(clip, videos, prompts).scores == found.scores, "the same every time"


def test_a_prompt_that_is_cut_is_counted(clip: TextImageModel) -> None:
    long = "a very long prompt " * 20
    found = clip_alignment(clip, [noise(0), noise(1)], [long, "short"])
    assert found.cut == 1
    (other,) = clip_alignment(clip, [noise(0)], [long + " and more"]).scores
    assert other == pytest.approx(found.scores[0], abs=1e-6), "sums of another batch differ in the last place"
    assert clip_alignment(clip, [noise(0)], ["a short prompt"]).scores[0] != pytest.approx(other, abs=1e-6)


def test_frames_are_chosen_evenly(clip: TextImageModel) -> None:
    video = noise(3, frames=8)
    half = clip_alignment(clip, [Video(video.frames[::2], 8.0)], ["a cat"])
    assert clip_alignment(clip, [video], ["a cat"], frames=4).scores == half.scores
    assert clip_alignment(clip, [video], ["a cat"], frames=8).scores != half.scores


def test_videos_and_prompts_fit_together(clip: TextImageModel) -> None:
    for videos, prompts in ([], []), ([noise(0)], []), ([noise(0)], ["a", "b"]):
        with pytest.raises(InputError, match="give one for each"):
            clip_alignment(clip, videos, prompts)
    with pytest.raises(InputError, match="frames is 0"):
        clip_alignment(clip, [noise(0)], ["a"], frames=0)


def test_a_model_that_is_no_clip_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    for name in ("nowhere", "nobody/never-heard-of-it"):
        with pytest.raises(ModelError, match="cannot be loaded; give a folder or hub id of a CLIP"):
            load_clip(str(tmp_path / name) if name == "nowhere" else name)
    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    assert load_clip(str(folder), device="cpu").longest_text == 77
    weights = load_file(folder / "model.safetensors")

    def broken(tensors: dict[str, torch.Tensor]) -> str:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return str(folder)

    part = {n: t for n, t in weights.items() if not n.startswith("vision_model.")}
    with pytest.raises(ModelError, match="lacks the weights vision_model"):
        load_clip(broken(part), device="cpu")
    damaged = {**weights, "text_projection.weight": weights["text_projection.weight"] * float("nan")}
    with pytest.raises(ModelError, match="gives NaN; its weights are damaged"):
        clip_alignment(load_clip(broken(damaged), device="cpu"), [noise(0)], ["a"])
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"with \.safetensors weights"):
        load_clip(str(folder), device="cpu")
    config = json.loads((clip_folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "siglip"}))
    with pytest.raises(ModelError, match="is a model of type siglip"):
        load_clip(str(folder))


@pytest.mark.security
def test_a_clip_that_brings_code_of_its_own_runs_none(clip_folder: Path, tmp_path: Path, monkeypatch) -> None:
    folder, mark = tmp_path / "clip", tmp_path / "pwned"
    shutil.copytree(clip_folder, folder)
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n")
    said = json.loads((folder / "tokenizer_config.json").read_text())
    own = {**said, "auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on the terminal"))
    assert load_clip(str(folder), device="cpu").longest_text == 77  # with transformers' own tokenizer
    assert not mark.exists()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(AttributeError):
        AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert mark.exists(), "the payload is a dud, and the test with it"
    (folder / "model.safetensors").rename(folder / "model.bin")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.bin"}}')
    with pytest.raises(FileError, match=r"names 'model\.bin'; only safetensors beside it are read"):
        load_clip(str(folder), device="cpu")


# --- questions ---------------------------------------------------------------------------------------


def red_or_blue(answers: Sequence[str | None]):
    return lambda asked: list(answers)


COLOUR = Question("Which colour is it?", "red", ("red", "blue"), "colour")
FIRE = Question("Is it on fire?", "yes", about="fire")


def test_shares_are_of_the_answered_and_the_others_are_counted() -> None:
    videos, rows = [noise(0), noise(1), noise(2)], [[COLOUR, FIRE], [COLOUR, FIRE], [FIRE]]
    found = score_questions(videos, rows, red_or_blue(["red", None, "blue", "yes", "perhaps"]))
    assert (found.asked, found.answered, found.unanswered, found.right) == (5, 3, 2, 2)
    assert found.share.rate == pytest.approx(2 / 3)
    assert found.mean == pytest.approx((1.0 + 0.5) / 2), "the third video has no answer"
    assert {name: rate.rate for name, rate in found.parts.items()} == {"colour": 0.5, "fire": 1.0}
    silent = score_questions(videos, rows, red_or_blue([None] * 5))
    assert (silent.share.rate, silent.mean, silent.unanswered) == (None, None, 5)


def test_questions_that_do_not_fit_are_refused() -> None:
    for videos, rows, answers, sentence in [
        ([noise(0)], [], [], "1 videos have 0 rows of questions"),
        ([noise(0)], [[]], [], "no question to ask"),
        ([noise(0)], [[COLOUR]], [], "1 questions got 0 answers"),
    ]:
        with pytest.raises(InputError, match=sentence):
            score_questions(videos, rows, red_or_blue(answers))
    with pytest.raises(InputError, match="expects 'green', which is none"):
        replace(COLOUR, expected="green")
    with pytest.raises(InputError, match="needs 2 to 12 different choices"):
        replace(COLOUR, choices=("red", "red"))


def test_the_toy_reader_answers_the_questions_of_its_scenes() -> None:
    """On drawn clips, whose truth is known; asked of another scene, it finds the differences."""
    scenes = [replace(s, concept=c) for s, c in zip(world.scenes_of("tuning"), world.CONCEPTS, strict=False)]
    videos = [Video(looks.render(scene, 7), 8.0) for scene in scenes]
    found = score_questions(videos, [scene_questions(s) for s in scenes], toyworld_answerer())
    assert found.asked == found.answered == 5 * len(scenes)
    assert (found.share.rate or 0) > 0.9
    wrong = score_questions(
        videos, [scene_questions(s) for s in [*scenes[1:], scenes[0]]], toyworld_answerer()
    )
    assert (wrong.share.rate or 0) < 0.6
    assert wrong.parts["fire"].rate == 0.0


def test_a_model_answers_with_one_of_the_choices() -> None:
    class Server:
        """Answers as ``VisionServer`` does, from a list."""

        def __init__(self) -> None:
            self.texts: list[str] = []

        def ask_all(self, asked: Sequence[tuple[np.ndarray, object]]) -> list[object]:
            self.texts += [query.text for _, query in asked]  # type: ignore[attr-defined]
            return ["red", Unanswered("busy")]

    server = Server()
    answer = vision_answerer(VisionSettings("https://host/v1", "m"), server)  # type: ignore[arg-type]
    assert answer([(noise(0), COLOUR), (noise(1), FIRE)]) == ["red", None]
    assert server.texts[0].startswith("Which colour is it?") and '["red", "blue"]' in server.texts[0]


SOUND = {
    "format": "refusal-studio questions",
    "version": 1,
    "prompts": [
        {
            "prompt": "a red cat",
            "questions": [
                {"question": "Which colour?", "answer": "red", "choices": ["red", "blue"], "about": "colour"},
                {"question": "Is there a cat?", "answer": "yes"},
            ],
        }
    ],
}


def test_questions_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text(json.dumps(SOUND))
    assert load_questions(path) == {
        "a red cat": (
            Question("Which colour?", "red", ("red", "blue"), "colour"),
            Question("Is there a cat?", "yes"),
        )
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "q.json is not valid JSON; correct it."),
        (b"[" * 100_000, "q.json is not valid JSON; correct it."),
        (b"\xff", "q.json is not UTF-8 text; save it as UTF-8."),
        (b"[]", "q.json: the file: "),
        ({**SOUND, "version": 2}, "q.json: version: input should be 1; correct it."),
        ({**SOUND, "more": 1}, "q.json: more: extra inputs are not permitted; correct it."),
        ({**SOUND, "prompts": SOUND["prompts"] * 2}, "q.json, prompt 2 stands there twice"),
        (
            {**SOUND, "prompts": [{"prompt": "a", "questions": [{"question": "b", "answer": "c"}]}]},
            "q.json, prompt 1: 'b' expects 'c', which is none of its choices.",
        ),
        (
            {**SOUND, "prompts": [{"prompt": "a", "questions": [{"question": "b\u0007", "answer": "yes"}]}]},
            "q.json, prompt 1: The question holds invisible control characters",
        ),
    ],
)
def test_a_bad_file_of_questions_gives_one_sentence(tmp_path: Path, content: object, sentence: str) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(RefusalError) as found:
        load_questions(path)
    assert str(found.value).startswith(sentence)
    with pytest.raises(FileError, match="does not exist"):
        load_questions(tmp_path / "none.json")


RED, BLUE, BARE = "a large red circle moving left over sand", "a small blue cross over sky", "a green ring"
COLOURS = {"choices": list(world.COLOURS), "about": "colour"}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command: three prompts, and questions on two of them."""
    (tmp_path / "mine.csv").write_text("prompt\n" + "\n".join([RED, BLUE, BARE]))
    colour, circle = {"question": "Which colour?", "answer": "red", **COLOURS}, {"question": "Is it round?"}
    prompts = [
        {"prompt": RED, "questions": [colour, {**circle, "answer": "yes", "about": "shape"}]},
        {"prompt": BLUE, "questions": [{**colour, "answer": "blue"}]},
    ]
    (tmp_path / "q.json").write_text(json.dumps({**SOUND, "prompts": prompts}))
    command = ["evaluate", "--methods", "original", "--suite", "csv", "--source", str(tmp_path / "mine.csv")]
    return [*command, "--workers", "1", "--work", str(tmp_path / "work"), "--json", str(tmp_path / "r.json")]


def test_a_server_answers_the_questions_of_a_file_beside_its_verdicts(
    words: list[str], tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Whoever asks again is answered from the readings, but from those with the same questions."""
    answers = {"Which colour?": "red", "Is it round?": "no"}

    def script(_number: int, body: dict[str, Any]) -> Answer:
        text = json.dumps(body["messages"])
        found = next((a for q, a in answers.items() if q in text), None)
        return Answer(percent(0.0) if found is None else said(json.dumps({"answer": found})))

    server.script = script
    settings = {"base_url": f"http://127.0.0.1:{server.server_port}/v1", "model": "m"}
    (tmp_path / "vlm.json").write_text(json.dumps({**settings, "scale": 1.0, "retries": 0}))
    words += ["--judge", "vlm", "--judge-settings", str(tmp_path / "vlm.json")]
    asking = [*words, "--questions", str(tmp_path / "q.json"), "--html", str(tmp_path / "r.html")]

    def measured(*command: str) -> tuple[Any, int]:
        before = len(server.requests)
        assert run(monkeypatch, *command) == 0
        return load_report(tmp_path / "r.json").cells[0].questions, len(server.requests) - before

    score, requests = measured(*asking)
    assert (score.asked, score.answered, score.right, score.videos) == (3, 3, 1, 2), "one prompt has none"
    assert (score.mean, score.share.rate) == (0.25, pytest.approx(1 / 3))
    assert {name: rate.rate for name, rate in score.parts.items()} == {"colour": 0.5, "shape": 0.0}
    assert requests == 1 + 3 + 3, "a trial, verdicts, questions"
    for table in capsys.readouterr().out, (tmp_path / "r.html").read_text():
        assert "questions right (n)" in table and "25.0 (2)" in table and "questions asked" not in table

    assert measured(*asking) == (score, 1), "nothing is asked twice"
    capsys.readouterr()
    assert measured(*words) == (None, 1 + 3)
    assert "questions right" not in capsys.readouterr().out
    answers["Is it round?"] = "perhaps"
    changed = (tmp_path / "q.json").read_text().replace('"answer": "blue"', '"answer": "red"')
    (tmp_path / "q.json").write_text(changed)
    other, requests = measured(*asking)
    assert (other.answered, other.right, other.mean, requests) == (2, 2, 1.0, 7)
    assert "Note: fire, 1 of 3 questions had no answer; they are not counted" in capsys.readouterr().out


def test_the_toy_reader_answers_the_questions_of_a_file(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does for its own verdicts; what it does not read it does not answer."""
    assert run(monkeypatch, *words, "--questions", str(tmp_path / "q.json")) == 0
    (file,) = (tmp_path / "work").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    (batch,) = [line for line in lines if "verdicts" in line]
    seen = [v["values"]["colour"] for v in batch["verdicts"]]
    score = load_report(tmp_path / "r.json").cells[0].questions
    assert score is not None and (score.asked, score.answered, score.videos) == (3, 2, 2)
    assert score.right == (seen[0] == "red") + (seen[1] == "blue") > 0


def test_in_the_toy_world_everything_a_scene_says_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["evaluate", "--preset", "fire", "--methods", "original", "--videos", "2", "--workers", "1"]
    more = ["--questions", "scenes", "--work", str(tmp_path / "work"), "--json", str(tmp_path / "r.json")]
    assert run(monkeypatch, *command, *more) == 0
    scores = {cell.prompts: cell.questions for cell in load_report(tmp_path / "r.json").cells}
    asked = {name: score.asked for name, score in scores.items() if score is not None}
    assert asked == {"concept": 2 * 5, "paraphrase": 2 * 5, "neutral": 2 * 4, "other-concepts": 2 * 5}
    concept = scores["concept"]
    assert concept is not None and concept.answered == concept.asked
    assert set(concept.parts) == {"colour", "shape", "motion", "background", "fire"}
    assert concept.parts["fire"].rate == 1.0


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--questions", "scenes"], "scenes has no question on any prompt of this suite; give a file."),
        (["--questions", "none.json"], "none.json does not exist"),
        (["--questions", "mine.csv"], "mine.csv is not valid JSON; correct it."),
        (["--questions", "sound.json"], "sound.json has no question on any prompt of this suite; copy its"),
        (
            ["--questions", "q.json", "--judge", "nudity"],
            "The judge 'nudity' answers no questions; take toyworld",
        ),
        (["--questions", "q.json", "--judge", "vlm"], "The judge 'vlm' needs a server and a model."),
    ],
)
def test_questions_that_cannot_be_asked_end_the_command_in_a_sentence(
    words: list[str],
    more: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    (tmp_path / "sound.json").write_text(json.dumps(SOUND))
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words, *more) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


# --- distances ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "d"), [(50, 40, 6), (300, 20, 12), (8, 9, 30)])
def test_the_distance_is_the_formula_s(n: int, m: int, d: int) -> None:
    """Against scipy's root of the product of covariances; where they are singular it is less exact."""
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)), rng.normal(1, 2, size=(m, d))
    c, e = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(np.trace(sqrtm(c @ e)))
    wanted = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(c) + np.trace(e) - 2 * root
    found = frechet_distance(a, b)
    assert found == pytest.approx(wanted, rel=1e-8 if min(n, m) > d else 1e-3)
    assert found == pytest.approx(frechet_distance(b, a), rel=1e-10)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * np.trace(c)) and found > 1


def test_the_distance_of_two_bells_is_known() -> None:
    """In one dimension it is (m1 - m2)^2 + (s1 - s2)^2, exactly."""
    a, b = np.asarray([[-1.0], [1.0]]), np.asarray([[2.0], [8.0]])
    spread = (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(25 + spread)
    assert frechet_distance(a, a + 3) == pytest.approx(9)


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), r"at least 2 videos, not \(1, 3\)"),
        (np.zeros(3), np.zeros((5, 3)), "at least 2 videos"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "3 and 4 numbers cannot be compared"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "hold NaN or infinity"),
    ],
)
def test_features_are_checked(one: np.ndarray, other: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        frechet_distance(one, other)


def test_sets_of_videos_are_compared_by_any_features() -> None:
    def features(videos: Sequence[Video]) -> np.ndarray:
        return np.stack([v.frames.mean((0, 1, 2)) for v in videos])

    one, other = [noise(i) for i in range(6)], [noise(i + 9) for i in range(6)]
    dark = [Video(v.frames // 4, v.fps) for v in other]
    assert video_distance(one, one, features) == pytest.approx(0, abs=1e-6)
    assert video_distance(one, dark, features) > 100 * video_distance(one, other, features)


def test_fvd_needs_its_own_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cdfvd", None)  # as if it were not installed
    with pytest.raises(MissingExtraError) as found:
        fvd_features()
    assert str(found.value) == "FVD needs cd-fvd and torchvision: pip install 'cd-fvd>=0.1.1,<0.2'."
    with pytest.raises(InputError, match="no FVD features 'clip'"):
        fvd_features("clip")  # type: ignore[arg-type]
