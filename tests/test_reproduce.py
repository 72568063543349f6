"""Videos made elsewhere, people's votes, and the paper's tables: judged like any other."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import Answer, FakeServer, percent, said
from PIL import Image
from test_cli import run
from test_suites import bench

from refusal_core.errors import InputError
from refusal_core.evaluate.evaluation import Evaluation, Source
from refusal_core.evaluate.judges.verdict import not_judged
from refusal_core.evaluate.judging import Judging
from refusal_core.evaluate.measures.statistics import wilson
from refusal_core.evaluate.paper_tables import (
    TABLES,
    PaperRow,
    PaperTable,
    beside_paper,
    forecast,
    paper_table,
)
from refusal_core.evaluate.reports.page import save_page
from refusal_core.evaluate.reports.report import Report, load_report
from refusal_core.evaluate.reproduction import Reproduction
from refusal_core.evaluate.scoring import Scoring
from refusal_core.evaluate.setup import Setup, Share, open_setup
from refusal_core.evaluate.sharing import make_share, run_shared
from refusal_core.io.video import Video, save_video
from refusal_core.models.model import Model
from refusal_core.progress import silent
from refusal_core.workbench.review import Pack, ReviewItem, Vote, save_pack
from refusal_core.workbench.votes import report_of_votes

Command = Callable[..., tuple[int, str, str]]  # words: exit code, output, errors


def grey(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_video(Video(np.full((6, 64, 64, 3), level, np.uint8), 8.0), path, {})


def sound(path: Path) -> None:
    """Write a soft ramp that moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(20, 230, 64)
    frames = np.stack([np.tile(np.roll(ramp, 4 * t), (64, 1)) for t in range(6)])
    save_video(Video(np.repeat(frames[..., None], 3, axis=3).astype(np.uint8), 8.0), path, {})


def bright_is_unsafe(_number: int, body: dict[str, Any]) -> Answer:
    """Look at the first frame, as a model would."""
    parts = body["messages"][-1]["content"]
    url = next(p["image_url"]["url"] for p in parts if p["type"] == "image_url")
    image = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
    return Answer(percent(100.0 if np.asarray(image).mean() > 128 else 0.0))


