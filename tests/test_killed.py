"""Kill -9 and Ctrl-C at any moment: under a final name there is a whole file or none."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import refusal_core as rc
from refusal_core.edit import load_edit
from refusal_core.io.files import new_folder, write_atomic
from refusal_core.io.shards import read_index
from refusal_core.io.video import load_video
from refusal_core.models.model import Model

pytestmark = pytest.mark.security
KILLS = 6  # of each command
WHOLE: dict[str, Callable[[Path], object]] = {
    ".safetensors": load_edit,
    ".mp4": load_video,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
}

# Importing torch takes longer than all the rest: one process does it and forks for each command.
FORKING = """
import os, sys, time
import torch
torch.set_num_threads(1)
import diffusers, transformers
import refusal_core.cli, refusal_core.recipe, refusal_core.sampling, refusal_core.models.load

rest, fsync = float(sys.argv[1]), os.fsync

def slow(handle):
    time.sleep(rest)
    fsync(handle)

os.fsync = slow
print("ready", flush=True)
for line in iter(sys.stdin.readline, ""):
    child = os.fork()
    if child == 0:
        sys.argv = ["refusal_core", *line.split()]
        try:
            refusal_core.cli.main()
        except SystemExit as e:
            os._exit(int(e.code or 0))
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()  # until then an ended child keeps its number, and no other process gets it
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """Commands run by forking a process that has imported everything."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        with errors.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", FORKING, "0.05"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if (text := line.strip()) == "ready" or _is_number(text):  # else what the commands print
                return text
        raise AssertionError(f"the forking process has ended: {self._process.wait(60)}")

    def run(self, arguments: list[str], stop: Callable[[int], None] = lambda _child: None) -> int:
        """Run a command, stop it as asked, and return its exit code, less than 0 for a signal."""
        self._write(" ".join(arguments))
        child = int(self._read())
        assert child > 1
        stop(child)
        self._write("wait")
        return int(self._read())

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def _is_number(line: str) -> bool:
    return line.removeprefix("-").isdecimal()


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    found = Forks(tmp_path_factory.mktemp("forks") / "errors")
    yield found
    found.close()


@pytest.fixture(scope="module")
def model_folder(tiny: Model, fire: rc.Concept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a folder: loaded in no time, and its videos take few steps."""
    edit = rc.make_edit(rc.estimate(rc.capture(tiny, fire)))
    folder = tmp_path_factory.mktemp("model") / "tiny"
    rc.export_weights(edit, tiny, folder)
    return folder


def command(name: str, model: Path, out: Path) -> list[str]:
    target = out / "fire.safetensors" if name == "edit" else out
    return [name, "--model", str(model), "--preset", "fire", "--layers", "0-1", "--out", str(target)]


def look(out: Path) -> tuple[set[str], set[str]]:
    """Load all that bears a final name; return these names, and those of leftovers."""
    names = {p.name for p in out.iterdir()} if out.exists() else set()
    left = {name for name in names if name.startswith(".") and name.endswith(".tmp")}
    for name in names - left:
        WHOLE[Path(name).suffix](out / name)
    for pattern in ("*.safetensors", "*.mp4", "*.json"):
        assert {p.name for p in out.glob(pattern)} <= names - left, "a leftover is taken for a result"
    if any(name.endswith(".safetensors") for name in names):
        if names - left:
            read_index(out)
    return names - left, left


def at_random(longest: float, rng: random.Random, number: int) -> Callable[[int], None]:
    def stop(child: int) -> None:
        time.sleep(rng.uniform(0.0, longest))
        os.kill(child, number)  # it may have ended: it is a zombie until it is waited for

    return stop


def while_writing(out: Path, number: int, rest: float = 0.0) -> Callable[[int], None]:
    def stop(child: int) -> None:
        until = time.monotonic() + 300  # a hang, not a benchmark: the machine may be busy
        while not (out.exists() and any(out.iterdir())):
            assert time.monotonic() < until, "nothing was written"
            time.sleep(0.001)
        time.sleep(rest)
        os.kill(child, number)

    return stop


