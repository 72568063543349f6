"""Edits: weights are swapped for a block and restored bit for bit; files are small and trusted in nothing."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import refusal_core as rc
from refusal_core.edit import Edit
from refusal_core.errors import FileError, InputError, ModelError, RankError
from refusal_core.io.files import HEADER_KEY
from refusal_core.models.model import Model


@pytest.fixture(scope="module")
def seen(tiny: Model, fire: rc.Concept):
    return rc.capture(tiny, fire, rc.CaptureSettings(kinds=("text", "cross-attention"), timesteps=2))


@pytest.fixture(scope="module")
def edit(seen) -> Edit:
    return rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(rank=2)))


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {n: layer.weight.detach().clone() for n, layer in model.layers.items()}


def test_applied_changes_the_sites_and_only_the_sites(tiny: Model, edit: Edit, unchanged: None) -> None:
    before = weights(tiny)
    with rc.applied(tiny, edit):
        changed = {n for n, layer in tiny.layers.items() if not torch.equal(layer.weight, before[n])}
    assert changed == {s.name for s in edit.sites}


def test_applied_equals_steering_the_input_by_a_hook(tiny: Model, edit: Edit) -> None:
    """The fold is x~ = x - (x Q^T) D U at the input of the layer."""
    site, mine = next(iter(edit.sites.items()))
    x = torch.randn(5, site.inputs)
    steered = x - (x @ mine.detect.T * mine.strength) @ mine.remove
    wanted = tiny.layers[site.name](steered)
    with rc.applied(tiny, edit):
        got = tiny.layers[site.name](x)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(tiny.layers[site.name](x), wanted, atol=1e-3)


def test_restore_survives_an_exception(tiny: Model, edit: Edit, unchanged: None) -> None:
    with pytest.raises(KeyboardInterrupt), rc.applied(tiny, edit):
        raise KeyboardInterrupt


def test_nothing_is_touched_when_a_later_site_cannot_be_edited(
    tiny: Model, edit: Edit, unchanged: None
) -> None:
    *good, last = edit.sites
    wrong = {s: edit.sites[s] for s in good} | {replace(last, name="transformer.none"): edit.sites[last]}
    with (
        pytest.raises(ModelError, match=r"has no layer transformer.none"),
        rc.applied(tiny, replace(edit, sites=wrong)),
    ):
        pytest.fail("the block must not run")


def test_strength_zero_is_bit_identical(tiny: Model, edit: Edit) -> None:
    before = weights(tiny)
    with rc.applied(tiny, rc.with_strength(edit, 0.0)):
        assert all(torch.equal(layer.weight, before[n]) for n, layer in tiny.layers.items())
    with rc.applied(tiny, rc.with_strength(edit, 0.01)):
        assert not all(torch.equal(layer.weight, before[n]) for n, layer in tiny.layers.items())


def test_anchoring_moves_the_bias_and_restores_it(tiny: Model, seen, unchanged: None) -> None:
    """At the ordinary mean the anchored layer answers as before; the one moved to zero does not."""
    found = rc.estimate(seen)
    site = next(iter(found.sites))
    mean = seen.sites[site].ordinary.mean(0)
    wanted = tiny.layers[site.name](mean)
    with rc.applied(tiny, rc.make_edit(found, rc.EditSettings(anchor="mean"))):
        torch.testing.assert_close(tiny.layers[site.name](mean), wanted, atol=1e-4, rtol=1e-4)
    with rc.applied(tiny, rc.make_edit(found, rc.EditSettings(anchor="zero"))):
        assert not torch.allclose(tiny.layers[site.name](mean), wanted, atol=1e-3)


def test_combining_is_order_free_and_removes_both(tiny: Model, seen, unchanged: None) -> None:
    a = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(rank=1)))
    pairs = tuple(
        rc.PromptPair(
            f"a large {c} circle bleeding moving left over sand", f"a large {c} circle moving left over sand"
        )
        for c in ("red", "blue", "green")
    )
    other = rc.capture(tiny, rc.Concept("bleeding", pairs, ("a small white cross staying still over sky",)))
    b = rc.make_edit(rc.estimate(other))
    with rc.applied(tiny, rc.combine(a, b)):
        ab = weights(tiny)
    with rc.applied(tiny, rc.combine(b, a)):
        ba = weights(tiny)
    for name in ab:
        torch.testing.assert_close(ab[name], ba[name], atol=1e-5, rtol=1e-5)
    shared = next(s for s in a.sites if s in b.sites)
    for mine in (a, b):  # W~ U = 0 for the directions of both
        assert (ab[shared.name] @ mine.sites[shared].remove.T).abs().max() < 1e-4
    assert (tiny.layers[shared.name].weight @ a.sites[shared].remove.T).abs().max() > 1e-2


def test_one_concept_twice_with_unequal_strengths_is_refused_by_name(seen) -> None:
    plain = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")))
    weaker = rc.with_strength(plain, 0.5)
    with pytest.raises(InputError, match="'fire' and 'fire' are nearly one direction at"):
        rc.combine(plain, weaker)
    rc.combine(plain, plain)  # equal strengths: one projector, whatever the angle


def test_a_strength_can_be_set_for_one_concept(seen, tiny: Model) -> None:
    text = rc.make_edit(rc.estimate(seen), rc.EditSettings(kinds=("text",)))
    video = rc.make_edit(rc.estimate(seen), rc.EditSettings(kinds=("cross-attention",)))
    named = replace(video, origins=(replace(video.origins[0], concept="other"),))
    both = rc.with_strength(rc.combine(text, named), 0.0, "other")
    before = weights(tiny)
    with rc.applied(tiny, both):
        changed = {n for n, layer in tiny.layers.items() if not torch.equal(layer.weight, before[n])}
    assert changed == {s.name for s in text.sites}
    with pytest.raises(InputError, match="The edit holds no concept 'nobody'"):
        rc.with_strength(both, 1.0, "nobody")


def test_an_edit_survives_its_file(edit: Edit, tmp_path: Path) -> None:
    path = rc.save_edit(edit, tmp_path / "fire.safetensors")
    read = rc.load_edit(path)
    assert (read.model, read.origins, tuple(read.sites)) == (edit.model, edit.origins, tuple(edit.sites))
    for site, mine in edit.sites.items():
        assert torch.equal(read.sites[site].remove, mine.remove)
        assert torch.equal(read.sites[site].detect, mine.detect)
    assert path.stat().st_size < 300_000
    assert list(tmp_path.iterdir()) == [path]


def test_the_recipe_stands_in_the_metadata(edit: Edit, tmp_path: Path, fire: rc.Concept) -> None:
    path = rc.save_edit(edit, tmp_path / "fire.safetensors")
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    recipe = json.loads(header["__metadata__"][HEADER_KEY])
    assert recipe["origins"][0]["pairs"][0] == [fire.pairs[0].unsafe, fire.pairs[0].safe]
    assert recipe["origins"][0]["subspace"]["method"] == "whitened"
    assert {f["site"] for f in recipe["origins"][0]["figures"]} == {s.name for s in edit.sites}


def test_an_edit_for_another_model_is_refused(tiny: Model, edit: Edit, unchanged: None) -> None:
    foreign = replace(edit, model=replace(edit.model, config="0" * 16))
    with (
        pytest.raises(ModelError, match="made for WanPipeline with another configuration"),
        rc.applied(tiny, foreign),
    ):
        pytest.fail("the block must not run")


def _valid(edit: Edit, folder: Path) -> Path:
    return rc.save_edit(edit, folder / "edit.safetensors")


def _with_header(path: Path, change) -> None:
    """Rewrite the file's JSON header by ``change``."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    inner = json.loads(header["__metadata__"][HEADER_KEY])
    change(header, inner)
    header["__metadata__"][HEADER_KEY] = json.dumps(inner)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda p: p.write_bytes(b""), "is not a Refusal Studio edit file"),
        (lambda p: p.write_bytes(b"\x80\x04pickle" * 50), "is not a Refusal Studio edit file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-40]), "is damaged; get it again"),
        (lambda p: p.write_bytes(b"\xff" * 8 + p.read_bytes()[8:]), "is not a Refusal Studio edit file"),
        (lambda p: p.unlink(), "does not exist; check the name"),
        (lambda p: save_file({"a": torch.zeros(2)}, p), "is not a Refusal Studio edit file"),
        (lambda p: _with_header(p, lambda h, i: i.update(schema=9)), "has schema 9; this version reads 1"),
        (
            lambda p: _with_header(p, lambda h, i: i.update(kind="activations")),
            "is not a Refusal Studio edit",
        ),
        (lambda p: _with_header(p, lambda h, i: i.update(sites=[])), "holds no site"),
        (lambda p: _with_header(p, lambda h, i: i.pop("origins")), "is not a sound edit file"),
        (
            lambda p: _with_header(p, lambda h, i: i["sites"][0]["site"].update(inputs=7)),
            "do not fit the site",
        ),
        (lambda p: _with_header(p, lambda h, i: i["sites"][0].update(concept=[5, 5])), "do not fit the edit"),
        (lambda p: _with_header(p, lambda h, i: i["origins"][0].update(extra=1)), "is not a sound edit file"),
    ],
)
def test_a_damaged_or_hostile_edit_file_gets_one_sentence(
    edit: Edit, tmp_path: Path, damage, sentence: str
) -> None:
    path = _valid(edit, tmp_path)
    damage(path)
    with pytest.raises(FileError, match=sentence) as caught:
        rc.load_edit(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_values_that_are_not_finite_are_refused(edit: Edit, tmp_path: Path) -> None:
    site, mine = next(iter(edit.sites.items()))
    bad = replace(mine, remove=mine.remove.clone().fill_(float("nan")))
    path = rc.save_edit(replace(edit, sites={**edit.sites, site: bad}), tmp_path / "nan.safetensors")
    with pytest.raises(FileError, match="holds NaN or infinity; make the file again"):
        rc.load_edit(path)


def test_a_folder_that_cannot_be_written_gets_one_sentence(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        rc.save_edit(edit, tmp_path / "file" / "edit.safetensors")


def test_equal_prompts_on_both_sides_leave_no_direction(seen) -> None:
    same = {site: replace(s, unsafe=s.safe.clone()) for site, s in seen.sites.items()}
    with pytest.raises(RankError, match="Unsafe and safe prompts give equal activations at every site"):
        rc.estimate(replace(seen, sites=same))


def test_five_pooled_pairs_clamp_the_rank_and_say_so(tiny: Model, fire: rc.Concept) -> None:
    settings = rc.CaptureSettings(kinds=("cross-attention",), layers=(2,), pool="pair", timesteps=2)
    five = rc.Concept("fire", (fire.pairs * 2)[:5], fire.neutral)
    found = rc.estimate(rc.capture(tiny, five, settings), rc.SubspaceSettings(method="pca", rank=100))
    (direction,) = found.sites.values()
    assert direction.rank_used == direction.rank_available == 4
    assert "Rank 100 asked, 4 available: clamped." in found.notes


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("strength", 2.5, "strength is 2.5; it must lie from 0 to 2."),
        ("strength", float("nan"), "strength must be a number from 0 to 2, not nan."),
        ("strength", -1.0, "strength is -1; it must lie from 0 to 2."),
        ("anchor", "moon", "anchor 'moon' is not known; choose one of zero, mean."),
    ],
)
def test_settings_out_of_range_get_one_sentence(field: str, value: object, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        rc.EditSettings(**{field: value})  # type: ignore[arg-type]
    assert str(caught.value) == sentence
