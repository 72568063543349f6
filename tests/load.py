"""Many visitors at once: is each answered, with their own videos, and does the app give back what it took?

By hand, ten minutes long: ``python tests/load.py --clients 20 --minutes 10``. In short it is a test.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONCEPTS = ("fire", "bleeding", "star-logo")
STAY = 5  # jobs for which a client stays before it goes and a new one comes
HEARTBEAT = 2.0  # seconds in which the server notices that a client has gone
WARM = 0.35  # of the time: models, activations and originals fill their caches
PATIENCE = 300.0  # seconds for one answer


# --- the server ------------------------------------------------------------------------------------


def serve(port: int, seen: Path, slow_writes: float) -> None:
    """Serve the app as ``app.py --public`` does, but for how often a session may ask.

    Every start of a job, and every look at whether it is to stop, is noted with its time in ``seen``. With
    slow writes there is time to kill it in the middle of one.
    """
    sys.path.insert(0, str(ROOT))
    from dataclasses import replace

    from refusal_core.studio.build import build_app, launch_kwargs
    from refusal_core.studio.files import served_folder
    from refusal_core.studio.jobs import Stops
    from refusal_core.studio.limits import PUBLIC
    from refusal_core.workbench.workbench import Workbench

    limits = replace(PUBLIC, jobs_a_minute=None)
    starting, started = Stops.telling, 0

    def telling(self: Stops, *arguments: Any, **named: Any) -> Any:
        nonlocal started
        tell = starting(self, *arguments, **named)
        started += 1
        number = started
        note(f"start {number}")

        def noted(fraction: float, sentence: str) -> None:
            note(f"look {number}")
            tell(fraction, sentence)

        return noted

    def note(words: str) -> None:
        with seen.open("a") as file:
            file.write(f"{time.monotonic()} {words}\n")

    def slow(handle: int, fsync: Callable[[int], None] = os.fsync) -> None:
        time.sleep(slow_writes)
        fsync(handle)

    os.fsync = slow
    Stops.telling = telling  # type: ignore[method-assign]
    workbench = Workbench("toyworld", only_bundled=True, folder=served_folder())
    app = build_app(workbench, limits=limits)
    app.launch(server_name="127.0.0.1", server_port=port, quiet=True, **launch_kwargs(limits))


class Server:
    """The app in a process of its own, with folders of its own."""

    def __init__(self, folder: Path, *, slow_writes: float = 0.0) -> None:
        self.files, self.data, self.seen = folder / "files", folder / "data", folder / "seen"
        self.log = folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            **os.environ,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(self.files),
            "GRADIO_HEARTBEAT_INTERVAL": str(HEARTBEAT),
            "REFUSAL_STUDIO_DATA": str(self.data),
            "HF_HUB_OFFLINE": "1",
        }
        with self.log.open("a") as log:
            options = ["--serve", str(self.port), "--seen", str(self.seen), "--slow-writes", str(slow_writes)]
            self.process = subprocess.Popen(
                [sys.executable, __file__, *options],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def __enter__(self) -> Server:
        until = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/config", timeout=20).read()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.kill()
                    raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-2000:]}") from None
                time.sleep(0.3)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def memory(self) -> float:
        """Return how many MB of memory it has in use."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def served(self) -> list[Path]:
        """Return the files that it would serve."""
        return [path for path in self.files.rglob("*") if path.is_file()]

    def notes(self) -> list[tuple[float, str, int]]:
        """Return when jobs started and looked whether they are to stop."""
        lines = [line.split() for line in self.seen.read_text().splitlines()] if self.seen.exists() else []
        return [(float(when), what, int(job)) for when, what, job in lines]


# --- the visitors ----------------------------------------------------------------------------------


@dataclass
class Tried:
    """What happened to all visitors together."""

    asked: int = 0
    answered: int = 0
    waits: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)  # videos that are not what was asked for
    owners: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by the video's hash
    guard: threading.Lock = field(default_factory=threading.Lock)


def connect(server: Server, folder: Path) -> Any:
    """Return a new visitor, with a session of their own."""
    from gradio_client import Client

    return Client(server.url, verbose=False, download_files=folder)


def wish(number: int, job: int) -> tuple[str, str, int]:
    """Return concept, prompt and seed of a visitor's job: no two are alike."""
    rng = random.Random(f"{number} {job}")
    concept = rng.choice(CONCEPTS)
    words = {"fire": "on fire", "bleeding": "bleeding", "star-logo": "with a star logo"}[concept]
    thing = f"{rng.choice(('large', 'small'))} {rng.choice(('red', 'blue', 'green'))}"
    shape, motion = rng.choice(("square", "circle", "cross")), rng.choice(("right", "up"))
    return concept, f"a {thing} {shape} {words} moving {motion} over sky", 1000 * number + job


def visit(server: Server, number: int, going_on: Callable[[int], bool], tried: Tried, folder: Path) -> None:
    """Be one visitor after another: ask, look whether the answer is one's own, go after some answers."""
    client, job = None, 0
    while going_on(job):
        kept = folder / f"{number}-{job}"
        try:
            if client is None:
                client = connect(server, folder)
            ask(client, number, job, tried, kept)
        except Exception as e:
            with tried.guard:
                tried.lost.append(f"client {number}, job {job}: {e}"[:300])
        job += 1
        if client is not None and job % STAY == 0:
            client.close()
            client = None
    if client is not None:
        client.close()


