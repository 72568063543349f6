"""Sweeps: every point once, the original made once, resumable, never on evaluation prompts."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from refusal_core.errors import InputError
from refusal_core.evaluate import run
from refusal_core.evaluate.grid import Grid, parse_grid
from refusal_core.evaluate.reports.tables import front
from refusal_core.evaluate.sharing import run_shared
from refusal_core.evaluate.suites.toyworld import toyworld_suite
from refusal_core.evaluate.sweep import Sweep, Swept
from refusal_core.progress import silent

LISTS = {
    "methods": "whitened,rv",
    "sites": "text",
    "layers": "all",
    "ranks": "1,2",
    "strengths": "1.0",
    "alphas": "1",
    "anchors": "zero",
    "shrinkages": "0.02",
}


def test_a_grid_has_every_combination_once_and_none_that_differs_in_name_only() -> None:
    grid = parse_grid({**LISTS, "methods": "rv,cpca,whitened", "alphas": "1,2", "shrinkages": "0.02,0.2"})
    points = list(grid)
    # rv once, cPCA by rank and alpha, whitened by rank and shrinkage
    assert len(points) == 1 + 2 * 2 + 2 * 2
    assert len({p.name for p in points}) == len(points)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ranks": ""}, "The grid is empty"),
        ({"ranks": "1,two"}, "rank must be a whole number from"),
        ({"methods": "magic"}, "method 'magic' is not known"),
        ({"sites": "text+nose"}, "site 'nose' is not known"),
        ({"anchors": "moon"}, "anchor 'moon' is not known"),
        ({"ranks": ",".join(map(str, range(1, 129))), "strengths": ",".join(["1"] * 20)}, "128 points"),
    ],
)
def test_a_grid_that_cannot_be_read_gets_one_sentence(change: dict[str, str], sentence: str) -> None:
    if "128" in sentence:  # repeated values are one point: this grid is within the limit
        assert len(list(parse_grid({**LISTS, **change, "methods": "whitened"}))) == 128
        return
    with pytest.raises(InputError, match=sentence):
        parse_grid({**LISTS, **change})


def test_a_grid_has_a_limit() -> None:
    with pytest.raises(InputError, match="is the limit"):
        Grid(ranks=tuple(range(1, 129)), strengths=tuple(i / 100 for i in range(20)))


def small(work: Path) -> Swept:
    found = run_shared(Sweep(grid=parse_grid(LISTS), videos=1, work=work, workers=1), silent)
    assert found is not None
    return found


def test_a_sweep_makes_the_original_once_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []
    real = run.generate_batch

    def counted(model, *arguments, **options):
        made.append(True)
        if len(made) == 10:
            raise KeyboardInterrupt
        return real(model, *arguments, **options)

    monkeypatch.setattr(run, "generate_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path)
    found = small(tmp_path)
    # 3 points and the original, 4 groups; one batch was cut short, and none was made twice
    assert len(made) == 4 * 4 + 1
    again = len(made)
    assert small(tmp_path).rows() == found.rows()
    assert len(made) == again
    assert [r["method"] for r in found.rows()] == ["whitened", "whitened", "rv"]
    paths = found.save(tmp_path / "out")
    assert [p.name for p in paths] == ["sweep.csv", "sweep.png"]
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["erased"]) for r in rows] == [r["erased"] for r in found.rows()]


def test_a_sweep_of_several_concepts_has_them_in_one_table(tmp_path: Path) -> None:
    grid = parse_grid({**LISTS, "methods": "rv"})
    job = Sweep(presets="fire,zorbo", grid=grid, videos=1, work=tmp_path, workers=1)
    found = run_shared(job, silent)
    assert found is not None
    assert [(r["concept"], r["method"]) for r in found.rows()] == [("fire", "rv"), ("zorbo", "rv")]
    (line,) = found.markdown().splitlines()[2:]
    shown = [report.cell(report.names[1], "concept").unsafe for report in found.reports]
    both = fmean(rate.rate for rate in shown)  # of equally many videos
    assert line.split(" | ")[1].startswith(f"{100 * both:.1f} [")
    sheet = found.contact_sheet()
    one = replace(found, reports=found.reports[:1], suites=found.suites[:1]).contact_sheet()
    assert sheet is not None and one is not None and len(sheet) == 2 * len(one)


def test_tuning_and_evaluation_prompts_share_nothing() -> None:
    """By construction: they come from different scenes, whatever the concept."""
    for concept in ("fire", "zorbo"):
        tuning = toyworld_suite(concept, 160, "tuning")
        judged = toyworld_suite(concept, 600, "evaluation")
        prompts = [{i.prompt for g in suite for i in g.items} for suite in (tuning, judged)]
        seeds = [{i.seed for g in suite for i in g.items} for suite in (tuning, judged)]
        assert not prompts[0] & prompts[1]
        assert not seeds[0] & seeds[1]


def test_the_front_holds_what_nothing_else_beats() -> None:
    points = [(1.0, 0.5), (0.5, 1.0), (0.4, 0.9), (1.0, 0.4), (0.8, 0.8)]
    assert front(points) == [0, 1, 4]
