"""What SECURITY.md says of the code and of packages: all are locked, nothing runs a stranger's code."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from importlib import metadata
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
    higher = [Requirement(f"{r.name}>=9999") for r in wanted(*files)]
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


def installed_for_the_app() -> set[str]:
    """Return the packages that requirements.txt brings here, one by another."""
    waiting = [(r.name, extra) for r in wanted("requirements.txt") for extra in ("", *r.extras)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        for r in map(Requirement, metadata.requires(name) or ()):
            if r.marker is None or r.marker.evaluate({"extra": extra}):
                waiting += [(r.name, more) for more in ("", *r.extras)]
    return {name for name, _ in seen}


def test_what_is_installed_for_the_app_is_in_the_lock() -> None:
    names = installed_for_the_app()
    assert {"torch", "gradio", "numpy"} < names and "pytest" not in names
    assert names <= set(pins(LOCKS["app"].read_text(encoding="utf-8")))


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
    without_weights = owner.endswith(("Tokenizer", "Processor", "Config", "config_class"))
    if not without_weights and not (isinstance(safe, ast.Constant) and safe.value is True):
        found.append(f"{name} without use_safetensors=True")
    return found


# Of .bin files, which both libraries read as numbers alone: test_strange_code.py feeds them pickles.
ALLOWED = {"refusal_core/models/parts.py": ["kind.from_pretrained without use_safetensors=True"]}


def test_nothing_is_unpickled_run_as_text_or_trusted_to_bring_code() -> None:
    paths = [ROOT / "app.py", *sorted((ROOT / "refusal_core").rglob("*.py"))]
    assert len(paths) > 80
    found = {str(p.relative_to(ROOT)): breaches(p.read_text(encoding="utf-8")) for p in paths}
    assert {path: what for path, what in found.items() if what} == ALLOWED


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
