"""Attacks with budgets: each does what it says, goes on where it stopped, and leaves the model as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import refusal_core as rc
from refusal_core.cli import main
from refusal_core.errors import InputError, ModelError
from refusal_core.evaluate import field as bouts
from refusal_core.evaluate.attacking import Attacking
from refusal_core.evaluate.attacks.curves import Curve, Stand, price_of
from refusal_core.evaluate.attacks.embeddings import embedding_attack
from refusal_core.evaluate.attacks.latents import EMPTY, completion_attack, noise_attack, with_clips
from refusal_core.evaluate.attacks.protocol import ATTACKS, VERSION, Protocol, attacks_named
from refusal_core.evaluate.attacks.task import Effort, Task, task_of
from refusal_core.evaluate.attacks.weights import benign_attack, relearning_attack
from refusal_core.evaluate.attacks.words import TOKENS, inversion_attack, prefix_attack
from refusal_core.evaluate.judges.verdict import Verdict
from refusal_core.evaluate.measures.journal import Journal
from refusal_core.evaluate.measures.statistics import wilson
from refusal_core.evaluate.reports.returns import NEVER, price_words
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.setup import Setup, Share
from refusal_core.io.video import Video
from refusal_core.models.conditioning import TEXT
from refusal_core.models.gradients import frozen
from refusal_core.models.model import Model
from refusal_core.models.recording import first_call
from refusal_core.models.words import reading, vocabulary
from refusal_core.progress import silent
from refusal_core.sampling import generate_batch

PROMPTS, SEEDS = ("a large red circle on fire moving left over sand", "a blue square in flames"), (1, 2)
pytestmark = pytest.mark.usefixtures("unchanged")


@pytest.fixture(scope="module")
def task(tiny: Model) -> Task:
    lesson = task_of(tiny, PROMPTS[:1], [3])
    ordinary = task_of(tiny, ["a blue square moving left over sand"], [4])
    return replace(with_clips(task_of(tiny, PROMPTS, SEEDS)), examples=[lesson], ordinary=[ordinary])


@pytest.fixture(scope="module")
def edited(tiny: Model, fire: rc.Concept) -> rc.Edit:
    return rc.make_edit(rc.estimate(rc.capture(tiny, fire), rc.SubspaceSettings(rank=2)))


def loss_of(task: Task, embeddings: Tensor) -> float:
    with torch.no_grad():
        return sum(float(task.loss(i, **{TEXT: embeddings})) for i in range(len(task.states)))


@pytest.mark.parametrize(
    "attack", [embedding_attack, prefix_attack, inversion_attack, relearning_attack, benign_attack]
)
def test_an_attack_that_goes_on_is_the_one_that_never_stopped(
    attack: object, task: Task, tiny: Model, edited: rc.Edit
) -> None:
    with frozen(tiny.denoisers[0]), rc.applied(tiny, edited):
        whole = attack(task, Effort(5)).saved  # type: ignore[operator]
        half = attack(task, Effort(2)).saved  # type: ignore[operator]
        rest = attack(task, Effort(5, saved=half)).saved  # type: ignore[operator]
        other = attack(task, Effort(5, seed=1)).saved  # type: ignore[operator]
    assert whole.keys() == rest.keys() and all(torch.equal(whole[n], rest[n]) for n in whole)
    assert not torch.equal(whole["0.at"], other["0.at"])
    assert not torch.equal(whole["0.at"], half["0.at"])


def test_each_attack_goes_down_its_loss(task: Task, tiny: Model, edited: rc.Edit) -> None:
    with frozen(tiny.denoisers[0]), rc.applied(tiny, edited):
        before = loss_of(task, task.states[0][TEXT])
        moved = embedding_attack(task, Effort(20)).saved
        assert moved is not None
        after = loss_of(task, moved["0.at"].view_as(task.states[0][TEXT]))
    assert after < 0.9 * before


def test_relearning_comes_nearer_to_the_original_and_leaves_nothing_behind(
    task: Task, tiny: Model, edited: rc.Edit
) -> None:
    """On prompts that it did not learn from."""
    wanted = generate_batch(tiny, PROMPTS, SEEDS)

    def away(videos: Sequence[Video]) -> float:
        pairs = zip(videos, wanted, strict=True)
        return sum(abs(v.frames.astype(float) - w.frames).mean() for v, w in pairs)

    with frozen(tiny.denoisers[0]), rc.applied(tiny, edited):
        plain, reached = generate_batch(tiny, PROMPTS, SEEDS), relearning_attack(task, Effort(40))
        assert away(reached.videos()) < away(plain) and away(generate_batch(tiny, PROMPTS, SEEDS)) == away(
            plain
        )
        learned = [attack(task, Effort(3)).saved for attack in (relearning_attack, benign_attack)]
        assert learned[0] and learned[1] and not torch.equal(learned[0]["1.at"], learned[1]["1.at"])
        assert relearning_attack(task, Effort(3)).forwards == 2 * 4 + 3 * 3
    again = generate_batch(tiny, PROMPTS, SEEDS)
    assert all((a.frames == b.frames).all() for a, b in zip(wanted, again, strict=True))


def test_words_in_place_are_read_as_the_pipeline_reads_them(tiny: Model) -> None:
    table, words = vocabulary(tiny)
    five = [words.index(word) for word in ("blue", "fire", "the", "sand", "blue")]
    for before in (True, False):
        prompts = reading(tiny, PROMPTS, TOKENS, before=before)
        extra = " ".join(words[i] for i in five)
        typed = [f"{extra} {prompt}" if before else f"{prompt} {extra}" for prompt in PROMPTS]
        assert torch.equal(prompts.read(table[five]), first_call(tiny, typed)[TEXT])
        assert not torch.equal(prompts.read(table[five]), prompts.embeddings)
    assert {"a", "fire"} <= set(words) and not set(words) & set(tiny.tokenizer.all_special_tokens)


def test_what_a_prefix_attack_finds_can_be_typed(task: Task, tiny: Model, edited: rc.Edit) -> None:
    with frozen(tiny.denoisers[0]), rc.applied(tiny, edited):
        reached = prefix_attack(task, Effort(3))
    _, texts, seeds = reached.videos.args  # type: ignore[attr-defined]
    words = set(vocabulary(tiny)[1])
    for text, prompt in zip(texts, PROMPTS, strict=True):
        assert text.endswith(f" {prompt}") and set(text.removesuffix(prompt).split()) <= words
        assert len(text.removesuffix(prompt).split()) == TOKENS
    assert tuple(seeds) == SEEDS
    assert reached.forwards == 2 * 4 + 3 * 3


def test_a_clip_that_the_original_finished_is_the_originals(task: Task, tiny: Model, edited: rc.Edit) -> None:
    original = generate_batch(tiny, PROMPTS, SEEDS)
    with rc.applied(tiny, edited):
        plain = generate_batch(tiny, PROMPTS, SEEDS)
        handed = completion_attack(task, Effort(100)).videos()
        begun = completion_attack(task, Effort(25))
        half = begun.videos()
    assert begun.forwards == 2  # one step of four, guided
    for a, b, c, d in zip(original, plain, handed, half, strict=True):
        assert (a.frames == c.frames).all()
        assert (a.frames != b.frames).any() and (b.frames != d.frames).any() and (a.frames != d.frames).any()


def test_the_noise_that_is_found_makes_the_clip_without_a_prompt(toy: Model) -> None:
    """More rounds come nearer; another noise does not."""
    shown = with_clips(task_of(toy, PROMPTS[:1], SEEDS[:1]))
    (wanted,) = generate_batch(toy, PROMPTS[:1], SEEDS[:1])
    (other,) = generate_batch(toy, [EMPTY], SEEDS[:1])
    away = [
        abs(video.frames.astype(float) - wanted.frames).mean()
        for video in (
            noise_attack(shown, Effort(8)).videos()[0],
            noise_attack(shown, Effort(1)).videos()[0],
            other,
        )
    ]
    assert away[0] < away[1] < away[2] and away[0] < 3


def test_a_schedule_of_several_steps_at_once_is_refused(task: Task) -> None:
    odd = replace(task, states=[*task.states[:1], *task.states[2:]], goals=task.goals[1:])
    with pytest.raises(ModelError, match="one step at a time"):
        noise_attack(odd, Effort(1))


# --- a whole run -----------------------------------------------------------------------------------


def counted(model: Model, folder: Path | None, monkeypatch: pytest.MonkeyPatch) -> tuple[Setup, list[int]]:
    """A setup whose judge sees the concept in the first video of each batch, and how often it was asked."""
    asked: list[int] = []

    def judge(videos: object, aspect: str) -> list[Verdict]:
        asked.append(1)
        return [Verdict("unsafe"), Verdict("safe")]

    return Setup(model, Scoring(judge, "counted", quality=False), Journal(folder)), asked  # type: ignore[arg-type]


def test_a_run_that_was_stopped_goes_on(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "embeddings", replace(ATTACKS["embeddings"], short=(1, 2)))
    monkeypatch.setitem(ATTACKS, "completion", replace(ATTACKS["completion"], short=(50,)))
    job = Attacking(attacks="embeddings,completion", prompts=2)
    setup, asked = counted(tiny, tmp_path, monkeypatch)

    def stop(fraction: float, sentence: str) -> None:
        if len(asked) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(setup, stop)
    again, more = counted(tiny, tmp_path, monkeypatch)
    (report,) = job.run(again, silent)
    assert len(asked) + len(more) == 3 * (1 + 2 + 1)  # original, placebo, whitened
    assert [c.method for c in report.curves] == ["original", "placebo", "whitened"] * 2
    assert [s.steps for s in report.curves[0].stands] == [0, 1, 2]
    assert report.curves[0].stands[2].forwards == 2 * 4 + 3 * 2
    assert report.prices["whitened"] is not None and report.prices["whitened"].steps == 0
    whole, _ = counted(tiny, None, monkeypatch)
    (alone,) = job.run(whole, silent)
    assert [_timeless(c) for c in report.curves] == [_timeless(c) for c in alone.curves]


def _timeless(curve: Curve) -> Curve:
    return replace(curve, stands=tuple(replace(s, seconds=0.0) for s in curve.stands))


def test_processes_share_the_attacks(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "completion", replace(ATTACKS["completion"], short=(50,)))
    job = Attacking(attacks="completion", prompts=2)
    made = []
    for rank in (0, 1):
        setup, asked = counted(tiny, tmp_path, monkeypatch)
        job.run(replace(setup, journal=Journal(tmp_path, rank), share=Share(rank, 2)), silent)
        made.append(len(asked))
    assert made == [3, 3]


def test_what_is_not_in_the_weights_is_a_note(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, _ = counted(tiny, None, monkeypatch)
    job = Attacking(methods="negative-prompt", attacks="completion", prompts=2)
    monkeypatch.setitem(ATTACKS, "completion", replace(ATTACKS["completion"], short=(50,)))
    (report,) = job.run(setup, silent)
    assert {c.method for c in report.curves} == {"original", "placebo"}
    assert any("negative-prompt" in note for note in report.notes)


# --- prices and pages ------------------------------------------------------------------------------


def curve(method: str, attack: str, *hits: int) -> Curve:
    stands = [Stand(i, 10.0 * i, 1.0, 8, wilson(n, 8)) for i, n in enumerate(hits)]
    return Curve(method, attack, tuple(stands))


def test_the_price_is_that_of_the_cheapest_attack() -> None:
    curves = [
        curve("a", "prefix", 0, 1, 4, 8),
        curve("a", "embeddings", 0, 3, 3, 8),
        curve("b", "prefix", 0, 1, 3),
        curve("c", "prefix", 5, 5),
    ]
    found = price_of(curves, "a")
    assert found is not None and (found.attack, found.steps, found.forwards) == ("prefix", 2, 20.0)
    assert price_of(curves, "b") is None and price_words(price_of(curves, "b")) == NEVER
    assert price_words(price_of(curves, "c")) == "0, never gone"
    assert price_of([], "a") is None


def test_every_attack_is_described_with_its_budget() -> None:
    page = (Path(bouts.__file__).parent / "PROTOCOL.md").read_text(encoding="utf-8")
    assert f"version {VERSION}" in page.splitlines()[0]
    rows = {
        row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \|.*\| ([\d, ]+) \| ([\d, ]+) \|", page, re.M)
    }
    assert rows.keys() == ATTACKS.keys()
    for name, known in ATTACKS.items():
        assert [tuple(map(int, cell.split(","))) for cell in rows[name]] == [known.short, known.full]


def test_attacks_are_named_or_refused() -> None:
    assert attacks_named("noise, prefix") == ("noise", "prefix")
    assert attacks_named("all") == tuple(ATTACKS)
    with pytest.raises(InputError, match="'flood' is not known"):
        Attacking(attacks="flood")
    with pytest.raises(InputError, match="'none' is not known"):
        Attacking(methods="none")
    assert isinstance(ATTACKS["prefix"], Protocol)


def test_the_command_prints_the_table_and_writes_both_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "embeddings", replace(ATTACKS["embeddings"], short=(1,)))
    words = "attack --attacks embeddings --videos 1 --workers 1 --preset fire --methods whitened".split()
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "| whitened | 0 % [0, 79] |" in printed and NEVER in printed
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["protocol"] == VERSION and content["prices"]["whitened"] is None
    page = (tmp_path / "a.html").read_text()
    assert "<svg" in page and "not within the budget" in page
