"""Reports: figures with intervals and tests, tables, plots and a page that needs no other file."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pandas import DataFrame

from refusal_core.errors import FileError
from refusal_core.evaluate.judges.verdict import Verdict
from refusal_core.evaluate.measures.costs import Cost
from refusal_core.evaluate.measures.journal import Measured
from refusal_core.evaluate.measures.samples import Sample, sample_of
from refusal_core.evaluate.measures.statistics import wilson
from refusal_core.evaluate.reports.cells import Cell, summarise
from refusal_core.evaluate.reports.page import save_page
from refusal_core.evaluate.reports.plots import as_svg, save_plots, shown_plot
from refusal_core.evaluate.reports.report import Report, load_report
from refusal_core.evaluate.reports.tables import (
    as_latex,
    as_markdown,
    cells_table,
    front_table,
    matrix_table,
    method_figures,
    overview_table,
    summary,
    summary_table,
    trade,
)
from refusal_core.evaluate.suites.items import Group, Item, Suite
from refusal_core.io.files import write_json
from refusal_core.toyworld.world import Scene

SCENE = Scene("red", "circle", "large", "moving left", "sand", "fire")
NASTY = "<script>alert(1)</script>"


def verdict(outcome: str, **values: str) -> Verdict:
    seen = {"concept": "fire" if outcome == "unsafe" else "none", "colour": "red", "shape": "circle"}
    seen |= {"motion": "moving left", "background": "sand"} | values
    return Verdict(outcome, values=seen)  # type: ignore[arg-type]


def cell(method: str, prompts: str, hits: int, kept: float = 1.0, shown: int = 10) -> Cell:
    names = ("colour", "shape", "motion", "background")
    return Cell(method, prompts, 10, 10, wilson(hits, 10), wilson(shown, 10), dict.fromkeys(names, kept), {})


def test_a_report_on_prompts_of_any_text_can_be_read_again(tmp_path: Path) -> None:
    strange = "a\u202eb\x00" + "\u0647\u200c" * 600
    group = Group("gore", (Item(strange, 7),), "gore")
    recipe = {"edits": [{"pairs": [{"unsafe": strange, "safe": "b"}]}]}
    written = replace(
        report(), samples=(sample_of("rv", "k", group),), methods={"rv": {"key": "k", "recipe": recipe}}
    )
    read = load_report(write_json(tmp_path / "r.json", written.to_json()))
    assert read == written and read.samples[0].videos[0].isprintable()
    assert len(read.samples[0].videos[0]) < 4000
    hidden = replace(written, notes=("a\u202eb",))
    with pytest.raises(FileError, match="is no report"):
        load_report(write_json(tmp_path / "r.json", hidden.to_json()))


def report() -> Report:
    cells = []
    for method, hits, kept, others in (("original", 10, 1.0, 10), ("ours", 0, 0.9, 10), (NASTY, 5, 1.0, 5)):
        cells += [cell(method, "concept", hits), cell(method, "paraphrase", hits)]
        cells += [cell(method, "neutral", 0, kept), cell(method, "other-concepts", 0, shown=others)]
    return Report(
        "toyworld",
        "fire",
        tuple(cells),
        suite="toyworld",
        judge="toyworld",
        seeds=(1, 40),
        costs={"ours": Cost(1.0, 2.0, 3.0, 1.01)},
        methods={"ours": {"key": "k", "recipe": {"prompt": NASTY}}},
        samples=(Sample("ours", "concept", "concept--fire--k.png", (NASTY,)),),
        notes=(f"a {NASTY}",),
    )


def test_only_judged_videos_count_and_the_others_are_said() -> None:
    items = tuple(Item("p", i, SCENE) for i in range(4))
    verdicts = (verdict("unsafe"), verdict("safe"), Verdict("not judged"), verdict("unsafe", colour="blue"))
    found = summarise("m", Group("concept", items, "fire"), [Measured(verdicts)])
    assert (found.n, found.judged) == (4, 3)
    assert found.unsafe.rate == pytest.approx(2 / 3)
    assert found.kept["colour"] == pytest.approx(2 / 3)
    assert found.kept["shape"] == 1.0
    assert "3 of 4" in as_markdown(cells_table(Report("m", "c", (found,))))


def test_the_paired_test_sees_what_changed_on_the_same_seed() -> None:
    items = tuple(Item("p", i, SCENE) for i in range(6))
    group = Group("concept", items, "fire")
    shown, gone = [Measured((verdict("unsafe"),) * 6)], [Measured((verdict("safe"),) * 6)]
    assert summarise("m", group, gone, shown).p == pytest.approx(2 / 2**6)
    assert summarise("m", group, shown, [Measured((verdict("unsafe"),) * 6)]).p == 1.0


def test_a_measure_that_some_videos_lack_is_no_figure() -> None:
    """As where a run went on with a package less: its mean would be over other videos than the rest."""
    items = tuple(Item("p", i, SCENE) for i in range(2))
    whole = Measured((verdict("safe"),), {"ssim": (0.9,), "warp": (1.0,)})
    part = Measured((verdict("safe"),), {"ssim": (0.7,)})
    found = summarise("m", Group("neutral", items, "fire"), [whole, part])
    assert found.quality == pytest.approx({"ssim": 0.8})


def test_shares_are_parts_of_what_the_original_gets() -> None:
    found = report()
    assert method_figures(found, "ours")["kept"] == pytest.approx(0.9)
    assert method_figures(found, NASTY)["others"] == pytest.approx(0.5)
    assert method_figures(found, "ours")["erased"] == 1.0
    assert method_figures(found, "original")["erased"] == 0.0
    assert trade([found])["ours"] == (pytest.approx(0.9), 1.0)


def test_the_interval_of_a_part_is_in_its_measure() -> None:
    cells = tuple(cell(m, "other-concepts", 0, shown=n) for m, n in (("original", 5), ("rv", 4), ("none", 0)))
    found = method_figures(Report("model", "fire", cells), "rv")
    share = wilson(4, 10)
    assert found["others"] == pytest.approx(0.8)
    assert (found["others_low"], found["others_high"]) == (
        pytest.approx(2 * share.low),
        pytest.approx(2 * share.high),
    )
    gone = method_figures(Report("model", "fire", cells), "none")
    assert gone["others"] == 0 and gone["others_high"] == pytest.approx(wilson(0, 10).high)


def test_a_share_of_what_was_not_judged_is_no_figure() -> None:
    unread = replace(cell("original", "other-concepts", 0), shown=wilson(0, 0))
    mine = replace(unread, method="rv")
    found = Report("model", "fire", (cell("original", "neutral", 0), unread, mine))
    assert method_figures(found, "rv")["others"] is None


def test_a_report_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    path = write_json(tmp_path / "report.json", report().to_json())
    assert load_report(path) == report()
    content = json.loads(path.read_text())
    assert {"model", "concept", "cells"} <= set(content)
    assert {"method", "prompts", "n", "judged", "unsafe", "kept"} <= set(content["cells"][0])


@pytest.mark.parametrize(
    "changes", [{"n": -1, "judged": -1}, {"judged": 11}, {"n": 10**400}, {"unsafe": {"rate": 7.0}}]
)
def test_a_report_whose_shares_cannot_be_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    content = report().to_json()
    for name, value in changes.items():
        content["cells"][0][name] = content["cells"][0][name] | value if isinstance(value, dict) else value
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(FileError, match=r"r\.json is no report"):
        load_report(tmp_path / "r.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": 3}', "[" * 100_000, '{"cells": [{}]}'])
def test_what_is_no_report_gets_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(FileError, match=r"r\.json is no report; write one with evaluate --json"):
        load_report(tmp_path / "r.json")


def test_the_page_needs_no_other_file_blurs_frames_and_runs_no_text(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (10, 10)).save(tmp_path / "concept--fire--k.png")
    path = save_page([report()], tmp_path / "report.html", tmp_path)
    text = path.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "blur(" in text
    assert text.count("data:image/png;base64,") == 1
    assert text.count("<svg") == 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text.replace("xlink:href", "href"))
    assert "1 to 40" in text and "McNemar" in text


def test_equal_reports_give_equal_plots(tmp_path: Path) -> None:
    assert as_svg(shown_plot(report())) == as_svg(shown_plot(report()))
    assert [p.name for p in save_plots([report()], tmp_path)] == ["trade.png", "shown-fire.png"]


def test_latex_escapes_what_latex_reads() -> None:
    text = as_latex(DataFrame([["a_b", "100 %", "x", "y", "z", "$1 & 2"]]))
    assert r"a\_b & 100 \% & x & y & z & \$1 \& 2 \\" in text
    assert text.startswith(r"\begin{tabular}{llrrrr}")


def test_the_summary_has_a_row_a_method_and_of_a_benchmark_a_row_a_category() -> None:
    assert len(summary_table([report()])) == 3
    benchmark = Report("m", "gore", (cell("original", "gore", 7), cell("original", "fraud", 3)))
    assert list(summary_table([benchmark]).concept) == ["gore", "fraud"]
    assert "| fire | ours | 0.0 [0.0, 27.8] |" in summary([report()])


def test_the_overview_pools_the_videos_of_all_concepts_and_names_the_worst() -> None:
    other = Report("toyworld", "zorbo", (cell("original", "concept", 10), cell("ours", "concept", 3)))
    rows = {row[0]: list(row) for row in overview_table([report(), other]).itertuples(index=False)}
    assert list(rows) == ["original", "ours"]  # the third is in one report only
    pooled = wilson(3, 20)
    assert rows["ours"][1] == f"15.0 [{100 * pooled.low:.1f}, {100 * pooled.high:.1f}]"
    assert rows["ours"][2].startswith("0.0 [")  # of the one report with paraphrases
    assert rows["ours"][3:6] == ["30.0", "90.0 [59.6, 98.2]", "100.0 [72.2, 100.0]"]
    assert rows["ours"][7:] == ["1.0", "3"]


def test_the_matrix_has_a_column_a_group_and_pools_all_reports() -> None:
    other = Report("toyworld", "zorbo", (cell("ours", "concept", 3), cell("ours", "repeated", 10)))
    table = matrix_table([report(), other])
    head, rows = list(table.columns), list(table.itertuples(index=False))
    assert head == ["method", "concept", "paraphrase", "neutral", "other-concepts", "repeated"]
    ours = dict(zip(head, next(row for row in rows if row[0] == "ours"), strict=True))
    assert ours["concept"].startswith("15.0 [") and ours["repeated"].startswith("100.0 [")
    assert rows[0][-1] == "-", "the original has no such videos"


def test_the_front_stars_what_no_method_beats_concept_by_concept_and_in_the_mean() -> None:
    other = Report("toyworld", "zorbo", (*report().cells, cell("original", "concept", 10)))
    table = front_table([report(), other])
    head, rows = list(table.columns), [list(row) for row in table.itertuples(index=False)]
    assert head == ["method", "fire", "zorbo", "mean"]
    assert list(front_table([report()]).columns) == ["method", "fire"], "of one report there is no mean"
    assert rows[0] == ["original", *["0.0 / 100.0 *"] * 3], "nothing erased, and nothing lost: on the front"
    ours = next(row for row in rows if row[0] == "ours")
    assert ours[1:] == ["100.0 / 90.0 *"] * 3
    assert not any(c.endswith("*") for row in rows if row[0] not in ("original", "ours") for c in row)


def test_a_suite_without_prompts_is_refused() -> None:
    from refusal_core.errors import InputError

    with pytest.raises(InputError, match="holds no prompt"):
        Suite("empty", (Group("a", (), "a"),))
