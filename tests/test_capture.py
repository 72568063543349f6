"""Capture reads the right rows of the real pipeline, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch

import refusal_core as rc
from refusal_core.capturing import _twin_rows
from refusal_core.errors import Cancelled, InputError, MemoryLimitError, SiteError
from refusal_core.models.model import Model
from refusal_core.models.recording import first_call, listen, record
from refusal_core.models.tiny import tiny_model
from refusal_core.reading.video_side import chosen_steps, drawn
from refusal_core.settings import MOST_ROWS

ALL_KINDS = ("text-entry", "text", "cross-attention", "feed-forward", "feed-forward-out", "self-attention")


def hooks_left(model: Model) -> int:
    return sum(
        len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.pipeline.transformer.modules()
    )


def test_every_kind_of_site_is_read_and_no_hook_is_left(tiny: Model, fire: rc.Concept) -> None:
    seen = rc.capture(tiny, fire, rc.CaptureSettings(kinds=ALL_KINDS, timesteps=2))
    assert {s.kind for s in seen.sites} == set(ALL_KINDS)
    assert hooks_left(tiny) == 0
    for site, samples in seen.sites.items():
        assert samples.unsafe.shape == samples.safe.shape
        assert samples.unsafe.shape[1] == site.inputs
        assert torch.isfinite(samples.unsafe).all()


def test_frame_pooling_gives_one_row_a_pair_timestep_and_latent_frame(tiny: Model, fire: rc.Concept) -> None:
    settings = rc.CaptureSettings(kinds=("cross-attention",), layers=(1,), timesteps=2, frames=17)
    rows = {}
    for pool in ("pair", "timestep", "frame", "token"):
        seen = rc.capture(tiny, fire, rc.CaptureSettings(**{**_fields(settings), "pool": pool}))
        rows[pool] = next(iter(seen.sites.values()))
    assert [len(rows[p].unsafe) for p in ("pair", "timestep", "frame", "token")] == [3, 6, 30, 480]
    # The coarse rows are the means of the fine ones.
    fine = rows["token"].unsafe.view(3, 2, 5, 16, -1)
    torch.testing.assert_close(rows["frame"].unsafe.view(3, 2, 5, -1), fine.mean(3))
    torch.testing.assert_close(rows["pair"].unsafe, fine.mean((1, 2, 3)))


def _fields(settings: rc.CaptureSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_shared_latents_hide_the_concept_from_a_site_before_the_first_text(
    tiny: Model, fire: rc.Concept
) -> None:
    """At block 0 self-attention has not seen the text: r is exactly zero there with shared latents."""
    settings = rc.CaptureSettings(kinds=("self-attention",), layers=(0, 1), timesteps=2)
    first, second = rc.capture(tiny, fire, settings).sites.values()
    assert torch.equal(first.unsafe, first.safe)
    assert not torch.equal(second.unsafe, second.safe)
    own = rc.CaptureSettings(kinds=("self-attention",), layers=(0,), timesteps=2, trajectory="own")
    (apart,) = rc.capture(tiny, fire, own).sites.values()
    assert not torch.equal(apart.unsafe, apart.safe)


def test_such_a_site_is_left_out_and_named_never_nan(tiny: Model, fire: rc.Concept) -> None:
    settings = rc.CaptureSettings(kinds=("self-attention",), layers=(0, 1), timesteps=2)
    seen = rc.capture(tiny, fire, settings)
    for method in ("rv", "pca", "cpca", "whitened"):
        found = rc.estimate(seen, rc.SubspaceSettings(method=method, rank=4))
        assert [s.block for s in found.sites] == [1]
        assert "transformer.blocks.0.attn1.to_out.0" in " ".join(found.notes)
        assert all(torch.isfinite(d.remove).all() for d in found.sites.values())


def test_all_text_sites_share_one_set_of_samples(tiny: Model, fire: rc.Concept) -> None:
    seen = rc.capture(tiny, fire, rc.CaptureSettings(kinds=("text", "text-entry")))
    assert len({id(s) for site, s in seen.sites.items() if site.kind == "text"}) == 1
    assert len({id(s) for s in seen.sites.values()}) == 2


def test_text_rows_equal_what_the_layer_really_gets_without_padding(tiny: Model, fire: rc.Concept) -> None:
    """Against a direct call of the text encoder and the projection, for one neutral prompt."""
    (samples,) = {
        id(s): s for s in rc.capture(tiny, fire, rc.CaptureSettings(kinds=("text",))).sites.values()
    }.values()
    pipe, prompt = tiny.pipeline, fire.neutral[0]
    ids = pipe.tokenizer([prompt], return_tensors="pt").input_ids
    with torch.inference_mode():
        hidden = pipe.text_encoder(ids).last_hidden_state
        rows = pipe.transformer.condition_embedder.text_embedder(hidden)[0]
    torch.testing.assert_close(samples.neutral[: len(rows)], rows, atol=1e-5, rtol=1e-4)


def test_words_of_both_prompts_are_twins_and_new_words_meet_the_mean() -> None:
    unsafe, safe = torch.arange(8.0).view(4, 2), torch.arange(10.0, 16.0).view(3, 2)
    u, s = _twin_rows(unsafe, safe, [5, 6, 9, 7], [5, 6, 7])
    torch.testing.assert_close(u, unsafe)
    torch.testing.assert_close(s, torch.stack([safe[0], safe[1], safe.mean(0), safe[2]]))


def test_replay_equals_running_the_unsafe_prompt_on_the_same_latents(tiny: Model, fire: rc.Concept) -> None:
    """With one timestep, the first, both trajectories start from the same noise: rows must agree."""
    shared = rc.CaptureSettings(kinds=("cross-attention",), layers=(2,), timesteps=4)
    own = rc.CaptureSettings(kinds=("cross-attention",), layers=(2,), timesteps=4, trajectory="own")
    (a,), (b,) = (rc.capture(tiny, fire, s).sites.values() for s in (shared, own))
    first = a.unsafe.view(3, 4, 2, -1)[:, 0], b.unsafe.view(3, 4, 2, -1)[:, 0]
    torch.testing.assert_close(*first, atol=1e-5, rtol=1e-4)
    later = a.unsafe.view(3, 4, 2, -1)[:, 3], b.unsafe.view(3, 4, 2, -1)[:, 3]
    assert not torch.allclose(*later, atol=1e-5)
    torch.testing.assert_close(a.safe, b.safe)


def test_cancelling_leaves_no_hook_and_the_pipeline_usable(
    tiny: Model, fire: rc.Concept, unchanged: None
) -> None:
    def stop(fraction: float, sentence: str) -> None:
        if fraction > 0:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        rc.capture(tiny, fire, rc.CaptureSettings(kinds=("cross-attention",), timesteps=2), progress=stop)
    assert hooks_left(tiny) == 0
    assert rc.generate(tiny, fire.neutral[0]).frames.shape == (17, 64, 64, 3)


@pytest.mark.parametrize("pool", ["frame", "token"])
def test_at_full_size_the_rows_are_those_of_the_whole_run(tiny: Model, fire: rc.Concept, pool: str) -> None:
    """Read on the way, they are what the calls of the model's own schedule and size give when repeated."""
    d = tiny.defaults
    size = {"steps": d.steps, "frames": d.frames, "height": d.height, "width": d.width}
    settings = rc.CaptureSettings(
        kinds=("cross-attention",), layers=(2,), pool=pool, timesteps=2, **size, pair_rows=MOST_ROWS
    )
    ((site, samples),) = rc.capture(tiny, fire, settings).sites.items()
    safe = [pair.safe for pair in fire.pairs]
    with torch.inference_mode():
        calls = record(tiny, safe, range(len(safe)), rc.SamplingSettings(), 0, None)
        steps = [listen(calls[i], tiny, [site])[site] for i in chosen_steps(2, d.steps)]
    rows = torch.stack(steps, 1).unflatten(2, (5, 16))  # [B, steps, F, S, H]
    rows = rows.mean(3) if pool == "frame" else rows.flatten(2, 3)
    assert torch.equal(samples.safe, rows.flatten(0, 2))