def ask(client: Any, number: int, job: int, tried: Tried, kept: Path) -> None:
    """Do one job and look at its two videos."""
    concept, prompt, seed = wish(number, job)
    began = time.monotonic()
    with tried.guard:
        tried.asked += 1
    given = client.submit(concept, prompt, seed, api_name="/compare").result(timeout=PATIENCE)
    wait = time.monotonic() - began
    found = [look(Path(video), (concept, prompt, str(seed), shows)) for video, shows in _sides(given)]
    with tried.guard:
        tried.answered += 1
        tried.waits.append(wait)
        for digest, wanted, got in found:
            if wanted != got:
                tried.strange.append(f"client {number} asked for {wanted} and was given {got}")
            if tried.owners.setdefault(digest, wanted) != wanted:
                tried.strange.append(f"{wanted} and {tried.owners[digest]} have one video")


def _sides(given: Any) -> list[tuple[str, str]]:
    paths = [v["video"] if isinstance(v, dict) else v for v in given[:2]]
    return list(zip(paths, ("original", "unlearned"), strict=True))


def look(path: Path, wanted: tuple[str, ...]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return a video's hash, what was asked for, and what its recipe says it is; delete it."""
    from refusal_core.io.video import load_video

    recipe = load_video(path)[1]
    concept = recipe["edits"][0]["concept"]["name"]
    got = (concept, recipe["prompt"], str(recipe["sampling"]["seed"]), recipe["shows"])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    shutil.rmtree(path.parent, ignore_errors=True)
    return digest, wanted, got


def crowd(server: Server, clients: int, going_on: Callable[[int], bool], folder: Path) -> Tried:
    """Let so many clients visit at the same time."""
    tried = Tried()
    with ThreadPoolExecutor(clients) as threads:
        for n in range(clients):
            threads.submit(visit, server, n, going_on, tried, folder)
    return tried


# --- what is looked at -----------------------------------------------------------------------------


class Memory(threading.Thread):
    """The server's memory, twice a second."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server, self._ended = server, threading.Event()
        self.seen: list[float] = []

    def run(self) -> None:
        while not self._ended.wait(0.5):
            self.seen.append(self._server.memory())

    def end(self) -> tuple[float, float]:
        """Return the median of the first quarter after the warm-up, and of the last, in MB."""
        self._ended.set()
        self.join()
        warm = self.seen[int(len(self.seen) * WARM) :]
        quarter = max(1, len(warm) // 4)
        return statistics.median(warm[:quarter]), statistics.median(warm[-quarter:])


def left_behind(server: Server, seconds: float = 10 * HEARTBEAT + 20) -> int:
    """Return how many files are still served some time after the last client has gone."""
    until = time.monotonic() + seconds
    while server.served() and time.monotonic() < until:
        time.sleep(0.3)
    return len(server.served())


def cancelled(server: Server, folder: Path) -> tuple[float, float]:
    """Cancel a long evaluation that another visitor waits for.

    Returns:
        The seconds from the cancel to the start of the other's job, and the longest step of the evaluation.
    """
    long, short = connect(server, folder), connect(server, folder)
    before = len(server.notes())
    evaluating = long.submit("fire", 200, "toyworld", api_name="/evaluate")
    _until(lambda: sum(what == "look" for _, what, _ in server.notes()[before:]) > 8)
    waiting = short.submit(*wish(9999, 0), api_name="/compare")
    time.sleep(1.0)
    when = time.monotonic()
    evaluating.cancel()
    waiting.result(timeout=PATIENCE)
    notes = server.notes()[before:]
    first = next(job for _, what, job in notes if what == "start")
    looks = [at for at, what, job in notes if what == "look" and job == first]
    began = next(at for at, what, job in notes if what == "start" and job != first)
    for client in (long, short):
        client.close()
    return began - when, max(b - a for a, b in pairwise(looks))


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("it did not happen")
        time.sleep(0.02)


def main() -> int:
    """Run the long form; print a table; return 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seen", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--slow-writes", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.seen, options.slow_writes)
        return 0
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="refusal-load-") as place:
        folder = Path(place)
        (folder / "mine").mkdir()
        with Server(folder) as server:
            memory = Memory(server)
            memory.start()
            end = time.monotonic() + options.minutes * 60
            tried = crowd(server, options.clients, lambda _: time.monotonic() < end, folder / "mine")
            first, last = memory.end()
            left = left_behind(server)
            freed, step = cancelled(server, folder / "mine")
    return _report(options.clients, tried, (first, last), left, (freed, step))


def _report(
    clients: int, tried: Tried, memory: tuple[float, float], left: int, cancel: tuple[float, float]
) -> int:
    growth = memory[1] / memory[0] - 1
    rows = [
        ("jobs answered of those asked", f"{tried.answered} of {tried.asked}", not tried.lost),
        ("videos checked", f"{len(tried.owners)}", len(tried.owners) == 2 * tried.answered),
        ("videos that were another's", f"{len(tried.strange)}", not tried.strange),
        ("memory after warm-up and at the end", f"{memory[0]:.0f} and {memory[1]:.0f} MB", True),
        ("growth", f"{growth:+.1%}", growth < 0.05),
        ("files left when all had gone", f"{left}", left == 0),
        # Beside the step: Gradio looks for the next job twenty times a second.
        ("from a cancel to the next start", f"{cancel[0]:.2f} s, a step is {cancel[1]:.2f} s",
         cancel[0] < cancel[1] + 0.5),
    ]  # fmt: skip
    if tried.waits:
        slow = sorted(tried.waits)[int(0.95 * (len(tried.waits) - 1))]
        rows.insert(1, ("wait", f"median {statistics.median(tried.waits):.1f} s, 95 % {slow:.1f} s", True))
    print(f"{clients} clients")
    for name, value, good in rows:
        print(f"{'ok  ' if good else 'BAD '}{name:38}{value}")
    for sentence in (*tried.lost[:5], *tried.strange[:5]):
        print("  " + sentence)
    return 0 if all(good for *_, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
