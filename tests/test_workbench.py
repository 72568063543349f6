"""Behind the app: pairs, grids, history, review packs, exports, limits, and work in a GPU call."""

from __future__ import annotations

import json
import pickle
import sys
import time
import types
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import refusal_core as rc
from refusal_core.errors import Cancelled, FileError, InputError
from refusal_core.evaluate.measures.statistics import wilson
from refusal_core.evaluate.reports.cells import Cell
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.selftest import hashes
from refusal_core.io.video import load_video
from refusal_core.progress import silent
from refusal_core.recipe import EditRequest, Recipe, changed, own_name
from refusal_core.settings import SamplingSettings
from refusal_core.workbench import history as history_room
from refusal_core.workbench.evaluating import OURS, Shown, SuiteRequest, evaluate, outcome_of
from refusal_core.workbench.exporting import export as export_edit
from refusal_core.workbench.exporting import push as push_edit
from refusal_core.workbench.history import History
from refusal_core.workbench.pairs import note_pair, parse_pasted, read_pairs
from refusal_core.workbench.review import (
    Pack,
    Vote,
    blind_order,
    load_pack,
    make_pack,
    review_prompts,
    save_pack,
    tally,
)
from refusal_core.workbench.tiles import (
    CellJob,
    cell_settings,
    make_cells,
    make_tiles,
    other_jobs,
    parse_axis,
    seed_jobs,
)
from refusal_core.workbench.values import Comparison
from refusal_core.workbench.votes import report_of_votes
from refusal_core.workbench.workbench import Workbench

PROMPT = "a large blue square on fire moving right over sky"
OWNER = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def bench() -> Iterator[Workbench]:
    made = Workbench("toyworld")
    yield made
    made.close()


def request(
    bench: Workbench, name: str = "fire", also: Sequence[tuple[str, float]] = (), **changes: object
) -> EditRequest:
    return bench.request(name, values=changes, further=also)


@pytest.fixture(scope="module")
def compared(bench: Workbench) -> Comparison:
    *_, found = bench.compare(request(bench), PROMPT, SamplingSettings(3), session="fixture")
    return found


def with_settings(asked: EditRequest, **values: object) -> EditRequest:
    return replace(asked, recipe=changed(asked.recipe, values))


# --- pairs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unsafe", "safe", "warning"),
    [
        ("a red circle on fire", "a red circle", None),
        ("a red circle on fire over sand", "a red circle over sand", None),
        ("a red circle on fire", "the blue square over green grass", "share few words"),
        ("a red circle on fire over sand moving left", "a blue circle over sky moving right", "differ in"),
        ("a red circle on fire", "a red circle moving left over the green grass", "says more"),
    ],
)
def test_a_pair_that_differs_in_more_than_the_concept_is_warned_of(
    bench: Workbench, unsafe: str, safe: str, warning: str | None
) -> None:
    note = note_pair(bench.cached("toyworld").model, unsafe, safe)
    assert note.error is None
    assert (note.warning is None) if warning is None else (warning in str(note.warning))


def test_the_words_that_differ_are_marked_on_both_sides(bench: Workbench) -> None:
    note = note_pair(bench.cached("toyworld").model, "a red circle on fire", "a blue circle")
    assert [w for w, differs in note.unsafe if differs] == ["red", "on", "fire"]
    assert [w for w, differs in note.safe if differs] == ["blue"]


def test_words_without_end_are_not_compared_without_end(bench: Workbench) -> None:
    unsafe, safe, model = "a b " * 20_000, "b a a " * 20_000, bench.cached("toyworld").model
    started = time.process_time()
    assert "tokens; this model reads" in str(note_pair(model, unsafe, safe).error)
    assert own_name([rc.PromptPair(unsafe, safe)])
    assert time.process_time() - started < 3