def test_of_more_rows_than_are_kept_a_draw_decides_alike_for_both_prompts(
    tiny: Model, fire: rc.Concept
) -> None:
    whole, drawn_rows = (
        rc.capture(
            tiny,
            fire,
            rc.CaptureSettings(
                kinds=("cross-attention",), layers=(2,), pool="token", pair_rows=most, neutral_rows=most
            ),
        )
        for most in (MOST_ROWS, 50)
    )
    (every,), (some,) = whole.sites.values(), drawn_rows.sites.values()
    assert len(every.unsafe) == 3 * 4 * 2 * 16 and len(some.unsafe) == len(some.neutral) == 50
    pairs = zip(some.unsafe, some.safe, strict=True)
    twins = [(every.unsafe == u).all(1) & (every.safe == s).all(1) for u, s in pairs]
    assert all(found.sum() == 1 for found in twins)
    places = torch.stack(twins).nonzero()[:, 1]
    assert torch.equal(every.pair_of_row[places], some.pair_of_row)
    assert len(torch.unique(places)) == 50 and set(some.pair_of_row.tolist()) == {0, 1, 2}


def test_every_row_is_as_likely_to_be_drawn() -> None:
    counts = torch.zeros(40)
    for seed in range(2000):
        counts[drawn((seed, 0), 40, 10)] += 1
    assert counts.sum() == 20_000
    assert (counts - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_capturing_twice_gives_equal_bytes(tiny: Model, fire: rc.Concept) -> None:
    settings = rc.CaptureSettings(kinds=("feed-forward",), layers=(3,), timesteps=2)
    (a,), (b,) = (rc.capture(tiny, fire, settings).sites.values() for _ in range(2))
    assert torch.equal(a.unsafe, b.unsafe)
    assert torch.equal(a.neutral, b.neutral)


def test_steps_are_spread_over_the_whole_trajectory() -> None:
    assert chosen_steps(1, 16) == [8]
    assert chosen_steps(4, 4) == [0, 1, 2, 3]
    assert len(chosen_steps(6, 16)) == 6
    assert chosen_steps(6, 4) == [0, 1, 2, 3], "a model distilled to four steps is read at all of them"


def test_a_layer_or_kind_that_is_not_there_gets_one_sentence(tiny: Model, fire: rc.Concept) -> None:
    with pytest.raises(SiteError, match="No site is left for text at layers 99; this model has"):
        rc.capture(tiny, fire, rc.CaptureSettings(layers=(99,)))
    with pytest.raises(InputError, match="site 'brain' is not known"):
        rc.CaptureSettings(kinds=("brain",))  # type: ignore[arg-type]


def test_a_prompt_that_would_be_cut_off_is_refused(tiny: Model, fire: rc.Concept) -> None:
    long = rc.Concept("long", (*fire.pairs, rc.PromptPair("fire " * 30, "red " * 30)), fire.neutral)
    with pytest.raises(InputError, match="has 31 tokens; this model reads 24: shorten the prompt"):
        rc.capture(tiny, long)


def test_tokens_are_those_of_the_pipeline_that_writes_prompts_small() -> None:
    """Latte and Allegro do; with the prompt's own capitals every row would stand beside a wrong word."""
    latte, ltx = tiny_model("latte"), tiny_model("ltx")
    assert (
        latte.tokens(["A CAT"]) == latte.tokens(["a cat"]) == ltx.tokens(["a cat"]) != ltx.tokens(["A CAT"])
    )
    rows = first_call(latte, ["A CAT"])["encoder_hidden_states"]  # cut off behind the last token
    assert rows.shape[1] == len(latte.tokens(["A CAT"])[0])


def test_too_little_memory_is_one_sentence(tiny: Model, fire: rc.Concept, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("refusal_core.capturing._twins", fail)
    with pytest.raises(MemoryLimitError, match="take fewer layers or timesteps"):
        rc.capture(tiny, fire, rc.CaptureSettings(kinds=("text",)))


def test_activations_survive_a_file(tiny: Model, fire: rc.Concept, tmp_path) -> None:
    seen = rc.capture(tiny, fire, rc.CaptureSettings(kinds=("text", "cross-attention"), timesteps=2))
    read = rc.load_activations(rc.save_activations(seen, tmp_path / "seen.safetensors"))
    assert read.describe() == seen.describe()
    assert (read.model, read.settings, read.pairs) == (seen.model, seen.settings, seen.pairs)
    for site, samples in seen.sites.items():
        assert torch.equal(read.sites[site].unsafe, samples.unsafe)
    a, b = rc.make_edit(rc.estimate(seen)), rc.make_edit(rc.estimate(read))
    assert all(torch.equal(a.sites[s].remove, b.sites[s].remove) for s in a.sites)
