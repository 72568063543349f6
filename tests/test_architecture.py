"""The rooms: who may import what, and what a bare import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted((ROOT / "refusal_core").rglob("*.py"))
MATH = {"subspace.py", "fold.py", "separation.py"}


def imports_of(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def room(path: Path) -> str:
    return path.relative_to(ROOT / "refusal_core").as_posix()


def test_the_math_knows_only_torch_and_errors() -> None:
    for path in CODE:
        if path.name in MATH:
            assert imports_of(path) <= {"__future__", "dataclasses", "torch", "refusal_core.errors"}, path


def test_only_the_studio_imports_gradio() -> None:
    users = {room(p) for p in CODE if "gradio" in roots(imports_of(p))}
    assert users
    assert all(u.startswith("studio/") for u in users)


def test_the_studio_and_the_command_line_import_no_tensors() -> None:
    for path in CODE:
        if room(path).startswith(("studio/", "cli/")):
            assert not roots(imports_of(path)) & {"torch", "numpy", "diffusers", "transformers"}, path


def test_only_models_and_the_toy_pipeline_import_diffusers() -> None:
    # release: for its type hints; selftest plays a user who has diffusers alone
    allowed = ("models/", "toyworld/pipeline.py", "toyworld/release.py", "toyworld/unet.py", "selftest.py")
    for path in CODE:
        if roots(imports_of(path)) & {"diffusers", "transformers"}:
            assert room(path).startswith(allowed), path


def test_nothing_below_imports_the_studio_or_the_command_line() -> None:
    for path in CODE:
        if room(path).startswith(("studio/", "cli/")) or path.name == "__main__.py":
            continue
        upward = {n for n in imports_of(path) if n.startswith(("refusal_core.studio", "refusal_core.cli"))}
        assert not upward, path


def test_files_and_functions_stay_small() -> None:
    for path in CODE:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


def test_every_module_says_what_it_is_for() -> None:
    for path in CODE:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("command", ["import refusal_core", "import refusal_core.cli"])
def test_a_bare_import_loads_nothing_heavy(command: str) -> None:
    code = (
        f"{command}; import sys; print(sorted({{'torch','diffusers','gradio','numpy'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_top_level_is_as_it_was_drawn() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True)
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    drawn = {"app.py", "refusal_core", "assets", "presets", "tests", "requirements.txt", "README.md"}
    beside = {"LICENSE", "CHANGELOG.md", "pyproject.toml"}
    assert {name for name in top if not name.startswith(".")} <= drawn | beside
    assert drawn <= top


def test_no_public_name_is_hidden_by_a_room_of_the_same_name() -> None:
    """``rc.capture`` would be the module once anything imported ``refusal_core.capture``."""
    import refusal_core as rc

    rooms = {p.stem for p in (ROOT / "refusal_core").glob("*.py")}
    rooms |= {p.name for p in (ROOT / "refusal_core").iterdir() if p.is_dir()}
    assert not rooms & set(rc.__all__)
