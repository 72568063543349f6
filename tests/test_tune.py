"""The search over settings: resumable, shared by processes, and nothing is tried twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

from refusal_core.errors import FileError
from refusal_core.evaluate.grid import Point
from refusal_core.evaluate.reports.tables import front
from refusal_core.evaluate.tune import SITES, Search, Tuning, front_of, worker_number
from refusal_core.progress import Progress


class Tried:
    """An objective that takes no time, and the points it was asked for."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    def __call__(self, point: Point, progress: Progress) -> tuple[float, float]:
        self.points.append(point)
        progress(1.0, point.name)
        return min(point.strength, 1.0), 1 / point.rank


def search(work: Path, trials: int) -> Tried:
    """Search as a process would that starts on the folder now."""
    tried = Tried()
    with worker_number(work) as worker:
        Search(work, "points", trials, worker).run(tried)
    return tried


def states(work: Path) -> list[TrialState]:
    return [t.state for t in Search(work, "points", 0, 0).study.get_trials()]


def test_a_search_that_goes_on_tries_what_it_would_have_tried(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole", 24).points  # the first 10 at random, the others from what is known
    parts = [search(tmp_path / "parts", trials).points for trials in (4, 8, 20, 24, 24)]
    assert [len(points) for points in parts] == [4, 4, 12, 4, 0]
    assert [point for points in parts for point in points] == whole
    assert len(set(whole[:10])) == 10


def test_each_worker_has_the_lowest_free_number(tmp_path: Path) -> None:
    with worker_number(tmp_path / "new") as first:
        with worker_number(tmp_path / "new") as second, worker_number(tmp_path / "new") as third:
            assert (first, second, third) == (0, 1, 2)
        with worker_number(tmp_path / "new") as again, worker_number(tmp_path / "other") as apart:
            assert (again, apart) == (1, 0)


def test_a_folder_that_cannot_be_written_gets_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file cannot be used"), worker_number(tmp_path / "file"):
        pass


def test_a_trial_counts_while_its_process_lives(tmp_path: Path) -> None:
    def broken_off(point: Point, progress: Progress) -> tuple[float, float]:
        raise KeyboardInterrupt

    with worker_number(tmp_path) as first, worker_number(tmp_path) as second:
        for worker in (first, second):
            with pytest.raises(KeyboardInterrupt):
                Search(tmp_path, "points", 5, worker).run(broken_off)
        Search(tmp_path, "points", 2, 2).run(Tried())
        assert states(tmp_path) == [TrialState.RUNNING] * 2  # of those that still hold their numbers
    assert len(search(tmp_path, 3).points) == 3  # number 0 again, and 1 is held by nobody
    assert states(tmp_path) == [TrialState.FAIL] * 2 + [TrialState.COMPLETE] * 3


# Importing torch takes longer than all the rest: one process does it and forks for each worker.
WORKERS = """
import os, signal, sys, time
from pathlib import Path
from refusal_core.evaluate.measures.journal import Journal, Measured
from refusal_core.evaluate.tune import Search, worker_number
import optuna

work, trials = Path(sys.argv[1]), int(sys.argv[2])

def search(last):
    with worker_number(work) as worker:
        journal = Journal(work, worker)
        def tried(point, progress):
            time.sleep(0.05)
            if len(journal) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            journal.add(f"{os.getpid()} {point.name}", Measured(()))
            return min(point.strength, 1.0), 1 / point.rank
        Search(work, "points", trials, worker).run(tried)

def started(last=None):
    child = os.fork()
    if child == 0:
        search(last)
        os._exit(0)
    return child

print(os.waitpid(started(2), 0)[1])
print(*(os.waitpid(child, 0)[1] for child in [started(), started()]))
"""


def test_two_processes_share_the_trials_and_none_is_lost_with_a_third(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKERS, str(tmp_path), "10"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).resolve().parents[1],
        check=True,
    )
    assert done.stdout.split() == ["9", "0", "0"], done.stderr  # killed in its third trial; both ended well
    ended = states(tmp_path)
    assert ended[2] == TrialState.FAIL
    assert [*ended[:2], *ended[3:]] == [TrialState.COMPLETE] * 10
    study = Search(tmp_path, "points", 10, 0).study
    tried = [tuple(t.params.values()) for t in study.get_trials()]
    assert len(set(tried)) == len(tried) == 11
    assert {t.user_attrs["worker"] for t in study.get_trials()} == {0, 1}
    files = sorted(tmp_path.glob("*.readings.jsonl"))
    assert [f.name for f in files] == ["0.readings.jsonl", "1.readings.jsonl"]
    writers = [{line.split()[1] for line in f.read_text().splitlines()} for f in files]
    assert not writers[0] & writers[1]  # number 0 is that of the killed one and of one that came later
    assert front_of(study)


def test_a_search_goes_on_where_it_was_and_prints_a_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refusal_core.evaluate.tune.SITES", SITES[:1])
    first = Tuning("toyworld", "fire", 1, 1, tmp_path).run()
    journal = (tmp_path / "optuna.journal").read_text()
    with worker_number(tmp_path):  # as if the first were at it still
        second = Tuning("toyworld", "fire", 2, 1, tmp_path).run()
    assert (tmp_path / "optuna.journal").read_text().startswith(journal)
    assert first and second
    assert all(0 <= t.erased <= 1 and 0 <= t.kept <= 1 for t in second)
    files = [tmp_path / f"{worker}.readings.jsonl" for worker in (0, 1)]
    made = [[json.loads(line)["key"] for line in f.read_text().splitlines()] for f in files]
    assert made[0] and made[1]
    assert not set(made[0]) & set(made[1])  # the original's videos among them
    points = [(t.kept, t.erased) for t in second]
    assert front(points) == list(range(len(points)))