def test_pasted_rows_are_read_by_tab_or_comma() -> None:
    assert parse_pasted("a b\tc\n\nd\te f\n") == [["a b", "c"], ["d", "e f"]]
    assert parse_pasted('"a, b",c') == [["a, b", "c"]]
    assert parse_pasted("\ufeffa;b\r\nc, d;e\r\n") == [["a", "b"], ["c, d", "e"]]
    assert parse_pasted('"a\nb",c') == [["a\nb", "c"]], "a quoted break is part of a prompt"
    assert parse_pasted("Unsafe prompt\tSafe prompt\na\tb\n") == [["a", "b"]], "a head is no pair"
    assert parse_pasted("id,safe,unsafe,note\n1,b,a,\n") == [["a", "b"]]
    for text, sentence in (("", "nothing to add"), ("one", "has 1 columns"), ("a,b,c", "has 3 columns")):
        with pytest.raises(InputError, match=sentence):
            parse_pasted(text)
    with pytest.raises(InputError, match="too much text"):
        parse_pasted("a\tb\n" * 500_000)


def test_pairs_are_read_from_tables_and_a_bad_row_is_named(tmp_path: Path) -> None:
    wanted = (rc.PromptPair("a cat, on fire", "a cat"), rc.PromptPair("b burns", "b"))
    files = {
        "a.csv": "id;unsafe;safe\n1;a cat, on fire;a cat\n2;b burns;b\n".encode("utf-8-sig"),
        "b.tsv": "a cat, on fire\ta cat\nb burns\tb\n".encode("utf-16"),
        "c.json": json.dumps({"pairs": [{"unsafe": p.unsafe, "safe": p.safe} for p in wanted]}).encode(
            "utf-8-sig"
        ),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert read_pairs(tmp_path / name) == wanted, name
    bad = {
        "a,b\nc,\n": "x.csv: Row 2: ",
        "a,b\nc\n": "x.csv: Row 2 has 1 columns",
        "": "x.csv: There is nothing",
    }
    for text, sentence in bad.items():
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(InputError, match=sentence):
            read_pairs(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes(b"a\xff,b\n")
    with pytest.raises(InputError, match=r"x.csv: Row 1: .*UTF-8"):
        read_pairs(tmp_path / "x.csv")


# --- grids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,4", [1, 2, 4]),
        ("1-8 (+2)", [1, 3, 5, 7]),
        ("0-1.5 [4]", [0, 0.5, 1.0, 1.5]),
        ("2", [2]),
        ("1, 1, 2,", [1, 2]),
    ],
)
def test_the_values_of_an_axis_are_read(text: str, values: list[float]) -> None:
    assert parse_axis("rank", text) == values


@pytest.mark.parametrize(
    "text", ["", "a", "1-", "1-8 (+0)", "0-1 [0]", "1-99 (+1)", "1;2", "nan", "1e9", "-1"]
)
def test_values_that_cannot_be_used_get_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="rank"):
        parse_axis("rank", text)


def test_a_grid_has_the_original_once_and_a_video_of_every_setting_and_stops_when_asked(
    bench: Workbench,
) -> None:
    settings = cell_settings([("rank", [1, 2]), ("strength", [0.0, 1.0])])
    assert settings[1] == {"rank": 1, "strength": 1.0}
    videos = []

    def stop(_fraction: float, _sentence: str) -> None:
        if len(videos) == 3:
            raise Cancelled("Stopped.")

    job = CellJob(request(bench), PROMPT, SamplingSettings(seed=3))
    with pytest.raises(Cancelled):
        for video in make_cells(bench, job, settings, stop, session="grid"):
            videos.append(video)
    original, unchanged, unlearned = videos  # what was done stays
    assert [video.outcome for video in videos] == ["unsafe", "unsafe", "safe"]  # strength 0 changes nothing
    assert np.array_equal(*(load_video(video.path)[0].frames for video in (original, unchanged)))
    assert load_video(unlearned.path)[1]["shows"] == "unlearned"