def judge_file(folder: Path, server: FakeServer) -> Path:
    path = folder / "judge.json"
    settings = {"base_url": f"http://127.0.0.1:{server.server_port}/v1", "model": "m", "scale": 1.0}
    path.write_text(json.dumps({**settings, "retries": 1}))
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process; what it printed beforehand is not its."""

    def told(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(monkeypatch, *words)
        return code, *capsys.readouterr()

    return told


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return bench(tmp_path, full=2)


def test_videos_made_elsewhere_stand_beside_the_paper_s_figures(
    tmp_path: Path, source: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    server.script = bright_is_unsafe
    for row in TABLES["table1"].rows:
        for number in range(2):
            grey(tmp_path / "before" / row.category / f"{number}.mp4", 220)
            grey(tmp_path / "after" / row.category / f"{number}.mp4", 220 if row.category == "gore" else 30)
    folders = f"original={tmp_path / 'before'},unlearned={tmp_path / 'after'}"
    told = ("--source", str(source), "--folders", folders, "--judge-settings")
    settings = str(judge_file(tmp_path, server))
    code, out, _ = command("reproduce", "table1", *told, settings)
    assert code == 0
    rows = [line.strip("|").split("|") for line in out.splitlines() if "|" in line]
    table = {row[0].strip(): [cell.strip().split(" ")[0] for cell in row[1:]] for row in rows}
    assert table["gore"] == ["74.9", "-", "5.3", "100.0", "100.0"]
    assert table["pornography"] == ["44.7", "23.0", "13.4", "100.0", "0.0"]
    assert table["mean"][-2:] == ["100.0", "20.0"]
    assert len(server.requests) == 20

    monkeypatch.setenv("RANK", "1")
    code, out, _ = command("reproduce", "table1", *told, settings)
    assert (code, out, len(server.requests)) == (0, "", 20), "the first process does it alone"
    monkeypatch.delenv("RANK")

    (tmp_path / "after" / "gore" / "1.mp4").unlink()
    code, _, errors = command("reproduce", "table1", *told, settings)
    assert code == 2 and "after/gore/1.mp4 is missing; make all videos first." in errors
    code, _, errors = command("reproduce", "table1", "--source", str(source), "--folders", "x")
    assert code == 2 and "'x' names no folder; write original=DIR,unlearned=DIR." in errors


def test_a_plan_counts_videos_and_hours_and_makes_nothing(source: Path, command: Command) -> None:
    code, out, _ = command("reproduce", "table1", "--source", str(source), "--plan")
    assert code == 0 and "| all | 10 | 40 |" in out
    code, _, errors = command("reproduce", "table1", "--source", str(source))
    assert code == 2 and "Open-Sora is not run here: make its videos with its own code" in errors
    code, _, errors = command("reproduce", "table3", "--source", str(source), "--plan")
    assert code == 2 and "There is no 'table3'; choose one of table1, table2." in errors


def test_hours_grow_with_the_videos() -> None:
    """60 videos take twice as long as 30: nothing in the plan is a fixed figure."""
    table = replace(paper_table("table1"), flops=lambda: 3600 * 120e12 / 30)  # an hour a video
    for prompts in (30, 60):
        text = forecast(table, {"gore": prompts}, ("original",))
        assert f"| gore | {prompts} | {prompts} | {prompts}.0 |" in text
    assert "| gore | 74.9 | - | 5.3 |" in beside_paper(table, [])


def gore_alone(monkeypatch: pytest.MonkeyPatch, preset: str = "real-gore") -> PaperTable:
    """Make a table of one category known as ``gore``."""
    row = PaperRow("gore", preset, 74.9, 23.0, 5.3)
    table = replace(TABLES["table1"], rows=(row,))
    monkeypatch.setitem(TABLES, "gore", table)
    return table


def test_two_processes_give_the_table_of_one(
    tmp_path: Path, source: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = bright_is_unsafe
    table = gore_alone(monkeypatch, preset="fire")
    monkeypatch.setattr(Model, "is_small", False)  # a video a batch, as of a large model
    judging, methods = Judging("vlm", judge_file(tmp_path, server)), ("original", "whitened")
    job = Reproduction("gore", source, 2, "toyworld", judging, work=tmp_path / "one", methods=methods)
    assert job.videos == 2
    whole = run_shared(replace(job, workers=1), silent)
    assert whole is not None and [cell.judged for cell in whole[0].cells] == [2, 2]

    two = tmp_path / "two"
    make_share(job, two, Share(1, 2), silent)
    setup = make_share(job, two, Share(0, 2), silent)
    made = {p.name: p.read_text().count('"verdicts"') for p in two.glob("*.jsonl")}
    assert made == {"0.readings.jsonl": 2, "1.readings.jsonl": 2}
    shared = job.run(setup.merging(), silent)
    assert beside_paper(table, shared) == beside_paper(table, whole)
    save_page(shared, tmp_path / "page.html", two / "samples")
    assert (tmp_path / "page.html").read_text().count("data:image/png") == 2


def test_what_failed_or_was_not_judged_is_said(
    tmp_path: Path, source: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    failed = Report("m", "real-gore", (), notes=("safree: the text encoder is too short.",))
    table = gore_alone(monkeypatch)
    assert "\nNote: real-gore, safree: the text encoder is too short." in beside_paper(table, [failed])
    assert "Note: " not in beside_paper(table, [replace(failed, notes=())])

    server.script = lambda _number, _body: Answer(said("I cannot say."))
    for number in range(2):
        grey(tmp_path / "made" / "gore" / f"{number}.mp4", 30)
    told = ("--folders", f"unlearned={tmp_path / 'made'}", "--judge-settings")
    words = ("reproduce", "gore", "--source", str(source), *told, str(judge_file(tmp_path, server)))
    code, out, _ = command(*words)
    assert code == 0 and "Note: T2VSafetyBench, unlearned, gore: 2 videos were not judged, " in out
    server.script = bright_is_unsafe
    code, out, _ = command(*words)
    assert code == 0 and "Note: " not in out


def test_videos_made_elsewhere_are_broken_where_their_original_is_sound(
    tmp_path: Path, source: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    """A model that makes black videos shows nothing unsafe; the table must not praise it for that."""
    gore_alone(monkeypatch)
    sound(tmp_path / "original" / "gore" / "0.mp4")
    grey(tmp_path / "original" / "gore" / "1.mp4", 30)  # a still and flat one was asked for
    for number in range(2):
        grey(tmp_path / "unlearned" / "gore" / f"{number}.mp4", 0)
    sides = ",".join(f"{side}={tmp_path / side}" for side in ("original", "unlearned"))
    told = ("--source", str(source), "--folders", sides, "--judge-settings")
    words = ("reproduce", "gore", *told, str(judge_file(tmp_path, server)))
    report, page = tmp_path / "report.json", tmp_path / "page.html"
    code, shown, _ = command(*words, "--json", str(report), "--html", str(page))
    assert code == 0
    assert "| 0.0 [0.0, 65.8] | 0.0 [0.0, 65.8], 50.0 broken |" in shown
    assert "\nBroken: videos that are flat, noise or frozen where the original's are not." in shown
    cell = load_report(report).cell("unlearned", "gore")
    assert cell is not None and cell.quality == {"broken": 0.5}
    assert "<td>50.0</td>" in page.read_text()

    sound(tmp_path / "unlearned" / "gore" / "0.mp4")
    code, out, _ = command(*words)
    assert code == 0 and "broken" not in out.lower()


def test_below_the_table_stands_the_paper_s_fvd() -> None:
    fvd = "FVD, paper: original 69.44, theirs 69.02; ours is measured by `distance` on two folders of videos."
    assert beside_paper(TABLES["table2"], []).splitlines()[-2:] == ["", fvd]
    latex = beside_paper(TABLES["table2"], [], latex=True).splitlines()
    assert latex[0] == r"\begin{tabular}{llrr}"
    assert latex[-2:] == [r"\end{tabular}", f"% {fvd}"], "what LaTeX would set as text is a comment"
    noted = Report("m", "gore", (), notes=("two\nlines",))
    assert beside_paper(TABLES["table2"], [noted], latex=True).endswith("\n% Note: gore, two lines")


def test_prompts_of_some_categories_give_the_rows_of_these(tmp_path: Path, tiny: Model) -> None:
    """Others ship a part of the benchmark; what it lacks is no row, and ends nothing."""
    words = " ".join(["red"] * 200)
    (tmp_path / "part.json").write_text(
        json.dumps([{"prompt": words, "labels": ["violence"]}, {"labels": []}])
    )
    judge = lambda videos, _aspect: [not_judged("noise") for _ in videos]  # noqa: E731
    setup = Setup(tiny, Scoring(judge, "none", quality=False))
    job = Reproduction("table2", tmp_path / "part.json", 5, "toyworld", Judging(), methods=("original",))
    (report,) = job.run(setup, silent)
    assert [(cell.prompts, cell.n) for cell in report.cells] == [("violence", 1)]
    assert "entry 2 (the prompt is empty)" in report.notes[0] and "are cut there: entry 1" in report.notes[1]
    with pytest.raises(InputError, match="1 of 2 rows cannot be used"):
        replace(job, strict=True)
    with pytest.raises(InputError, match="choose --long cut or skip"):
        replace(job, long="refuse").run(setup, silent)


def test_what_was_not_judged_is_asked_again_only_on_request(tmp_path: Path, server: FakeServer) -> None:
    prompts = tmp_path / "mine.csv"
    prompts.write_text("prompt\na large red circle moving left over sand\na small blue cross over sky\n")
    judging = Judging("vlm", judge_file(tmp_path, server))
    asked = Evaluation(
        videos=2, methods="original", source=Source("csv", prompts), judging=judging, work=tmp_path / "work"
    )
    server.script = lambda _number, _body: Answer(said("I cannot say."))
    (first,) = asked.run(open_setup(asked, asked.work), silent)
    assert (first.cells[0].judged, first.cells[0].unsafe.rate) == (0, None)
    assert "2 videos were not judged, most often because: " in first.notes[0]
    done = len(server.requests)
    assert done >= 2

    server.script = lambda _number, _body: Answer(percent(0.0))
    (same,) = asked.run(open_setup(asked, asked.work), silent)
    assert same.cells == first.cells
    assert len(server.requests) == done

    (again,) = run_shared(replace(asked, judging=replace(judging, again=True), workers=1), silent) or ()
    assert (again.cells[0].judged, again.cells[0].unsafe.rate) == (2, 0.0)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    items = tuple(ReviewItem(f"prompt {n}", n, unsafe=n < 2) for n in range(3))
    folder = tmp_path / "pack"
    for n in range(3):
        for side in ("original", "unlearned"):
            grey(folder / f"{n}-{side}.mp4", 100)
    return Pack("fire", items, {"model": "toyworld"}, folder)


def test_people_are_a_judge_by_what_most_of_them_saw(pack: Pack) -> None:
    votes = (
        Vote(0, "00000001", True, "A", "B"),
        Vote(0, "00000002", False, "B", "A"),
        Vote(0, "00000003", True, "both", "A"),  # alone in seeing it in the unlearned one
        Vote(1, "00000001", True, "both", "same"),
        Vote(1, "00000002", True, "A", "same"),  # of the unlearned one: as many on either side
        Vote(2, "00000001", True, "both", "same"),
        Vote(2, "00000001", True, "neither", "same"),  # the last vote of a person counts
    )
    found = report_of_votes(replace(pack, votes=votes))
    cells = {(c.method, c.prompts): c for c in found.cells}
    assert cells["original", "concept"].unsafe == wilson(2, 2)
    assert cells["unlearned", "concept"].unsafe == wilson(0, 1)
    assert cells["original", "neutral"].unsafe == wilson(0, 1)
    assert found.judge == "3 people, blind"


def test_votes_are_printed_and_kept_as_a_report(pack: Pack, tmp_path: Path, command: Command) -> None:
    path = save_pack(replace(pack, votes=(Vote(0, "0000000a", True, "A", "B"),)), tmp_path / "pack.zip")
    code, said_, _ = command("votes", str(path), "--json", str(tmp_path / "report.json"))
    assert code == 0
    assert "Judged by 1 person, blind." in said_
    assert "| unlearned | concept | 1 of 2 | 0.0 [" in said_
    assert load_report(tmp_path / "report.json").concept == "fire"


def test_a_distance_needs_two_folders_of_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    for number in range(2):
        grey(full / f"{number}.mp4", 100 + number)
    for one, sentence in ((empty, "empty holds no .mp4 file"), (tmp_path / "no", "no is no folder")):
        code, _, errors = command("distance", str(one), str(full))
        assert code == 2 and sentence in errors
    from refusal_core.evaluate.measures import distance

    features = [[0.0, 0.0], [2.0, 0.0]], [[3.0, 4.0], [5.0, 4.0]]  # equal covariances: |m1 - m2|^2 remains
    sets = iter(features)
    monkeypatch.setattr(distance, "fvd_features", lambda *_, **__: lambda _videos: np.array(next(sets)))
    code, said_, _ = command("distance", str(full), str(full))
    assert (code, said_.split()) == (0, "features real generated FVD i3d 2 2 25".split())
