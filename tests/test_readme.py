"""The READMEs: what they show runs, what they quote exists, their figures were printed or counted."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from refusal_core.io.video import load_video

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CORE = ROOT / "refusal_core"
WAN = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


def pages() -> dict[str, str]:
    """Return every page in Markdown of the repository, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split()
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in listed}


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def outside_blocks(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def page(folder: str) -> str:
    """Return the README of a folder."""
    return (ROOT / folder / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_the_python_snippet_runs_and_writes_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (snippet,) = blocks(README, "python")
    assert len(snippet.strip().splitlines()) <= 8  # the import, a line without anything, six lines
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    assert len(load_video(tmp_path / "pair.mp4")[0].frames) == 17
    assert (tmp_path / "fire.safetensors").stat().st_size < 100_000


def test_the_family_to_copy_is_a_family() -> None:
    from refusal_core.models.families import family

    (example,) = (s for s in blocks(page("refusal_core/models"), "python") if s.startswith("Family("))
    made = eval(example, vars(family))
    assert made.blocks[0].sites["text"] == ("attn2.to_k", "attn2.to_v")


def test_the_files_to_copy_load(tmp_path: Path) -> None:
    """A preset, pairs and neutral prompts as presets/README.md shows them; questions as evaluate's does."""
    from refusal_core.concepts import _NeutralFile, load_pairs, load_preset
    from refusal_core.evaluate.measures.questions import load_questions

    preset, pairs, neutral = blocks(page("presets"), "json")
    (tmp_path / "preset.json").write_text(preset, encoding="utf-8")
    made = load_preset(tmp_path / "preset.json")
    assert made.recommended["sites"] == ("text",) and made.recommended_for("toyworld-unet3d") == {"rank": 2}
    (tmp_path / "pairs.json").write_text(pairs, encoding="utf-8")
    assert load_pairs(tmp_path / "pairs.json")[0].unsafe_image == tmp_path / "fire.png"
    assert len(_NeutralFile.model_validate(json.loads(neutral)).prompts) == 2
    (questions,) = blocks(page("refusal_core/evaluate"), "json")
    (tmp_path / "questions.json").write_text(questions, encoding="utf-8")
    assert [q.expected for q in load_questions(tmp_path / "questions.json")["A red boat."]] == ["red", "yes"]


def test_every_setting_of_an_edit_is_described_with_its_range_and_default() -> None:
    from refusal_core.settings import recipe_knobs

    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|", page("presets"), flags=re.MULTILINE)
    described = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    for knob in recipe_knobs():
        _, takes, default = described[knob.name]
        if knob.low is not None:
            assert takes == f"{knob.low:.6f}".rstrip("0").rstrip(".") + f" to {knob.high:.0f}", knob.name
            assert knob.default is None or default == f"{knob.default:g}", knob.name
        elif knob.input in ("choice", "choices") and not knob.optional:
            chosen = knob.default[0] if isinstance(knob.default, tuple) else knob.default
            assert (takes, default) == (", ".join(f"`{c}`" for c in knob.choices), f"`{chosen}`"), knob.name


def quoted_commands(text: str, known: set[str]) -> Iterator[list[str]]:
    """Yield the words behind each ``python -m refusal_core`` and ``refusal-studio`` of a page.

    Inline code may leave the beginning out where the first word is a command and more follows.
    """
    for line in "\n".join(blocks(text, "bash")).splitlines():
        if call := re.search(r"(?:-m refusal_core|refusal-studio) (.*)", line):
            yield shlex.split(call[1], comments=True)
    for code in re.findall(r"`([^`]+)`", outside_blocks(text)):
        call = re.match(r"(?:(?:python -m refusal_core|refusal-studio) )?(.*)", " ".join(code.split()))
        words = shlex.split(call[1]) if call and call[1].count("'") != 1 else []
        if words and (call[1] != " ".join(code.split()) or (words[0] in known and len(words) > 1)):
            yield words


def unknown_in(words: list[str], command: Any) -> list[str]:
    """Return which words of a command line the command does not have: subcommands and options."""
    while words and (inner := getattr(command, "commands", {}).get(words[0])):
        command, words = inner, words[1:]
    if words and getattr(command, "commands", None) and not words[0].startswith("-"):
        return words[:1]
    options = {o for parameter in command.params for o in (*parameter.opts, *parameter.secondary_opts)}
    return [w for w in words if w.startswith("--") and w.split("=")[0] not in options | {"--help"}]


def test_every_command_that_is_quoted_exists_with_its_options() -> None:
    from typer.main import get_command

    from refusal_core.cli import app

    root: Any = get_command(app)
    checked = 0
    for name, text in pages().items():
        for words in quoted_commands(text, set(root.commands)):
            assert not unknown_in(words, root), (name, words)
            checked += 1
    assert checked > 50
    assert unknown_in(["evaluate", "--no-such"], root) == ["--no-such"]
    assert unknown_in(["models", "shew", "x"], root) == ["shew"] and unknown_in(["licences"], root)


def test_every_script_that_is_quoted_exists_with_its_options() -> None:
    for name, text in pages().items():
        for script, rest in re.findall(r"\b(?:python|bash) ((?:tests/)?\w+\.(?:py|sh))\b([^`\n#]*)", text):
            written = (ROOT / script).read_text(encoding="utf-8")
            assert all(option in written for option in re.findall(r"--[a-z]+", rest)), (name, script)


def slug(heading: str) -> str:
    """Return the anchor that a page of Markdown gives a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def test_no_link_between_files_is_broken() -> None:
    texts = pages()
    checked = 0
    for name, text in texts.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", outside_blocks(text)):
            if target.startswith("http"):
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / name).parent / path if path else ROOT / name
            assert file.exists(), (name, target)
            if anchor:
                other = texts[file.resolve().relative_to(ROOT).as_posix()]
                anchors = {slug(h) for h in re.findall(r"^#+ (.*)", other, flags=re.MULTILINE)}
                assert anchor in anchors, (name, target)
            checked += 1
    assert checked > 30


def test_every_room_is_on_the_map() -> None:
    """refusal_core/README.md names each file and each folder at the top of the core, and no other."""
    tables = page("refusal_core").partition("## Where")[0]
    named = {name.rstrip("/") for row in re.findall(r"^\| (`.*?) \|", tables, flags=re.MULTILINE)
             for name in re.findall(r"`([^`]+)`", row)}  # fmt: skip
    here = {p.name for p in CORE.glob("*.py")} | {p.parent.name for p in CORE.glob("*/__init__.py")}
    assert named == here


def test_every_file_that_a_task_leads_to_exists() -> None:
    tasks = page("refusal_core").partition("## Where")[2].partition("\n## ")[0]
    for name in re.findall(r"`((?:\w+/)*\w+\.(?:py|sh|txt|toml)|(?:\w+/)+)`", tasks):
        at = [CORE / name, ROOT / name, ROOT / "tests" / name, *CORE.glob(f"evaluate/*/{name}")]
        assert any(path.exists() for path in at), name


def test_the_price_of_the_recipe_is_counted() -> None:
    """What `models cost` prints at Wan 2.1 1.3B's published sizes; its own test counts again."""
    import torch
    from diffusers import AutoencoderKLWan

    from refusal_core.concepts import load_preset
    from refusal_core.evaluate.pricing import price

    found = price(WAN, load_preset("real-nudity"))
    with torch.device("meta"):
        decoder = AutoencoderKLWan()
    assert (found.pairs, found.neutral) == (5, 226)
    denoiser, encoder = found.memory["denoiser"], found.memory["text encoder"]
    text, video_side = found.edits["text"], found.edits["cross-attention"]
    for line in (
        f"| one video | {found.video:.1f} | 1 |",
        f"| {text:.3f} | {text / found.video:.4f} |",
        f"| {video_side:.1f} | {video_side / found.video:.2f} |",
        f"adds {found.text_encoder:.1f} PFLOP for {2 * found.pairs + found.neutral} prompts",
        f"the denoiser {denoiser:.1f} GB, the text encoder {encoder:.1f} GB",
        f"the decoder {4 * _billions(decoder):.1f} GB",
        f"The edit file takes {_edit_megabytes():.1f} MB",
    ):
        assert line in " ".join(README.split()), line


def _billions(network: Any) -> float:
    return sum(p.numel() for p in network.parameters()) / 1e9


def _edit_megabytes() -> float:
    """Return what U and Q of rank 1 take in float32 at the text sites."""
    from refusal_core.models.inventory import inventory

    return sum(2 * 4 * site.inputs for site in inventory(WAN).sites if site.kind == "text") / 1e6


def test_the_space_runs_the_versions_that_were_tested() -> None:
    """The head of the README is what a Space reads."""
    import gradio
    import yaml

    head = yaml.safe_load(README.split("---")[1])
    assert head["sdk"] == "gradio" and head["sdk_version"] == gradio.__version__
    assert (ROOT / head["app_file"]).is_file()
    assert head["python_version"] in ("3.11", "3.12")
    assert len(head["short_description"]) <= 60  # longer ones are refused


def test_the_tables_of_figures_are_what_the_commands_print() -> None:
    """From the reports in assets/reports, which `evaluate --json` wrote."""
    from refusal_core.evaluate.reports.report import load_report
    from refusal_core.evaluate.reports.tables import (
        as_markdown,
        matrix_table,
        overview_table,
        summary_table,
    )
    from refusal_core.toyworld import world
    from refusal_core.toyworld.language import looks

    folder = ROOT / "assets" / "reports"
    reports = [load_report(folder / f"{name}.json") for name in world.CONCEPTS]
    english = [load_report(folder / "language" / f"{name}.json") for name in looks.CONCEPTS]
    assert as_markdown(overview_table(english)) in README
    assert {c.n for report in english for c in report.cells} == {16}
    page = (folder / "README.md").read_text(encoding="utf-8")
    for table in (overview_table(english), matrix_table(english), summary_table(english)):
        assert as_markdown(table) in page
    card = (ROOT / "assets" / "models" / "toyworld-language" / "README.md").read_text(encoding="utf-8")
    assert as_markdown(overview_table(english)) in card
    assert as_markdown(summary_table(reports)) in page
    assert as_markdown(overview_table(reports)) in page
    card = (ROOT / "assets" / "models" / "toyworld-wan" / "README.md").read_text(encoding="utf-8")
    assert as_markdown(overview_table(reports)) in card
    attacked = [load_report(folder / "adversarial" / f"{name}.json") for name in world.CONCEPTS]
    for more in ([load_report(folder / "together.json")], attacked):
        assert as_markdown(matrix_table(more)) in page
    unet = as_markdown(overview_table([load_report(folder / "unet3d" / f"{n}.json") for n in world.CONCEPTS]))
    assert unet in page
    assert unet in (ROOT / "assets" / "models" / "toyworld-unet3d" / "README.md").read_text(encoding="utf-8")
    assert {c.n for report in reports for c in report.cells} == {200}


def test_the_whitened_edit_is_on_the_front_of_every_concept_as_the_page_says() -> None:
    from refusal_core.evaluate.reports.report import load_report
    from refusal_core.evaluate.reports.tables import FRONT_MARK, as_markdown, front_table
    from refusal_core.toyworld import world

    folder = ROOT / "assets" / "reports"
    table = front_table([load_report(folder / f"{name}.json") for name in world.CONCEPTS])
    assert as_markdown(table) in (folder / "README.md").read_text(encoding="utf-8")
    ours = next(row for row in table.itertuples(index=False) if row[0] == "whitened")
    assert [cell.endswith(FRONT_MARK) for cell in ours[1:]] == [True] * (len(world.CONCEPTS) + 1)
    together = load_report(folder / "together.json")
    table = front_table([together])
    assert as_markdown(table) in (folder / "README.md").read_text(encoding="utf-8")
    assert table[table.method == "whitened"].iloc[0, 1].endswith(FRONT_MARK)


def test_of_five_concepts_erased_at_once_each_is_shown_in_less_than_5_percent() -> None:
    """The upper bound of the interval too, and neutral attributes are kept to 93 % of the original."""
    from refusal_core.evaluate.reports.report import load_report
    from refusal_core.evaluate.reports.tables import method_figures
    from refusal_core.toyworld import world

    together = load_report(ROOT / "assets" / "reports" / "together.json")
    cells = [together.cell("whitened", name) for name in world.CONCEPTS]
    assert all(cell is not None and cell.judged == cell.n and cell.unsafe.high < 0.05 for cell in cells)
    kept = method_figures(together, "whitened")["kept"]
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