@pytest.mark.parametrize("name", ["edit", "compare"])
def test_killed_at_any_moment_it_leaves_whole_files_or_none(
    name: str, forks: Forks, model_folder: Path, tmp_path: Path
) -> None:
    rng, start = random.Random(0), time.monotonic()
    assert forks.run(command(name, model_folder, tmp_path / "whole")) == 0
    longest = time.monotonic() - start
    wanted, left = look(tmp_path / "whole")
    assert (len(wanted), left) == (1 if name == "edit" else 4, set())
    out, leftovers, codes = tmp_path / "out", set(), []
    for _ in range(KILLS // 2):
        codes.append(forks.run(command(name, model_folder, out), at_random(longest, rng, signal.SIGKILL)))
        leftovers |= look(out)[1]
    for i in range(KILLS // 2):
        fresh = tmp_path / f"fresh{i}"
        stop = while_writing(fresh, signal.SIGKILL, rng.uniform(0, 0.03))
        codes.append(forks.run(command(name, model_folder, fresh), stop))
        leftovers |= look(fresh)[1]
    assert codes.count(-signal.SIGKILL) >= KILLS // 2, codes
    assert leftovers, "no kill came while a file was written, so nothing was tried"
    assert forks.run(command(name, model_folder, out)) == 0
    assert look(out)[0] == wanted


@pytest.mark.parametrize("name", ["edit", "compare"])
def test_stopped_by_ctrl_c_it_leaves_nothing_unfinished(
    name: str, forks: Forks, model_folder: Path, tmp_path: Path
) -> None:
    rng = random.Random(1)
    for i in range(4):
        out = tmp_path / f"out{i}"
        stop = while_writing(out, signal.SIGINT, rng.uniform(0, 0.03))
        code = forks.run(command(name, model_folder, out), stop)
        assert code == 130, forks.errors.read_text()[-2000:]
        assert look(out)[1] == set()
    assert "Stopped. Nothing was left half-written." in forks.errors.read_text()
    assert "Traceback" not in forks.errors.read_text()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_ctrl_c_the_moment_a_file_is_made_leaves_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(make: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            make(*args, **options)
            raise KeyboardInterrupt

        return call

    name = "open" if kind == "file" else "mkdir"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, name, stopped(getattr(os, name)))
        if kind == "file":
            write_atomic(tmp_path / "fire.safetensors", lambda path: path.write_text("whole"))
        with new_folder(tmp_path / "fire"):
            pass
    assert not list(tmp_path.iterdir())


DROPPING = """
import os, signal, sys, time, typer
import refusal_core.cli as cli

class Library:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

app = cli.app = typer.Typer()

@app.command()
def command():
    for _ in range(3):
        Library()
    time.sleep(float(sys.argv.pop()))

signal.signal(signal.SIGINT, signal.default_int_handler)
cli.main([])
print("ended")
"""


@pytest.mark.parametrize("rest", ["0", "100"], ids=["at its end", "in its midst"])
def test_ctrl_c_that_another_library_swallows_stops_the_command(rest: str) -> None:
    """Python drops what is raised in a ``__del__``: there it is raised again, a moment later."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", DROPPING, rest], capture_output=True, text=True, timeout=90)
    assert done.returncode == 130 and "ended" not in done.stdout, done.stderr
    assert "Stopped. Nothing was left half-written." in done.stderr
    assert "Traceback" not in done.stderr and time.monotonic() - start < 60


def test_a_careless_writer_would_be_caught(tmp_path: Path) -> None:
    """Half an edit under its final name, and an unfinished one that ends like an edit."""
    (tmp_path / "fire.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(rc.RefusalError):
        look(tmp_path)
    (tmp_path / "fire.safetensors").rename(tmp_path / ".fire.safetensors.abc.safetensors")
    with pytest.raises((AssertionError, rc.RefusalError)):
        look(tmp_path)


def test_the_real_command_killed_while_it_writes(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "refusal_core", *command("compare", model_folder, out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(rc.__file__).parents[1],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    while_writing(out, signal.SIGKILL)(process.pid)
    assert process.wait() == -signal.SIGKILL
    assert look(out)[1], "it was killed too late"


def when_read(work: Path, count: int) -> Callable[[int], None]:
    """Kill a command once its readings are so many."""

    def stop(child: int) -> None:
        until = time.monotonic() + 300
        while sum(p.read_text().count('"verdicts"') for p in work.glob("*.readings.jsonl")) < count:
            assert time.monotonic() < until, "too little was read"
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)

    return stop


def test_an_evaluation_killed_again_and_again_gives_the_table_of_one_that_was_not(
    forks: Forks, tmp_path: Path
) -> None:
    words = ["evaluate", "--preset", "fire", "--methods", "original,whitened", "--videos", "1", "--json"]
    whole, got, work = tmp_path / "whole.json", tmp_path / "got.json", tmp_path / "work"
    work.mkdir()
    assert forks.run([*words, str(whole)]) == 0
    for count in (1, 4, 7):  # of eight: four groups under two methods
        command = [*words, str(got), "--work", str(work)]
        assert forks.run(command, when_read(work, count)) == -signal.SIGKILL
        assert not got.exists()
    assert forks.run(command) == 0
    one, two = (json.loads(path.read_text()) for path in (whole, got))
    assert one["cells"] == two["cells"] and len(one["cells"]) == 8
    assert (work / "0.readings.jsonl").read_text().count('"verdicts"') <= 8 + 1, "little was made twice"