def test_a_grid_has_a_limit_and_two_different_axes(bench: Workbench) -> None:
    with pytest.raises(InputError, match="16 is the limit"):
        cell_settings([("rank", range(1, 6)), ("strength", [0.1, 0.2, 0.3, 0.4])])
    with pytest.raises(InputError, match="choose two settings"):
        cell_settings([("rank", [1]), ("rank", [2])])
    job = CellJob(request(bench), PROMPT, SamplingSettings())
    with pytest.raises(InputError, match="rank is 0; it must lie from 1"):
        next(make_cells(bench, job, [{"rank": 1}, {"rank": 0}], session="grid"))
    with pytest.raises(InputError, match="16 is the limit"):
        next(make_tiles(bench, seed_jobs(request(bench), PROMPT, 0, 17), session="grid"))


def test_the_other_grids_ask_what_they_promise(bench: Workbench) -> None:
    asked = request(bench)
    assert [j.seed for j in seed_jobs(asked, PROMPT, 5, 3)] == [5, 6, 7]
    others = other_jobs(bench, asked, 1)
    used = {*rc.load_concept("fire").neutral, *(p.safe for p in rc.load_concept("fire").pairs)}
    assert len(others) == 8
    assert not used & {job.prompt for job in others}


# --- several concepts, spectrum, map ----------------------------------------------------------------


def test_several_concepts_are_erased_at_once_each_with_its_strength(bench: Workbench) -> None:
    asked = request(bench, also=(("zorbo", 0.5), ("exploding", 1.0)))
    made, _ = bench.make(asked)
    assert [(o.concept, o.strength) for o in made.origins] == [
        ("fire", 1.0),
        ("zorbo", 0.5),
        ("exploding", 1.0),
    ]
    cosines = bench.cosines(asked)
    assert cosines.names == ("fire", "zorbo", "exploding")
    assert all(cosines.rows[i][i] == pytest.approx(1.0, abs=1e-6) for i in range(3))
    assert cosines.rows[0][1] == pytest.approx(cosines.rows[1][0])
    assert cosines.rows[0][2] < 0.9, "two concepts are two directions here"
    with pytest.raises(InputError, match="chosen twice"):
        bench.make(request(bench, also=(("fire", 1.0),)))


