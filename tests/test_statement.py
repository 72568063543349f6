"""Statements on an edit: what a layer stops, what the denoiser still tells apart, and who refuses."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import refusal_core as rc
from refusal_core.cli import main
from refusal_core.errors import InputError, ModelError
from refusal_core.evaluate.statement import statement
from refusal_core.models.model import Model

pytestmark = pytest.mark.usefixtures("unchanged")


def edit_of(model: Model, concept: rc.Concept, method: str = "whitened", strength: float = 1.0) -> rc.Edit:
    seen = rc.capture(model, concept, rc.CaptureSettings(kinds=("text",)))
    found = rc.estimate(seen, rc.SubspaceSettings(method=method))
    return rc.make_edit(found, rc.EditSettings(strength=strength))


def twins(concept: rc.Concept) -> list[tuple[str, str]]:
    return [(p.unsafe, p.safe) for p in concept.pairs]


def test_a_layer_lets_pass_what_the_strength_leaves(tiny: Model, fire: rc.Concept) -> None:
    for strength, left in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0)):
        found = statement(tiny, edit_of(tiny, fire, strength=strength), twins(fire))
        assert len(found.sites) == len([s for s in tiny.sites if s.kind == "text"])
        assert all(site.share == pytest.approx(left, abs=1e-5) for site in found.sites)
        assert (found.concept.share == 1.0) == (strength == 0.0), "without an edit everything arrives"


def test_an_edit_stops_its_concept_and_a_placebo_does_not(toy: Model, fire: rc.Concept) -> None:
    real, placebo = (statement(toy, edit_of(toy, fire, m), twins(fire)) for m in ("whitened", "placebo"))
    assert max(s.share for s in placebo.sites) < 1e-4, "a placebo's layers stop their directions as well"
    assert real.concept.share < 0.5 < 0.9 < placebo.concept.share
    assert real.ordinary.least > 0.9 and placebo.ordinary.least > 0.9
    assert real.concept.least <= real.concept.share <= real.concept.most
    assert (real.concept.twins, real.concept.steps) == (3, 6)
    assert "does not say that the concept cannot come back" in real.lines()[-1]


def test_what_a_statement_cannot_be_made_of_is_one_sentence(tiny: Model, fire: rc.Concept) -> None:
    edit = edit_of(tiny, fire)
    with pytest.raises(InputError, match="at least 2 pairs"):
        statement(tiny, edit, twins(fire)[:1])
    with pytest.raises(InputError, match="make no difference to this model"):
        statement(tiny, edit, [("a red circle", "a red circle")] * 2)
    other = replace(edit, model=replace(edit.model, config="another"))
    with pytest.raises(ModelError, match="made for"):
        statement(tiny, other, twins(fire))


def test_the_command_says_it_and_writes_it(
    toy: Model, fire: rc.Concept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file, out = tmp_path / "fire.safetensors", tmp_path / "statement.json"
    rc.save_edit(edit_of(toy, fire), file)
    monkeypatch.setattr(sys, "argv", ["refusal_core", "statement", "--edit", str(file), "--json", str(out)])
    main_exit(0)
    said = capsys.readouterr().out
    assert "edited layers at most" in said and "give others with --pairs" in said
    written = json.loads(out.read_text(encoding="utf-8"))
    assert 0 < written["concept"]["share"] < 0.5 and len(written["sites"]) == 16
    (tmp_path / "others.csv").write_text("a cross on fire,a cross\na blue circle in flames,a blue circle\n")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--pairs", str(tmp_path / "others.csv")])
    main_exit(0)
    assert "2 pairs" in (said := capsys.readouterr().out) and "made from" not in said


def main_exit(code: int) -> None:
    try:
        main()
    except SystemExit as e:
        assert (e.code or 0) == code
