"""What the project stands on: locked packages, their licences, and nothing that runs a stranger's code."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.security

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
LOCKS = {"app": TESTS / "locked-app.txt", "all": TESTS / "locked.txt"}
PIN = re.compile(r"([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; (.+?))?((?: --hash=sha256:[0-9a-f]{64})+)")
OPTIONS = {"--only-binary :all:"}


def pins(text: str) -> dict[str, dict[str, frozenset[str]]]:
    """Return the hashes of every locked package by name and version; refuse whatever else a lock holds.

    A package has two versions where the newer one is for a newer Python only.
    """
    found: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        line = " ".join(line.split())
        if not line or line in OPTIONS:
            continue
        match = PIN.fullmatch(line)
        assert match, f"not a version with hashes: {line[:120]}"
        name, version, _, hashes = match.groups()
        found[name][version] = frozenset(hashes.split())
    return found


def wanted(*names: str) -> list[Requirement]:
    """Return the lines of requirements files."""
    lines = [line for n in names for line in (ROOT / n).read_text(encoding="utf-8").splitlines()]
    bare = [line.split("#")[0].strip() for line in lines]
    return [Requirement(line) for line in bare if line]


def disagreements(lock: str, requirements: list[Requirement], constraints: list[Requirement]) -> list[str]:
    """Return what a lock does not pin as it is asked to."""
    locked, wrong = pins(lock), []
    for r in requirements:
        versions = locked.get(canonicalize_name(r.name), {})
        if not versions or not all(r.specifier.contains(v) for v in versions):
            wrong.append(f"{r} is locked as {', '.join(versions) or 'nothing'}")
    for c in constraints:
        versions = locked.get(canonicalize_name(c.name), {})
        if versions and [f"=={v}" for v in versions] != [str(c.specifier)]:
            wrong.append(f"{c} is locked as {', '.join(versions)}")
    return wrong


# --- the locks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lock", "files"),
    [("app", ("requirements.txt",)), ("all", ("requirements.txt", "tests/requirements.txt"))],
)
def test_the_lock_pins_what_is_required_as_the_constraints_say(lock: str, files: tuple[str, ...]) -> None:
    text, constraints = LOCKS[lock].read_text(encoding="utf-8"), wanted("tests/constraints.txt")
    assert disagreements(text, wanted(*files), constraints) == []
    higher = [Requirement(str(r).split("<")[0].split(">")[0] + ">=9999") for r in wanted(*files)]
    assert len(disagreements(text, higher, [])) == len(higher), "a control: nothing is that new"
    other = [Requirement(f"{c.name}==0.0.1") for c in constraints if canonicalize_name(c.name) in pins(text)]
    assert len(disagreements(text, [], other)) == len(other) > 15


def test_every_constraint_is_in_the_lock() -> None:
    locked = pins(LOCKS["all"].read_text(encoding="utf-8"))
    assert {canonicalize_name(c.name) for c in wanted("tests/constraints.txt")} <= set(locked)


def test_both_locks_pin_the_same_files() -> None:
    app, both = (pins(path.read_text(encoding="utf-8")) for path in LOCKS.values())
    assert {name: both.get(name) for name in app} == app
    assert "pytest" in both and "pytest" not in app


def test_a_lock_names_no_host_and_no_package_without_a_hash() -> None:
    for path in LOCKS.values():
        text = path.read_text(encoding="utf-8")
        assert "://" not in text and "index" not in text.split("\n\n")[0]
        assert len(pins(text)) > 80
    for line in ("torch==2.13.0", "torch>=2 --hash=sha256:" + "0" * 64, "-i https://host/simple"):
        with pytest.raises(AssertionError, match="not a version with hashes"):
            pins(line)


def test_the_app_builds_nothing_while_it_is_installed() -> None:
    assert "\n--only-binary :all:\n" in LOCKS["app"].read_text(encoding="utf-8")


def test_only_torch_and_its_cuda_packages_are_installed_without_a_hash() -> None:
    """The pattern of run.sh, which leaves them to the build that a machine is given."""
    (pattern,) = re.findall(r"skip = /(.+)/ \}", (TESTS / "run.sh").read_text(encoding="utf-8"))
    left = {f"{name}==" for name in pins(LOCKS["all"].read_text(encoding="utf-8"))}
    skipped = {name[:-2] for name in left if re.search(pattern, name)}
    assert {"torch", "triton"} <= skipped
    assert {n for n in skipped if not n.startswith(("nvidia-", "cuda-"))} == {"torch", "triton"}