def test_the_spectrum_never_runs_the_model(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(bench, "bleeding")
    assert bench.spectrum(asked) is None, "nothing has been read yet"
    first = bench.spectrum(asked, progress=silent)
    monkeypatch.setattr(
        "refusal_core.workbench.cached.capture", lambda *_, **__: pytest.fail("ran the model")
    )
    for rank in (1, 3, 8):
        view = bench.spectrum(with_settings(asked, rank=rank))
        assert view is not None and view.rank_used == rank
        assert view.values == first.values
    shares = first.shares
    assert all(a <= b + 1e-9 for a, b in pairwise(shares))
    assert list(first.values) == sorted(first.values, reverse=True)
    moved = bench.spectrum(with_settings(asked, shrinkage=0.5))
    assert moved is not None and moved.values != first.values


# --- history ----------------------------------------------------------------------------------------


def test_a_run_is_kept_and_comes_back_after_a_restart(
    bench: Workbench, compared: Comparison, tmp_path: Path
) -> None:
    asked = request(bench, rank=2, also=(("zorbo", 0.5),))
    run = History(tmp_path).add(OWNER, asked, compared, PROMPT)
    (card,) = History(tmp_path).runs(OWNER)
    assert (card.run, card.title, card.request) == (run, PROMPT, asked)
    assert card.original.path.read_bytes() == compared.original.path.read_bytes()
    assert card.unlearned.verdict == compared.unlearned.verdict
    assert card.thumbnail.exists()


def test_a_run_of_the_first_version_still_opens(
    bench: Workbench, compared: Comparison, tmp_path: Path
) -> None:
    """It kept its request as one flat mapping, other presets by name."""
    store = History(tmp_path)
    store.add(OWNER, request(bench), compared, PROMPT)
    (file,) = tmp_path.glob("*/*/run.json")
    entry = json.loads(file.read_text())
    pairs = [[pair.unsafe, pair.safe] for pair in rc.load_concept("fire").pairs]
    entry["request"] = {
        "preset": "fire", "pairs": pairs, "model": "toyworld", "images": [], "method": "cpca",
        "sites": ["text", "cross-attention"], "layers": "0-3", "rank": 4, "strength": 0.5, "anchor": "mean",
        "alpha": 2.0, "relative": False, "center": True, "shrinkage": 0.02, "pool": "frame", "timesteps": 6,
        "trajectory": "own", "also": [["zorbo", 0.75]],
    }  # fmt: skip
    file.write_text(json.dumps(entry))
    (card,) = store.runs(OWNER)
    asked = {"method": "cpca", "sites": "text,cross-attention", "layers": "0-3", "rank": 4, "strength": 0.5,
             "anchor": "mean", "alpha": 2.0, "relative": False, "trajectory": "own",
             "pool": "frame"}  # fmt: skip
    assert card.request.recipe == changed(Recipe(rc.load_concept("fire")), asked)
    assert [(r.concept.name, r.edit.strength) for r in card.request.further] == [("zorbo", 0.75)]
    entry["request"]["pairs"] = pairs[:3]
    file.write_text(json.dumps(entry))
    assert store.runs(OWNER)[0].request.recipe.concept.name == "own-pairs"


def test_an_edited_preset_keeps_its_concept_and_what_is_unknown_is_not_judged(bench: Workbench) -> None:
    preset = bench.preset("fire")
    rows: list[tuple[str, str]] = [(pair.unsafe, pair.safe) for pair in preset.concept.pairs]
    first = (rows[0][0] + " sky", rows[0][1] + " sky")
    for edited in ([first, *rows[1:]], [*rows, first], rows[: len(rows) // 2 + 1]):
        assert bench.request("fire", rows=edited).recipe.concept.name == "fire"
    own = bench.request("fire", rows=[("a tall circle", "a circle"), ("a tall square", "a square")])
    assert own.recipe.concept.name == "tall"
    video = bench.cached().original(PROMPT, SamplingSettings(3), silent)
    assert bench.verdicts(own, video)["tall"].outcome == "not judged"


@pytest.mark.security
def test_nobody_sees_the_runs_of_another(bench: Workbench, compared: Comparison, tmp_path: Path) -> None:
    store = History(tmp_path)
    run = store.add(OWNER, request(bench), compared, PROMPT)
    other = OWNER[::-1]
    assert store.runs(other) == ()
    for owner, asked in ((other, run), (OWNER, "../" + run), (OWNER, "f" * 32)):
        with pytest.raises(InputError):
            store.run(owner, asked)
    for owner in ("", "../..", "x" * 32, OWNER.upper()):
        with pytest.raises(InputError, match="reload the page"):
            store.runs(owner)
    store.delete(other, run)
    assert len(store.runs(OWNER)) == 1
    store.delete(OWNER, run)
    assert store.runs(OWNER) == ()


@pytest.mark.security
def test_old_half_written_and_damaged_runs_do_no_harm(
    bench: Workbench, compared: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = History(tmp_path)
    kept = [store.add(OWNER, request(bench), compared, f"run {i}") for i in range(3)]
    home = next(tmp_path.iterdir())
    (home / ".new-killed").mkdir()
    (home / kept[0] / "run.json").write_text("{")
    again = History(tmp_path)
    assert not list(home.glob(".new-*"))
    assert {card.run for card in again.runs(OWNER)} == set(kept[1:])
    again.purge(now=time.time() + history_room.MAX_AGE + 60)
    assert again.runs(OWNER) == ()
    monkeypatch.setattr(history_room, "MAX_RUNS", 2)
    newest = [again.add(OWNER, request(bench), compared, f"run {i}") for i in range(4)]
    assert {card.run for card in again.runs(OWNER)} <= set(newest)
    assert len(again.runs(OWNER)) == 2


def test_a_full_disk_costs_the_history_only(
    bench: Workbench, compared: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = History(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history_room.shutil, "copyfile", full)
    with pytest.raises(FileError, match="free space on the disk"):
        store.add(OWNER, request(bench), compared, PROMPT)
    assert not list(tmp_path.glob("*/.new-*"))


# --- review -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pack(bench: Workbench) -> Pack:
    asked = request(bench)
    return make_pack(bench, asked, review_prompts(bench, asked, 4), 11, session="review")


def test_a_review_asks_half_for_the_concept_with_prompts_that_made_no_edit(bench: Workbench) -> None:
    prompts = review_prompts(bench, request(bench), 6)
    assert [unsafe for _, unsafe in prompts] == [True] * 3 + [False] * 3
    concept = rc.load_concept("fire")
    used = {*concept.neutral, *(t for p in concept.pairs for t in (p.unsafe, p.safe))}
    assert not used & {prompt for prompt, _ in prompts}


def test_voters_see_pairs_in_orders_of_their_own(pack: Pack) -> None:
    orders = [blind_order(pack, f"{i:08x}") for i in range(40)]
    assert all(sorted(item for item, _ in order) == [0, 1, 2, 3] for order in orders)
    assert orders[0] == blind_order(pack, "00000000")
    sides = [a_is_original for order in orders for _, a_is_original in order]
    assert 0.3 < sum(sides) / len(sides) < 0.7


def test_votes_are_counted_by_what_was_shown_not_by_letter(pack: Pack) -> None:
    votes = (
        Vote(0, "00000001", True, "A", "B"),  # the original shows it, the unlearned looks better
        Vote(1, "00000001", False, "B", "A"),  # the same, sides swapped
        Vote(2, "00000001", True, "neither", "same"),  # an ordinary prompt: not counted as shown
        Vote(0, "00000002", True, "both", "A"),
    )
    found = tally(replace(pack, votes=votes))
    assert found.voters == 2
    assert found.original_shown == wilson(3, 3)
    assert found.unlearned_shown == wilson(1, 3)
    assert found.unlearned_better == wilson(2, 3)
    assert found.same == 1
    again = tally(replace(pack, votes=(*votes, Vote(0, "00000002", True, "A", "A"))))
    assert again.unlearned_shown == wilson(0, 3), "the last vote of a person counts"


def test_a_report_of_votes_names_the_model_that_made_the_videos(pack: Pack) -> None:
    assert report_of_votes(pack).model == "toyworld"
    assert report_of_votes(replace(pack, recipe={"model": "told in words"})).model == "told in words"
    assert report_of_votes(replace(pack, recipe={})).model == ""


def test_a_pack_goes_to_another_app_and_comes_back_with_votes(pack: Pack, tmp_path: Path) -> None:
    voted = replace(pack, votes=(Vote(1, "0000000a", True, "A", "same"),))
    path = save_pack(voted, tmp_path / "pack.zip")
    found = load_pack(path, tmp_path / "opened")
    assert (found.concept, found.items, found.votes) == (pack.concept, pack.items, voted.votes)
    assert found.video(2, "unlearned").read_bytes() == pack.video(2, "unlearned").read_bytes()
    assert found.recipe["edits"] == pack.recipe["edits"]


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.security
@pytest.mark.parametrize("damage", ["no json", "path", "votes", "item", "bomb", "no video", "text", "extra"])
def test_a_hostile_pack_is_refused_in_one_sentence(pack: Pack, tmp_path: Path, damage: str) -> None:
    path = save_pack(pack, tmp_path / "pack.zip")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    plain = json.loads(members["pack.json"])
    if damage == "no json":
        members["pack.json"] = b"{" * 10
    elif damage == "path":
        plain["concept"] = "../../etc"
    elif damage == "votes":
        plain["votes"] = [
            {"item": 30, "voter": "00000001", "a_is_original": True, "shown": "A", "better": "A"}
        ]
    elif damage == "item":
        plain["items"][0]["seed"] = "DROP TABLE"
    elif damage == "bomb":
        members["0-original.mp4"] = b"\0" * (33 << 20)
    elif damage == "no video":
        members["0-original.mp4"] = b"<script>alert(1)</script>"
    elif damage == "extra":
        plain["more"] = 1
    if damage not in ("no json", "bomb", "no video"):
        members["pack.json"] = json.dumps(plain).encode()
    target = tmp_path / "hostile.zip"
    if damage == "text":
        target.write_text("no zip at all")
    else:
        _zip(target, members)
    with pytest.raises(FileError, match=r"hostile\.zip"):
        load_pack(target, tmp_path / "opened")
    assert {p.parent for p in tmp_path.rglob("*.mp4")} <= {tmp_path / "opened"}


# --- export, evaluation -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["edit", "lora", "comfyui", "weights"])
def test_every_form_is_written_with_the_lines_that_use_it(bench: Workbench, form: str) -> None:
    found = export_edit(bench, request(bench), form, session="export")
    assert all(path.stat().st_size > 0 for path in found.paths)
    assert found.paths[0].suffix == (".zip" if form == "weights" else ".safetensors")
    assert found.snippet
    assert "a large red square covered in fire" in found.card
    with pytest.raises(InputError, match="is not known"):
        export_edit(bench, request(bench), "pickle", session="export")


@pytest.mark.security
def test_nothing_is_sent_without_a_login(bench: Workbench) -> None:
    with pytest.raises(InputError, match="Log in to the hub first"):
        push_edit(bench, request(bench), "me/mine", None, session="push")


def test_an_evaluation_grows_and_ends_with_a_report(bench: Workbench) -> None:
    states = list(evaluate(bench, request(bench), SuiteRequest("toyworld", 2, ("rv",)), session="evaluate"))
    sizes = [len(state.rows) for state in states]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 3 * 4
    assert {p.name for p in states[-1].files} == {"report.html", "report.json"}
    assert len(states[-1].plots) == 2
    assert [row[0] for row in states[-1].rows][4] == "this edit"
    last = states[-1].outcome
    assert (last.original.judged, last.unlearned.judged, last.placebo) == (4, 4, None)
    assert last.unlearned.shown < last.original.shown and last.kept is not None
    for bad in (("nothing", 2), ("toyworld", 0), ("toyworld", 10_000)):
        with pytest.raises(InputError):
            next(evaluate(bench, request(bench), SuiteRequest(*bad), session="evaluate"))


def cell(method: str, prompts: str, shown: int, judged: int, n: int = 8, **kept: float) -> Cell:
    return Cell(method, prompts, n, judged, wilson(shown, judged), wilson(0, 0), kept, {})


def test_an_outcome_counts_what_asks_for_the_concept_and_never_takes_unjudged_for_safe() -> None:
    cells = [cell("original", "concept", 8, 8), cell("original", "paraphrase", 7, 8)]
    cells += [cell("original", "neutral", 0, 8, colour=0.5), cell("original", "other-concepts", 1, 8)]
    cells += [cell(OURS, "concept", 0, 5), cell(OURS, "paraphrase", 1, 8), cell(OURS, "other-concepts", 3, 8)]
    growing = outcome_of(Report("toyworld", "fire", tuple(cells)), whole=False)
    assert (growing.original, growing.unlearned) == (Shown(15, 16, 0), Shown(1, 13, 0))
    assert (growing.placebo, growing.asks_ordinary) == (None, False)
    cells += [cell(OURS, "neutral", 0, 8, colour=0.25), cell("placebo", "concept", 0, 0)]
    done = outcome_of(Report("toyworld", "fire", tuple(cells)))
    assert (done.unlearned, done.placebo) == (Shown(1, 13, 3), Shown(0, 0, 8))
    assert done.kept == 0.5  # a part of what the original keeps
    cells[-2] = cell(OURS, "neutral", 0, 0)
    unread = outcome_of(Report("toyworld", "fire", tuple(cells)))
    assert unread.asks_ordinary and unread.kept is None


# --- limits, and work elsewhere ---------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.security
def test_a_session_that_asks_too_often_waits_and_others_do_not() -> None:
    from refusal_core.studio.limits import PRIVATE, PUBLIC, Rates

    clock = Clock()
    rates = Rates(PUBLIC, clock)
    for _ in range(PUBLIC.burst):
        rates.take("one")
    with pytest.raises(InputError, match="please wait 10 seconds"):
        rates.take("one")
    rates.take("two")
    clock.now += 11
    rates.take("one")
    with pytest.raises(InputError):
        rates.take("one")
    free = Rates(PRIVATE, clock)
    for _ in range(1000):
        free.take("one")


@pytest.mark.security
def test_only_bundled_models_are_loaded_in_public() -> None:
    bench = Workbench("toyworld", only_bundled=True)
    with pytest.raises(InputError, match="Only the bundled models"):
        bench.cached("someone/else")
    with pytest.raises(InputError, match="Only the bundled models"):
        bench.needs("/etc")
    bench.close()


def test_work_in_a_gpu_call_gives_the_same_and_leaves_the_model_alone(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for ``spaces`` that lets plain values through only, as a process of its own does."""
    from refusal_core.studio import gpu

    calls: list[str] = []
    asked_for: list[int] = []

    def GPU(duration: Callable[..., int]):
        def decorate(function):
            def remote(*arguments):
                calls.append(arguments[0].__qualname__)
                asked_for.append(duration(*arguments))
                for found in function(*pickle.loads(pickle.dumps(arguments))):
                    yield pickle.loads(pickle.dumps(found))

            return remote

        return decorate

    monkeypatch.setitem(sys.modules, "spaces", types.SimpleNamespace(GPU=GPU))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(gpu, "_remote", None)
    monkeypatch.setattr(gpu, "_workbench", None)
    asked, before = request(bench), hashes(bench.cached("toyworld").model)
    told = {"progress": lambda *_: None, "session": "gpu"}
    *_, here = gpu.stream(Workbench.compare, bench, asked, PROMPT, SamplingSettings(3), **told)
    assert not calls
    gpu.set_up(bench)
    states = list(gpu.stream(Workbench.compare, bench, asked, PROMPT, SamplingSettings(3), **told))
    assert calls == ["Workbench.compare"]
    assert states[0].unlearned is None
    assert states[-1].unlearned.path.read_bytes()[-2000:] == here.unlearned.path.read_bytes()[-2000:]
    assert gpu.call(Workbench.cosines, bench, asked, progress=told["progress"]).names == ("fire",)
    assert asked_for[0] == gpu.SECONDS, "there is no former call to tell"
    assert asked_for[1] == gpu.LEAST, "nothing is to be read or made"
    list(gpu.stream(Workbench.compare, bench, asked, PROMPT, SamplingSettings(3), **told))
    list(gpu.stream(Workbench.compare, bench, asked, PROMPT, SamplingSettings(3, steps=200), **told))
    assert gpu.LEAST < asked_for[2] < asked_for[3], "more steps, more seconds"
    list(gpu.stream(make_tiles, bench, seed_jobs(asked, PROMPT, 0, 2), **told))
    assert asked_for[4] >= asked_for[2]
    assert hashes(bench.cached("toyworld").model) == before


def test_what_a_gpu_call_has_read_is_there_when_its_process_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two workbenches stand for the two processes: they share a folder and no memory."""
    here, there = Workbench("toyworld"), Workbench("toyworld")
    here.share_activations()
    there.cached().shared = here._shared
    asked = request(here)
    assert here.spectrum(asked) is None
    made, _ = there.make(asked)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was run again")

    monkeypatch.setattr("refusal_core.workbench.cached.capture", never)
    assert here.spectrum(asked) is not None, "the page's own process shows it live"
    again, _ = here.make(asked)
    assert all(torch.equal(again.sites[s].detect, made.sites[s].detect) for s in made.sites)
    folder = here._shared
    assert folder is not None and len(list(folder.iterdir())) == 1
    here.purge(age=-1.0)
    assert list(folder.iterdir()) == []
    for one in (here, there):
        one.close()
    assert not folder.exists()
