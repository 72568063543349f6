"""The wheel: installed, started from another folder and without a network, it does what a checkout does."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("refusal_core", "presets", "assets", "pyproject.toml", "requirements.txt", "LICENSE", "README.md")
OFFLINE = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a copy, as building leaves files beside the sources."""
    copy = tmp_path_factory.mktemp("copy")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", *OFFLINE, "--no-build-isolation", "-w", "made", "."]
    subprocess.run(command, cwd=copy, check=True)
    return next((copy / "made").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it into an environment of its own, which finds all other packages where this one has them."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", *OFFLINE, "--no-compile"]
    subprocess.run([*pip, str(wheel)], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def environment() -> dict[str, str]:
    offline = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1"}
    return {name: text for name, text in os.environ.items() if name != "PYTHONPATH"} | offline


def run(installed: Path, folder: Path, *arguments: str) -> str:
    command = [str(installed / "bin" / "refusal-studio"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_all_code_presets_and_models(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    wanted = {str(p.relative_to(ROOT)) for p in (ROOT / "refusal_core").rglob("*.py")}
    wanted |= {
        str(p.relative_to(ROOT)) for kind in ("js", "css") for p in ROOT.rglob(f"refusal_core/**/*.{kind}")
    }
    for folder in ("presets", "assets/models"):
        files = (p for p in (ROOT / folder).rglob("*") if p.suffix in (".json", ".safetensors"))
        wanted |= {f"refusal_core/{p.relative_to(ROOT)}" for p in files}
    assert len(wanted) > 150 and wanted <= held, sorted(wanted - held)
    assert not [name for name in held if name.startswith(("tests/", "build/", "presets/", "assets/"))]


def test_the_command_works_from_another_folder(installed: Path, tmp_path: Path) -> None:
    assert "edit" in run(installed, tmp_path, "--help")
    run(installed, tmp_path, "edit", "--preset", "fire", "--out", "fire.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["fire.safetensors"]
    code = "import refusal_core, refusal_core.concepts as c; print(refusal_core.__file__, c.PRESETS)"
    python = [str(installed / "bin" / "python"), "-c", code]
    places = subprocess.run(python, cwd=tmp_path, env=environment(), capture_output=True, text=True).stdout
    assert len(places.split()) == 2 and all(place.startswith(str(installed)) for place in places.split())


def test_the_app_starts_from_another_folder(installed: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(installed / "bin" / "refusal-studio"), "app", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        app = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while app.poll() is None and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    assert answer.status == 200 and b"Refusal Studio" in answer.read()
                    return
            except OSError:
                time.sleep(0.3)
        pytest.fail((tmp_path / "log").read_text())
    finally:
        app.terminate()
        app.wait(60)
