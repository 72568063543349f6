"""The rooms: who may import what, and what a bare import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted((ROOT / "refusal_core").rglob("*.py"))
MATH = {"subspace.py", "variants.py", "fold.py", "separation.py"}


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
    # scipy: a partial eigenproblem, which torch has for positive definite matrices alone
    for path in CODE:
        if path.name in MATH:
            assert imports_of(path) <= {
                "__future__",
                "dataclasses",
                "scipy.sparse.linalg",
                "torch",
                "refusal_core.errors",
                "refusal_core.subspace",
            }, path


def test_only_the_studio_imports_gradio() -> None:
    users = {room(p) for p in CODE if "gradio" in roots(imports_of(p))}
    assert users
    assert all(u.startswith("studio/") for u in users)


def test_the_studio_and_the_command_line_import_no_tensors() -> None:
    for path in CODE:
        if room(path).startswith(("studio/", "cli/")):
            assert not roots(imports_of(path)) & {"torch", "numpy", "diffusers", "transformers"}, path


def test_only_models_and_toy_pipelines_import_diffusers() -> None:
    # family_steps plays a user who has diffusers alone; alignment is a model of transformers
    allowed = ("models/", "toyworld/", "evaluate/family_steps.py", "evaluate/measures/alignment.py")
    for path in CODE:
        if roots(imports_of(path)) & {"diffusers", "transformers"}:
            assert room(path).startswith(allowed), path


METHOD = {
    "errors", "progress", "settings", "concepts", "recipe", "subspace", "variants", "fold", "separation",
    "hooks", "capturing", "listening", "activations", "keeping", "directions", "edit", "apply", "sampling",
}  # fmt: skip
"""The method: the files at the top, in the order they run."""

BASE = {"errors", "progress", "settings"}
METHOD_AND_BELOW = METHOD | {"models", "io", "reading"}
TABLE: dict[str, set[str]] = {
    "io": {"errors"},
    "models": BASE | {"io", "hooks"},  # hooks knows torch alone
    "reading": METHOD_AND_BELOW,
    "export": METHOD_AND_BELOW,
    "toyworld": METHOD_AND_BELOW,
    "evaluate": METHOD_AND_BELOW | {"export", "toyworld"},
    "toyworld/training": METHOD_AND_BELOW | {"export", "toyworld", "evaluate"},
    "workbench": METHOD_AND_BELOW | {"export", "toyworld", "evaluate"},
    "cli": METHOD_AND_BELOW | {"export", "toyworld", "toyworld/training", "evaluate", "workbench", "studio"},
    "studio": BASE | {"workbench"},
    **dict.fromkeys(METHOD, METHOD_AND_BELOW),
}
"""Which rooms a room may import; a file at the top is a room of its own."""


def room_of(name: str) -> str:
    """Return the room of a module, by the longest name in the table."""
    parts = name.split(".")[1:]
    for length in (2, 1):
        if (found := "/".join(parts[:length])) in TABLE:
            return found
    return ""


def modules_of(path: Path) -> set[str]:
    """Return the modules of this project that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("refusal_core"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return {name for name in found if name.split(".")[0] == "refusal_core"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in CODE}


def test_every_room_imports_only_what_the_table_allows() -> None:
    offenders = []
    for name, path in MODULES.items():
        mine = room_of(name)
        for other in sorted(modules_of(path)):
            theirs = room_of(other)
            if mine and theirs not in ("", mine) and theirs not in TABLE[mine]:
                offenders.append(f"{name} imports {other}")
    assert not offenders, "\n".join(offenders)


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Return what is in a circle: whatever can be reached from itself."""
    found = []
    for start in graph:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            at = waiting.pop()
            if at not in seen:
                seen.add(at)
                waiting += graph.get(at, ())
        if start in seen:
            found.append(start)
    return sorted(found)


def test_no_file_and_no_folder_imports_itself_by_way_of_others() -> None:
    files = {name: modules_of(path) - {name} for name, path in MODULES.items()}
    assert circles(files) == []
    folders: dict[str, set[str]] = {}
    for name, others in files.items():
        mine = folder_of(name)
        folders.setdefault(mine, set()).update({folder_of(o) for o in others} - {mine})
    assert circles(folders) == []
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == ["a", "b"]


def folder_of(name: str) -> str:
    """Return the folder of a module; a file at the top of the package is its own."""
    is_package = MODULES.get(name, Path("x")).name == "__init__.py"
    parts = name.split(".")
    return name if is_package or len(parts) <= 2 else ".".join(parts[:-1])


def test_the_top_of_the_core_is_the_method() -> None:
    top = {path.stem for path in CODE if path.parent == ROOT / "refusal_core"}
    assert top == METHOD | {"__init__", "__main__"}


def test_the_top_of_the_core_can_be_seen_at_one_glance() -> None:
    assert len(list((ROOT / "refusal_core").glob("*.py"))) <= 20


def test_no_function_takes_more_than_six_parameters() -> None:
    offenders = []
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                count = len(given) - (given[:1] in (["self"], ["cls"]))
                if count > 6:
                    offenders.append(f"{room(path)}: {node.name} takes {count}")
    assert not offenders, "\n".join(offenders)


def test_no_two_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(room(path))
    assert {name: rooms for name, rooms in homes.items() if len(rooms) > 1} == {}


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
    beside = {"LICENSE", "CHANGELOG.md", "SECURITY.md", "pyproject.toml"}
    assert {name for name in top if not name.startswith(".")} <= drawn | beside
    assert drawn <= top


def test_no_public_name_is_hidden_by_a_room_of_the_same_name() -> None:
    """``rc.capture`` would be the module once anything imported ``refusal_core.capture``."""
    import refusal_core as rc

    rooms = {p.stem for p in (ROOT / "refusal_core").glob("*.py")}
    rooms |= {p.name for p in (ROOT / "refusal_core").iterdir() if p.is_dir()}
    assert not rooms & set(rc.__all__)
