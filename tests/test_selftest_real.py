"""A model that is the user's own: what is guessed of its structure, and every step tried on it."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from refusal_core.errors import ModelError
from refusal_core.evaluate import family_steps
from refusal_core.evaluate.family_steps import STEPS, bake_where_possible, peak_memory
from refusal_core.models.discovery import describe_guess, guess_family
from refusal_core.models.load import bundled_folder
from refusal_core.models.model import wrap_pipeline
from refusal_core.models.tiny import tiny_model


@pytest.mark.parametrize("name", ["unet3d", "animatediff"])
def test_the_structure_of_a_unet_is_not_guessed(name: str) -> None:
    with pytest.raises(
        ModelError, match=r"is a UNet: its blocks differ .*; describe it as a family instead\.$"
    ):
        guess_family(tiny_model(name).pipeline)


@pytest.mark.parametrize(("name", "prefixes"), [("wan", 1), ("wan-2.2", 2)])
def test_a_guess_says_how_many_blocks_and_sites_it_found(name: str, prefixes: int) -> None:
    pipeline = tiny_model(name).pipeline
    family = guess_family(pipeline)
    shown, sites = describe_guess(family), wrap_pipeline(pipeline, "x", family).sites
    for prefix in ("transformer", "transformer_2")[:prefixes]:
        count = sum(site.name.startswith(f"{prefix}.") for site in sites)
        assert f"{prefix}: {len(getattr(pipeline, prefix).blocks)} blocks, {count} sites" in shown
    assert shown.count(" sites") == prefixes
    assert "[batch, tokens, width] enters each layer" in shown
    assert "Left out" not in shown


def test_a_guess_names_the_blocks_it_leaves_out() -> None:
    pipeline = tiny_model("wan").pipeline
    pipeline.transformer.refiner_blocks = copy.deepcopy(pipeline.transformer.blocks[:1])
    family = guess_family(pipeline)
    assert family.blocks[0].paths == ("blocks.*",)
    assert "Left out, though they have cross-attention: refiner_blocks (1)." in describe_guess(family)


# --- every step on a real model ----------------------------------------------------------------------


@pytest.fixture
def toy_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundled model as a folder of the user's, with two steps by default; it is the current one."""
    folder = tmp_path / "toy"
    shutil.copytree(str(bundled_folder("toyworld")), folder, ignore=shutil.ignore_patterns("*.png"))
    path = folder / "studio.json"
    settings = json.loads(path.read_text())
    settings["defaults"]["steps"] = 2
    path.write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    return folder


def tried(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[dict[str, Any], int]:
    """Run the command on the folder; return its one row, and its exit code."""
    from refusal_core.cli import main

    out = folder.parent / "rows.json"
    arguments = ["models", "selftest", "--real", "toy", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["refusal_core", *arguments])
    code = 0
    try:
        main()
    except SystemExit as e:
        code = int(e.code or 0)
    (row,) = json.loads(out.read_text(encoding="utf-8"))["families"]
    return row, code


def test_each_step_says_what_ran_and_nothing_else(toy_folder: Path, monkeypatch) -> None:
    before = {p: p.read_bytes() for p in toy_folder.rglob("*") if p.is_file()}
    row, code = tried(monkeypatch, toy_folder)
    assert (row["id"], code) == ("toy", 0)
    assert all(row["steps"][step]["ok"] for step in STEPS)
    assert [row["steps"][step]["why"] for step in STEPS[4:]] == ["written", "not tried", "written"]
    assert all(row["measured"][f"{step} time"].endswith(" s") for step in ("capture", "edit", "bake"))
    assert ("GPU memory" in row["measured"]) is torch.cuda.is_available()
    assert {p: p.read_bytes() for p in toy_folder.rglob("*") if p.is_file()} == before


def test_what_fails_is_named_and_what_came_after_it_is_not_filled_in(toy_folder: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(family_steps, "export_lora", full)
    row, code = tried(monkeypatch, toy_folder)
    assert code == 1
    assert row["steps"]["lora"] == {"ok": False, "why": "OSError: No space left on device"}
    assert [row["steps"][step]["ok"] for step in STEPS] == [True] * 4 + [False, None, None]
    assert "bake time" not in row["measured"]


def test_without_room_for_a_copy_nothing_is_baked(toy_folder: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(family_steps.shutil, "disk_usage", lambda _path: usage(10, 9, 1))
    assert bake_where_possible(None, toy_folder, toy_folder.parent / "baked") == "no room on disk"
    assert bake_where_possible(None, toy_folder / "nowhere", toy_folder) == "no local folder"
    assert not (toy_folder.parent / "baked").exists()


def test_memory_is_that_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_memory() == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2_540_000_000)
    assert peak_memory() == {"GPU memory": "2.5 GB"}
