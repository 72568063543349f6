"""The README runs as it is written, and its figures are those the commands printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from refusal_core.video import load_video

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_snippet_runs_and_writes_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snippet = SNIPPETS[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    assert len(load_video(tmp_path / "pair.mp4")[0].frames) == 17
    assert (tmp_path / "fire.safetensors").stat().st_size < 100_000


def test_the_family_to_copy_is_a_family() -> None:
    from refusal_core.models import family

    (example,) = [s for s in SNIPPETS if s.startswith("Family(")]
    made = eval(example, vars(family))
    assert made.blocks[0].sites["text"] == ("attn2.to_k", "attn2.to_v")


def test_every_command_of_the_readme_exists() -> None:
    from typer.main import get_command

    from refusal_core.cli import app

    known = get_command(app).commands
    used = set(re.findall(r"python -m refusal_core (\w+)", README))
    assert used and used <= set(known)


def test_links_to_files_of_the_repository_are_not_broken() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_table_of_figures_is_what_the_command_prints() -> None:
    """From the reports in assets/reports, which `evaluate --json` wrote."""
    from refusal_core.evaluate.report import Report, summary
    from refusal_core.toyworld import world

    paths = [ROOT / "assets" / "reports" / f"{name}.json" for name in world.CONCEPTS]
    reports = [Report.from_json(json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    assert summary(reports) in README
    assert {c.n for report in reports for c in report.cells} == {200}
