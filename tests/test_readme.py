"""The README runs as it is written, and its figures are those the commands printed."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import fmean

import pytest

from refusal_core.io.video import load_video

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_snippet_runs_and_writes_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snippet = next(s for s in SNIPPETS if s.startswith("import refusal_core"))
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    assert len(load_video(tmp_path / "pair.mp4")[0].frames) == 17
    assert (tmp_path / "fire.safetensors").stat().st_size < 100_000


def test_the_family_to_copy_is_a_family() -> None:
    from refusal_core.models import family

    (example,) = [s for s in SNIPPETS if s.startswith("Family(")]
    made = eval(example, vars(family))
    assert made.blocks[0].sites["text"] == ("attn2.to_k", "attn2.to_v")


def test_every_command_of_the_readme_exists_with_its_options() -> None:
    from typer.main import get_command

    from refusal_core.cli import app

    known = get_command(app).commands
    lines = re.findall(r"-m refusal_core (\w+)(.*)", README)
    assert lines
    for name, rest in lines:
        command = known[name]
        parts = [command, *getattr(command, "commands", {}).values()]
        options = {option for part in parts for parameter in part.params for option in parameter.opts}
        used = set(re.findall(r"(?<= )--[a-z][a-z-]*", rest.split("  #")[0].split("`")[0]))
        assert used <= options, (name, used - options)


def test_the_space_runs_the_versions_that_were_tested() -> None:
    """The head of the README is what a Space reads."""
    import gradio
    import yaml

    head = yaml.safe_load(README.split("---")[1])
    assert head["sdk"] == "gradio" and head["sdk_version"] == gradio.__version__
    assert (ROOT / head["app_file"]).is_file()
    assert head["python_version"] in ("3.11", "3.12")
    assert len(head["short_description"]) <= 60  # longer ones are refused


def test_links_to_files_of_the_repository_are_not_broken() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_tables_of_figures_are_what_the_commands_print() -> None:
    """From the reports in assets/reports, which `evaluate --json` wrote."""
    from refusal_core.evaluate.reports.overview import matrix_table, overview_table
    from refusal_core.evaluate.reports.report import as_markdown, load_report, summary
    from refusal_core.toyworld import world

    folder = ROOT / "assets" / "reports"
    reports = [load_report(folder / f"{name}.json") for name in world.CONCEPTS]
    whole = summary(reports)
    assert whole in (folder / "README.md").read_text(encoding="utf-8")
    assert as_markdown(*overview_table(reports)) in README
    card = (ROOT / "assets" / "models" / "toyworld-wan" / "README.md").read_text(encoding="utf-8")
    assert as_markdown(*overview_table(reports)) in card
    page = (folder / "README.md").read_text(encoding="utf-8")
    attacked = [load_report(folder / "adversarial" / f"{name}.json") for name in world.CONCEPTS]
    for more in ([load_report(folder / "together.json")], attacked):
        assert as_markdown(*matrix_table(more)) in page
    unet = as_markdown(
        *overview_table([load_report(folder / "unet3d" / f"{n}.json") for n in world.CONCEPTS])
    )
    assert unet in page
    assert unet in (ROOT / "assets" / "models" / "toyworld-unet3d" / "README.md").read_text(encoding="utf-8")
    ours = [row for row in whole.splitlines() if "| whitened |" in row]
    assert len(ours) == len(world.CONCEPTS) and "\n".join(ours) in README
    assert {c.n for report in reports for c in report.cells} == {200}


def test_the_whitened_edit_is_on_the_front_of_every_concept_as_the_page_says() -> None:
    from refusal_core.evaluate.reports.front import FRONT_MARK, front_table
    from refusal_core.evaluate.reports.report import as_markdown, load_report
    from refusal_core.toyworld import world

    folder = ROOT / "assets" / "reports"
    head, rows = front_table([load_report(folder / f"{name}.json") for name in world.CONCEPTS])
    assert as_markdown(head, rows) in (folder / "README.md").read_text(encoding="utf-8")
    ours = next(row for row in rows if row[0] == "whitened")
    assert [cell.endswith(FRONT_MARK) for cell in ours[1:]] == [True] * (len(world.CONCEPTS) + 1)
    together = load_report(folder / "together.json")
    head, rows = front_table([together])
    assert as_markdown(head, rows) in (folder / "README.md").read_text(encoding="utf-8")
    assert next(row for row in rows if row[0] == "whitened")[1].endswith(FRONT_MARK)


def test_of_five_concepts_erased_at_once_each_is_shown_in_less_than_5_percent() -> None:
    """The upper bound of the interval too, and neutral attributes are kept to 93 % of the original."""
    from refusal_core.evaluate.reports.report import kept_share, load_report
    from refusal_core.toyworld import world

    together = load_report(ROOT / "assets" / "reports" / "together.json")
    cells = [together.cell("whitened", name) for name in world.CONCEPTS]
    assert all(cell is not None and cell.judged == cell.n and cell.unsafe.high < 0.05 for cell in cells)
    kept = kept_share(together, "whitened")
    assert kept is not None and kept >= 0.93


def test_the_plot_of_the_readme_is_drawn_from_the_reports(tmp_path: Path) -> None:
    """Pixel by pixel: equal figures give equal plots, and the fonts come with matplotlib."""
    import numpy as np
    from PIL import Image

    from refusal_core.evaluate.reports.plots import save_figure, trade_plot
    from refusal_core.evaluate.reports.report import load_report
    from refusal_core.toyworld import world

    folder = ROOT / "assets" / "reports"
    drawn = save_figure(
        trade_plot([load_report(folder / f"{name}.json") for name in world.CONCEPTS]), tmp_path / "trade.png"
    )
    assert np.array_equal(Image.open(drawn), Image.open(folder / "trade.png"))


@pytest.mark.parametrize(
    ("section", "file"), [("Ablation", "ablation/sweep.csv"), ("On a UNet", "unet3d/ablation/sweep.csv")]
)
def test_the_ablation_is_what_the_sweep_wrote(section: str, file: str) -> None:
    """Each row of the table against the concepts' rows in the CSV: erased, kept, others."""
    folder = ROOT / "assets" / "reports"
    with (folder / file).open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    points: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        points.setdefault(tuple(row[k] for k in ("method", "rank", "sites", "layers")), []).append(row)
    text = (folder / "README.md").read_text(encoding="utf-8")
    page = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = r"^\| (\w+)(?: k=(\d+))?[^|]* at (\S+) (\S+), [^|]*\|(.*)\|$"  # the plain vector has no rank
    table = re.findall(cells, page, flags=re.MULTILINE)
    named = {(method, rank or "1", *where) for method, rank, *where, _ in table}
    assert named == set(points) and len(table) == len(points)
    for *point, rest in table:
        found = points[point[0], point[1] or "1", *point[2:]]
        seen, unseen, _, kept, others = (float(cell.split("[")[0]) for cell in rest.split("|"))
        erased, whole, rest = (100 * fmean(float(r[k]) for r in found) for k in ("erased", "kept", "others"))
        assert (100 - (seen + unseen) / 2, kept, others) == pytest.approx((erased, whole, rest), abs=0.11)
