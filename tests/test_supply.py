"""What the project stands on: locked packages, their licences, and nothing that runs a stranger's code."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from refusal_core.errors import InputError
from refusal_core.supply import bill_of_materials, installed, kind_of, read_requirements

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


# --- licences and the bill of materials ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "permissive"),
        ("BSD 3-Clause License", "permissive"),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSL-1.0 AND MIT", "permissive"),
        ("GPL-3.0-only OR MIT", "permissive"),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "weak copyleft"),
        ("GNU Lesser General Public License v3 or later (LGPLv3+)", "weak copyleft"),
        ("MIT AND (AGPL-3.0-only OR GPL-2.0-or-later)", "copyleft"),
        ("MIT AND (GPL-2.0-only AND (MIT OR LGPL-3.0-only))", "copyleft"),
        ("GNU Affero General Public License v3", "copyleft"),
        ("LicenseRef-NVIDIA-Proprietary", "proprietary"),
        ("MIT AND LicenseRef-Something", "unknown"),
        ("Limited use only", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_licence_is_sorted_by_what_it_asks(licence: str, kind: str) -> None:
    assert kind_of(licence) == kind


def package(folder: Path, name: str, *lines: str, files: tuple[str, ...] = ()) -> None:
    """Install a package that is nothing but its metadata."""
    home = folder / f"{name.replace('-', '_')}-1.0+cpu.dist-info"
    home.mkdir()
    head = ("Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0+cpu", *lines)
    (home / "METADATA").write_text("\n".join(head) + "\n")
    (home / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_packages_are_followed_through_markers_extras_and_circles(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package(
        tmp_path,
        "strange-root",
        "License-Expression: MIT",
        "Requires-Dist: strange-leaf[more]>=1",
        "Requires-Dist: strange-away; python_version < '3'",
        "Requires-Dist: strange-test; extra == 'test'",
    )
    package(
        tmp_path,
        "strange-leaf",
        "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
        "Requires-Dist: strange-root",
        "Requires-Dist: strange-extra; extra == 'more'",
        "Requires-Dist: strange-gone",
    )
    package(tmp_path, "strange-extra", "License: BSD", files=("extra.libs/libx264-1f.so.165",))
    package(tmp_path, "strange-test", "License: MIT")
    (tmp_path / "needs.txt").write_text("# a comment\nStrange_Root>=1  # why\n")
    found = installed(read_requirements([tmp_path / "needs.txt"]))
    assert {p.name: p.kind for p in found.packages} == {
        "strange-root": "permissive",
        "strange-leaf": "copyleft",
        "strange-extra": "copyleft",
    }
    assert found.missing == ("strange-gone",)
    bom = bill_of_materials(found)
    assert bom == bill_of_materials(found)
    components = {c["name"]: c for c in bom["components"]}
    assert components["strange-root"]["purl"] == "pkg:pypi/strange-root@1.0%2Bcpu"
    assert components["strange-root"]["licenses"] == [{"expression": "MIT"}]
    assert components["strange-extra"]["components"][0]["name"] == "libx264"
    depends = {d["ref"].split("/")[1].split("@")[0]: len(d["dependsOn"]) for d in bom["dependencies"]}
    assert depends == {"refusal-studio": 1, "strange-root": 1, "strange-leaf": 2, "strange-extra": 0}
    (tmp_path / "needs.txt").write_text("-e .\n")
    with pytest.raises(InputError, match=r"'-e \.' is no requirement"):
        read_requirements([tmp_path / "needs.txt"])


def test_what_is_installed_for_the_app_is_in_the_lock_and_may_be_handed_on() -> None:
    found = installed(read_requirements())
    assert found.missing == ()
    assert {p.name for p in found.packages} <= set(pins(LOCKS["app"].read_text(encoding="utf-8")))
    known = {"av"}  # its wheel carries x264 and x265, under the GPL; its own code is BSD
    cuda = {p.name for p in found.packages if p.name.startswith(("nvidia-", "cuda-"))}
    assert {
        p.name for p in found.packages if p.kind in ("copyleft", "proprietary", "unknown")
    } <= known | cuda


def test_the_commands_print_the_packages_and_write_the_bill(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "refusal_core", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout

    listed = run("licences")
    names = {p.name for p in installed(read_requirements()).packages}
    assert names <= set(listed.split()) and f"{len(names)} packages: " in listed
    run("sbom", "--out", str(tmp_path / "sbom.json"))
    bom = json.loads((tmp_path / "sbom.json").read_text(encoding="utf-8"))
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert {c["name"] for c in bom["components"]} == names


# --- what the code may not do --------------------------------------------------------------------------

MODULES = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "code"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.hub.load"}
CALLS |= {"yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "subprocess.getoutput"}
FALSE = {"shell", "trust_remote_code", "allow_pickle"}  # keywords that may only be False
NEVER = {"custom_pipeline", "weights_only"}


def dotted(node: ast.expr) -> str:
    """Return the name that is called: ``torch.load``."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def breaches(source: str) -> list[str]:
    """Return where code unpickles, runs text or a shell, or lets a stranger's code or pickles be loaded."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{a.name}" for a in node.names]
            found += [n for n in names if n in CALLS or n.split(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            found += _called_wrongly(node)
        elif isinstance(node, ast.Dict):  # what is handed on as **
            pairs = zip(node.keys, node.values, strict=True)
            named = [
                (k.value, v) for k, v in pairs if isinstance(k, ast.Constant) and isinstance(k.value, str)
            ]
            found += [f"{k} in a dict" for k, v in named if k in NEVER or (k in FALSE and not is_false(v))]
    return found


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _called_wrongly(call: ast.Call) -> list[str]:
    name, last = dotted(call.func), dotted(call.func).split(".")[-1]
    words = {k.arg: k.value for k in call.keywords if k.arg}
    found = [name] if name in CALLS else []
    found += [f"{k} of {name}" for k in words if k in NEVER or (k in FALSE and not is_false(words[k]))]
    if last not in ("from_pretrained", "from_single_file"):
        return found
    owner = f"?.{name}".split(".")[-2]
    if owner.startswith(("Auto", "Diffusion")) and "trust_remote_code" not in words:
        found.append(f"{name} without trust_remote_code=False")
    safe = words.get("use_safetensors")
    without_weights = owner.endswith(("Tokenizer", "Processor", "Config"))
    if not without_weights and not (isinstance(safe, ast.Constant) and safe.value is True):
        found.append(f"{name} without use_safetensors=True")
    return found


def test_nothing_is_unpickled_run_as_text_or_trusted_to_bring_code() -> None:
    paths = [ROOT / "app.py", *sorted((ROOT / "refusal_core").rglob("*.py"))]
    assert len(paths) > 80
    found = {str(p.relative_to(ROOT)): breaches(p.read_text(encoding="utf-8")) for p in paths}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads as read",
        "import joblib.numpy_pickle",
        "from torch import load",
        "torch.load(path, map_location='cpu')",
        "eval(text)",
        "exec(text)",
        "os.system('ls')",
        "subprocess.run(line, shell=True)",
        "subprocess.run(line, shell=asked)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "AutoModel.from_pretrained(path, use_safetensors=True)",
        "AutoModel.from_pretrained(path, use_safetensors=True, trust_remote_code=True)",
        "diffusers.DiffusionPipeline.from_pretrained(path, trust_remote_code=False)",
        "CLIPModel.from_pretrained(path, use_safetensors=asked)",
        "network.from_single_file(path)",
        "load(path, **{'trust_remote_code': True})",
        "load(path, custom_pipeline=name)",
    ],
)
def test_a_breach_would_be_found(source: str) -> None:
    assert breaches(source)


def test_what_only_looks_like_a_breach_is_none() -> None:
    assert not breaches("model.eval(); x = 'torch.load(path)'; re.compile('a'); subprocess.run(['ls'])")
    assert not breaches("AutoTokenizer.from_pretrained(path, trust_remote_code=False)  # pickle.loads")
    assert not breaches("f(a, **{'use_safetensors': True, 'trust_remote_code': False})")
