"""Evaluations: resumable, shared by processes, the same table every time; baselines do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

import refusal_core as rc
from refusal_core import apply
from refusal_core.cli import main
from refusal_core.errors import Cancelled, InputError, ModelError, SiteError
from refusal_core.evaluate import run, sharing
from refusal_core.evaluate.evaluation import Evaluation
from refusal_core.evaluate.family_steps import CONCEPT
from refusal_core.evaluate.grid import Grid
from refusal_core.evaluate.judges.toyworld import toyworld_judge
from refusal_core.evaluate.judges.verdict import Verdict
from refusal_core.evaluate.judging import SCENES, Judging
from refusal_core.evaluate.measures.journal import Journal, Measured
from refusal_core.evaluate.methods import esd
from refusal_core.evaluate.methods.cache import NO_MEMORY
from refusal_core.evaluate.methods.esd import esd_weights
from refusal_core.evaluate.methods.negative_prompt import negative_prompt
from refusal_core.evaluate.methods.safree import prepare_safree
from refusal_core.evaluate.methods.treatments import BASELINES, METHOD_NAMES, merged
from refusal_core.evaluate.methods.uce import rece_weights
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.run import evaluate
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.setup import Setup, open_setup
from refusal_core.evaluate.sharing import Workers, run_shared, usable_cores, usable_memory
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.evaluate.sweep import Sweep
from refusal_core.models.load_settings import LoadSettings
from refusal_core.models.model import Model
from refusal_core.models.tiny import tiny_model
from refusal_core.progress import silent
from refusal_core.toyworld import world


def small(toy: Model, methods: tuple[str, ...], journal: Journal | None = None, videos: int = 2) -> Report:
    suite = toyworld_suite("fire", videos)
    setup = Setup(toy, Scoring(toyworld_judge(), "toyworld"), Journal() if journal is None else journal)
    preset = rc.load_preset("fire")
    few = replace(preset.concept, pairs=preset.concept.pairs[:2], neutral=preset.concept.neutral[:6])
    return evaluate(setup, (replace(preset, concept=few),), suite, methods)


def test_every_method_runs_and_leaves_the_model_as_it_was(toy: Model, monkeypatch) -> None:
    monkeypatch.setattr(esd, "STEPS", 2)
    before = {n: layer.weight.detach().clone() for n, layer in toy.layers.items()}
    report = small(toy, METHOD_NAMES, videos=1)
    assert [c.method for c in report.cells[::4]] == list(METHOD_NAMES)
    assert all(torch.equal(layer.weight, before[n]) for n, layer in toy.layers.items())
    assert all(layer.weight.grad is None for layer in toy.layers.values())
    assert set(report.costs) == set(METHOD_NAMES)
    assert report.costs["whitened"].stored_kilobytes < report.costs["uce"].stored_kilobytes
    assert all(cost.video_ratio for cost in report.costs.values())
    written = json.dumps(report.to_json())
    assert json.dumps(Report.from_json(json.loads(written)).to_json()) == written


def test_a_stopped_run_goes_on_and_gives_the_same_table(toy: Model, tmp_path: Path, monkeypatch) -> None:
    methods = ("original", "whitened")
    whole = small(toy, methods)
    made = 0
    real = run.generate_batch

    def stop_after_five(*arguments, **options):
        nonlocal made
        made += 1
        if made > 5:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(run, "generate_batch", stop_after_five)
    with pytest.raises(KeyboardInterrupt):
        small(toy, methods, Journal(tmp_path))
    file = tmp_path / "0.readings.jsonl"
    file.write_bytes(file.read_bytes()[:-20])  # the last line was cut short
    made = 0
    monkeypatch.setattr(run, "generate_batch", lambda *a, **o: real(*a, **o))
    resumed = small(toy, methods, Journal(tmp_path))
    assert resumed.cells == whole.cells
    lines = (tmp_path / "0.readings.jsonl").read_text().splitlines()
    assert len(lines) == 8 + 1 + 2, "four batches were kept, one was cut short, four were made; two costs"
    monkeypatch.setattr(run, "generate_batch", lambda *_, **__: pytest.fail("made again"))
    assert small(toy, methods, Journal(tmp_path)).cells == whole.cells


def test_two_processes_give_the_table_of_one(tmp_path: Path) -> None:
    """Under the launcher that `accelerate launch` uses where there are several GPUs."""
    command = ["-m", "refusal_core", "evaluate", "--preset", "fire", "--videos", "1"]
    command += ["--methods", "original,whitened", "--workers", "1"]
    plain = {**os.environ, "OMP_NUM_THREADS": "1"}
    single = [sys.executable, *command, "--json", str(tmp_path / "one.json")]
    subprocess.run(single, env=plain, check=True, timeout=300)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    shared = [*launcher, *command, "--work", str(tmp_path / "work"), "--json", str(tmp_path / "two.json")]
    done = subprocess.run(shared, env=plain, check=True, timeout=300, stdout=subprocess.PIPE, text=True)
    assert done.stdout.count("| whitened | concept |") == 1, "the first process prints"
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["cells"] == two["cells"]
    shares = [p.read_text().count('"verdicts"') for p in sorted((tmp_path / "work").glob("*.jsonl"))]
    assert shares == [4, 4]


def test_the_share_of_a_process_that_ends_early_is_made_by_the_first(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    """Its last words are said; the model is loaded once, by the one process that is left."""
    plan = Evaluation(videos=1, methods="original", work=tmp_path / "whole", workers=1)
    whole = run_shared(plan, silent)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'There is no room.' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    loaded: list[object] = []
    monkeypatch.setattr(sharing, "open_setup", lambda *a: loaded.append(a) or open_setup(*a))
    shared = run_shared(replace(plan, work=tmp_path / "work", workers=2), silent)
    assert whole is not None and shared is not None
    assert shared[0].cells == whole[0].cells
    assert "Process 2 of 2 ended early: There is no room." in caplog.messages
    assert len(loaded) == 1
    made = (tmp_path / "work" / "0.readings.jsonl").read_text()
    assert made.count('"verdicts"') == 4, "the second process never ran"


def test_a_process_that_is_killed_is_noticed_at_once(tmp_path: Path, caplog) -> None:
    told: list[str] = []
    with Workers(Evaluation(videos=1, methods="original"), tmp_path, 3) as workers:
        for process, _ in workers._running.values():
            process.kill()
        watched = workers.watched(lambda _fraction, sentence: told.append(sentence))
        workers.wait(silent)
        watched(1.0, "Done")
    assert sorted(caplog.messages) == [f"Process {n} of 3 ended early: exit code -9" for n in (2, 3)]
    assert told == ["Done"]


def test_local_processes_share_the_work_and_give_the_table_of_one(tmp_path: Path) -> None:
    plan = Evaluation(videos=1, methods="original", work=tmp_path, workers=2)
    shared = run_shared(plan, silent)
    whole = run_shared(replace(plan, work=None, workers=1), silent)
    assert whole is not None and shared is not None and shared[0].cells == whole[0].cells
    made = {p.name: p.read_text().count('"verdicts"') for p in tmp_path.glob("*.jsonl")}
    assert made == {"0.readings.jsonl": 2, "1.readings.jsonl": 2}


def test_another_process_gets_the_very_job(tmp_path: Path) -> None:
    """As JSON, with all that is set in it."""
    loading = LoadSettings(device="cpu", dtype="bfloat16", denoiser=tmp_path / "d.safetensors")
    judging = Judging(clip="openai/clip", again=True, questions=SCENES)
    grid = Grid(sites=(("text", "cross-attention"),), strengths=(0.5, 1.0), anchors=("mean",))
    for job in (
        Evaluation(presets="fire,zorbo", judging=Judging(again=True), loading=loading, work=tmp_path),
        Sweep(presets="zorbo", grid=grid, split="evaluation", loading=loading),
    ):
        plain = TypeAdapter(type(job)).dump_python(job, mode="json")
        assert TypeAdapter(type(job)).validate_python(json.loads(json.dumps(plain))) == job
    plain = TypeAdapter(Judging).dump_python(judging, mode="json")
    assert TypeAdapter(Judging).validate_python(json.loads(json.dumps(plain))) == judging


def test_no_more_processes_than_a_container_has_cores_and_memory_for(tmp_path: Path, monkeypatch) -> None:
    whole = usable_cores(), usable_memory()
    monkeypatch.setattr(sharing, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert usable_cores() == 8
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    (tmp_path / "memory.max").write_text("4000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert (usable_cores(), usable_memory()) == (2, 3000)
    for name in ("cpu.max", "memory.max"):
        (tmp_path / name).write_text("max 100000\n" if name == "cpu.max" else "max\n")
    assert usable_cores() == 8 and usable_memory() > 3000
    assert min(whole) > 0


def test_sharing_needs_a_folder(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="give --work"):
        run_shared(Evaluation(videos=1, methods="original"), lambda *_: None)


def test_a_method_that_cannot_be_had_ends_nothing(toy: Model, monkeypatch) -> None:
    """Whatever its preparation raises; but want of memory is not kept for the next run."""

    def fail(error: Exception):
        def prepare(*_: object):
            raise error

        return prepare

    monkeypatch.setitem(BASELINES, "uce", fail(SiteError("No such sites.")))
    monkeypatch.setitem(BASELINES, "rece", fail(MemoryError()))
    journal = Journal()
    report = small(toy, ("original", "uce", "rece"), journal, videos=1)
    assert report.names == ("original",)
    assert list(report.notes) == ["uce: No such sites.", f"rece: {NO_MEMORY}"]
    monkeypatch.undo()
    assert small(toy, ("original", "uce", "rece"), journal, videos=1).names == ("original", "rece")
    monkeypatch.setitem(BASELINES, "rece", fail(Cancelled("Stopped.")))
    with pytest.raises(Cancelled):
        small(toy, ("rece",), videos=1)


def said_by(monkeypatch, *words: str) -> int:
    """Run a command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["refusal_core", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_where_nothing_could_be_measured_one_sentence_says_why(monkeypatch, capsys) -> None:
    words = ["evaluate", "--methods", "esd", "--together", "--preset", "fire,zorbo", "--videos", "1"]
    assert said_by(monkeypatch, *words) == 2
    said = capsys.readouterr()
    assert "Nothing could be measured: fire+zorbo, esd: ESD is fine-tuned for one concept" in said.err
    assert "Traceback" not in said.err and not said.out


def test_attacks_on_several_concepts_at_once_are_refused_not_ignored(monkeypatch, capsys) -> None:
    words = ["evaluate", "--suite", "adversarial", "--together", "--preset", "fire,zorbo"]
    assert said_by(monkeypatch, *words) == 2
    assert "The suite adversarial is made for one concept; leave out --together." in capsys.readouterr().err


def test_a_page_without_the_original_has_tables(tmp_path: Path, monkeypatch) -> None:
    page, file = tmp_path / "page.html", tmp_path / "report.json"
    words = ["evaluate", "--methods", "negative-prompt", "--videos", "1", "--workers", "1"]
    assert said_by(monkeypatch, *words, "--html", str(page), "--json", str(file)) == 0
    assert "negative-prompt" in page.read_text() and file.exists()
    assert said_by(monkeypatch, "report", str(file), "--plots", str(tmp_path / "plots")) == 0
    assert [p.name for p in (tmp_path / "plots").iterdir()] == ["shown-fire.png"]


def test_readings_are_kept_by_all_that_decides_them(toy: Model) -> None:
    """With the original, without it, and with another measure they hold different figures."""
    journal, suite = Journal(), toyworld_suite("fire", 1)
    preset = (rc.load_preset("fire"),)
    plain = Setup(toy, Scoring(toyworld_judge(), "toyworld"), journal)
    first = evaluate(plain, preset, suite, ("negative-prompt",))
    assert not first.cell("negative-prompt", "neutral").quality
    second = evaluate(plain, preset, suite, ("original", "negative-prompt"))
    assert "ssim" in second.cell("negative-prompt", "neutral").quality
    for value in (1.0, 2.0):
        more = {"clip": lambda videos, _, value=value: [value] * len(videos)}
        scoring = replace(plain.scoring, more=more, marks=(f"clip {value}",))
        third = evaluate(replace(plain, scoring=scoring), preset, suite, ("original",))
        assert third.cell("original", "concept").quality["clip"] == value


def test_a_batch_judged_the_second_time_stands_in_whichever_file(tmp_path: Path) -> None:
    judged, not_yet = (Measured((Verdict(outcome, None),)) for outcome in ("safe", "not judged"))
    Journal(tmp_path, 5).add("batch", not_yet)
    Journal(tmp_path, 1, again=True).add("batch", judged)
    assert Journal(tmp_path).find("batch") == judged


# --- baselines ---------------------------------------------------------------------------------------


def test_questions_without_an_answer_are_asked_again_too(tmp_path: Path) -> None:
    verdicts = (Verdict("safe"),)
    half = Measured(verdicts, {"questions asked, colour": (2.0,), "questions answered, colour": (1.0,)})
    whole = Measured(verdicts, {"questions asked, colour": (2.0,), "questions answered, colour": (2.0,)})
    Journal(tmp_path, 0).add("batch", half)
    assert Journal(tmp_path).find("batch") == half, "without being told to, nothing is asked twice"
    assert Journal(tmp_path, again=True).find("batch") is None
    Journal(tmp_path, 0, again=True).add("batch", whole)
    assert Journal(tmp_path, again=True).find("batch") == whole == Journal(tmp_path).find("batch")


def test_baselines_know_every_phrase_of_the_pairs_that_the_model_reads(toy: Model) -> None:
    concepts = [rc.load_concept(name) for name in ("fire", "zorbo")]
    said = negative_prompt(toy, concepts).negative_prompt
    assert said == "on fire, called zorbo, in flames, who is zorbo, covered in fire, named zorbo"
    five = negative_prompt(toy, [rc.load_concept(name) for name in world.CONCEPTS]).negative_prompt
    assert len(toy.tokens([five])[0]) <= toy.defaults.text_length
    assert all(phrase in five for phrase in ("on fire", "bleeding", "with a star logo", "exploding", "zorbo"))


def test_of_several_concepts_nothing_neutral_asks_for_any() -> None:
    """UCE and RECE would be told to keep what they are to erase."""
    whole = merged([rc.load_concept(name) for name in world.CONCEPTS])
    phrases = [phrase for said in world.CONCEPTS.values() for phrase in said]
    assert len(whole.pairs) == 25 and len(whole.neutral) >= 50
    assert not [p for p in whole.neutral if any(phrase in p for phrase in phrases)]


def test_methods_for_one_denoiser_or_one_text_refuse_others() -> None:
    with pytest.raises(ModelError, match="ESD trains one denoiser"):
        esd_weights(tiny_model("wan-2.2"), CONCEPT)
    with pytest.raises(ModelError, match="RECE needs one text for all layers"):
        rece_weights(tiny_model("mochi"), CONCEPT)
    with pytest.raises(ModelError, match="has one for every frame"):
        prepare_safree(tiny_model("animatediff"), CONCEPT)


def test_other_weights_are_put_back_whatever_happens(tiny: Model, unchanged: None) -> None:
    name = tiny.sites[1].name
    with pytest.raises(RuntimeError), apply.replaced(tiny, {name: tiny.layers[name].weight.data + 1}):
        raise RuntimeError
