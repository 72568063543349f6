"""Visitors at the same time, in short; and a server that is killed in the middle of a job."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from load import Server, crowd, left_behind, look, wish

from refusal_core.io.video import load_video
from refusal_core.workbench.history import History

pytestmark = pytest.mark.filterwarnings("default")


def test_visitors_at_once_each_get_their_own_videos_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with Server(tmp_path) as server:
        tried = crowd(server, 3, lambda job: job < 2, tmp_path / "mine")
        left = left_behind(server)
    assert not tried.lost and not tried.strange
    assert tried.answered == 6
    assert len(tried.owners) == 12, "each video is made for one wish alone"
    assert left == 0, "a client that goes away frees its files"


def test_a_video_of_anothers_would_be_noticed(tmp_path: Path) -> None:
    import numpy as np

    from refusal_core.io.video import Video, save_video

    (tmp_path / "a").mkdir()
    concept, prompt, seed = wish(0, 0)
    edits, sampling = [{"concept": {"name": concept}}], {"seed": seed + 1}
    recipe = {"edits": edits, "prompt": prompt, "sampling": sampling, "shows": "original"}
    path = save_video(Video(np.zeros((2, 16, 16, 3), np.uint8), 8.0), tmp_path / "a" / "a.mp4", recipe)
    _, wanted, got = look(path, (concept, prompt, str(seed), "original"))
    assert wanted != got
    wishes = [wish(number, job) for number in range(20) for job in range(300)]
    assert len(set(wishes)) == len(wishes)


# --- killed ----------------------------------------------------------------------------------------


def get(address: str) -> Any:
    return json.loads(urllib.request.urlopen(address, timeout=60).read())


def press_compare(server: Server, owner: str, seed: int) -> Iterator[str]:
    """Press the page's Compare as this browser would; yields what the server says, one by one."""
    config = get(f"{server.url}/config")
    job = next(d for d in config["dependencies"] if d["api_name"] == "run")
    components = {c["id"]: c["props"] for c in config["components"]}
    written = {"owner": owner, "seed": seed}
    data = []
    for number in job["inputs"]:
        props = components[number]
        name = props.get("elem_id") or props.get("label")
        data.append(written.get(name, props.get("value")))
    session = uuid.uuid4().hex
    asked = json.dumps({"data": data, "fn_index": job["id"], "session_hash": session}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{server.url}/gradio_api/queue/join", asked, headers)
    urllib.request.urlopen(request, timeout=60).read()
    with urllib.request.urlopen(
        f"{server.url}/gradio_api/queue/data?session_hash={session}", timeout=120
    ) as told:
        for line in told:
            if line.startswith(b"data: "):
                message = json.loads(line[6:])
                assert message.get("success", True), message
                yield message["msg"]
                if message["msg"] == "process_completed":
                    return


def kept(server: Server, owner: str) -> dict[str, tuple[int, str]]:
    """Read the owner's runs as a fresh start does; each video must be whole."""
    found = {}
    for card in History(server.data).runs(owner):
        recipes = [load_video(clip.path)[1] for clip in (card.original, card.unlearned)]
        assert [r["shows"] for r in recipes] == ["original", "unlearned"]
        assert {r["sampling"]["seed"] for r in recipes} == {card.original.seed}
        found[card.run] = (card.original.seed, card.original.path.read_bytes().hex()[-64:])
    return found


def kill_while_keeping(server: Server) -> None:
    """Kill a server once it writes a run into the history."""
    until = time.monotonic() + 200
    while not list(server.data.glob("*/.new-*")) and time.monotonic() < until:
        time.sleep(0.001)
    server.kill()


def test_killed_in_a_job_and_started_again_it_has_every_run_whole(tmp_path: Path) -> None:
    """Killed once while it generates, and once while a run is being written into the history."""
    owner = uuid.uuid4().hex
    with Server(tmp_path) as server:
        assert list(press_compare(server, owner, 1))[-1] == "process_completed"
        before = kept(server, owner)
        assert [seed for seed, _ in before.values()] == [1]
        for said in press_compare(server, owner, 2):
            if said == "process_generating" and server.served():
                server.kill()
                break
    assert kept(server, owner) == before
    with Server(tmp_path, slow_writes=0.5) as server:
        assert list(press_compare(server, owner, 3))[-1] == "process_completed"
        more = kept(server, owner)
        assert before.items() < more.items() and sorted(seed for seed, _ in more.values()) == [1, 3]
        watching = threading.Thread(target=kill_while_keeping, args=[server])
        watching.start()
        with suppress(OSError, http.client.HTTPException):
            list(press_compare(server, owner, 4))
        watching.join()
    assert list(server.data.glob("*/.new-*")), "it was killed too late, so nothing was tried"
    assert kept(server, owner) == more
    assert not list(server.data.glob("*/.new-*")), "half a run was left there"
