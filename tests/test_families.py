"""Every family: each step on a tiny pipeline of the real classes, each published size on the meta device."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled
from typer.testing import CliRunner

import refusal_core as rc
from refusal_core import capturing
from refusal_core.cli import app
from refusal_core.concepts import load_preset
from refusal_core.errors import ModelError, SiteError
from refusal_core.evaluate.family_steps import CONCEPT, FamilyResult, try_families
from refusal_core.hooks import watch_calls
from refusal_core.models import hub_files
from refusal_core.models.families import FAMILIES, LEFT_OUT
from refusal_core.models.families.family import Defaults
from refusal_core.models.inventory import inventory
from refusal_core.models.layouts import call_shape, video_rows
from refusal_core.models.model import family_of, wrap_pipeline
from refusal_core.models.recording import begin, listen, record, valid_rows
from refusal_core.models.sites import select
from refusal_core.models.tiny import NAMES, tiny_model
from refusal_core.models.tiny.recipes import RECIPES
from refusal_core.reading.video_side import plan
from refusal_core.recipe import preset_recipe
from refusal_core.sampling import size_note
from refusal_core.settings import CaptureSettings, SamplingSettings

# (blocks, parameters in billions, cross-attention sites and their width): diffusers' own published models
PUBLISHED = {
    "cerspense/zeroscope_v2_576w": (16, 1.41, 16, 320),
    "stabilityai/stable-diffusion-xl-base-1.0": (70, 2.80, 70, 640),
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": (30, 1.42, 30, 1536),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": (40, 14.29, 40, 5120),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": (40, 28.58, 80, 5120),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": (30, 5.00, 30, 3072),
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": (40, 16.39, 40, 5120),
    "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": (40, 16.39, 40, 5120),
    "nvidia/ChronoEdit-14B-Diffusers": (40, 16.39, 40, 5120),
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers": (30, 2.15, 30, 1536),
    "Wan-AI/Wan2.1-VACE-14B-diffusers": (40, 17.34, 40, 5120),
    "Skywork/SkyReels-V2-T2V-14B-540P-Diffusers": (40, 14.29, 40, 5120),
    "Lightricks/LTX-Video": (28, 1.92, 28, 2048),
    "Lightricks/LTX-Video-0.9.5": (28, 1.92, 28, 2048),
    "Lightricks/LTX-Video-0.9.7-dev": (48, 13.04, 48, 4096),
    "maxin-cn/Latte-1": (28, 1.06, 28, 1152),
    "rhymes-ai/Allegro": (32, 2.77, 32, 2304),
    "kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers": (32, 2.01, 32, 1792),
    "kandinskylab/Kandinsky-5.0-I2V-Lite-5s-Diffusers": (32, 2.01, 32, 1792),
    "kandinskylab/Kandinsky-5.0-I2V-Pro-sft-5s-Diffusers": (60, 19.31, 60, 4096),
    "Efficient-Large-Model/SANA-Video_2B_480p_diffusers": (20, 1.91, 20, 2240),
    "hunyuanvideo-community/HunyuanVideo": (60, 12.82, 20, 3072),
    "hunyuanvideo-community/HunyuanVideo-I2V": (60, 12.82, 20, 3072),
    "hunyuanvideo-community/HunyuanVideo-I2V-33ch": (60, 12.81, 20, 3072),
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v": (54, 8.33, 54, 2048),
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v": (54, 8.33, 54, 2048),
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_i2v": (54, 8.33, 54, 2048),
    "THUDM/CogVideoX-2b": (30, 1.69, 30, 1920),
    "THUDM/CogVideoX-5b": (42, 5.57, 42, 3072),
    "THUDM/CogVideoX1.5-5B": (42, 5.57, 42, 3072),
    "genmo/mochi-1-preview": (48, 10.03, 48, 3072),
    "alibaba-pai/EasyAnimateV5.1-12b-zh-diffusers": (48, 11.80, 48, 3072),
    "Lightricks/LTX-2": (48, 18.88, 48, 4096),
    "nvidia/AnyFlow-Wan2.1-T2V-1.3B-Diffusers": (30, 1.42, 30, 1536),
    "BestWishYsh/Helios-Base": (40, 14.31, 40, 5120),
    "nvidia/AnyFlow-Wan2.1-T2V-14B-Diffusers": (40, 14.32, 40, 5120),
}


# Frames, height, width, frames a second, steps: of those that were made for others than their family's
MADE_FOR = {
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": (81, 720, 1280, 16, 50),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": (81, 720, 1280, 16, 40),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": (121, 704, 1280, 24, 50),
    "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": (81, 720, 1280, 16, 50),
    "Wan-AI/Wan2.1-VACE-14B-diffusers": (81, 720, 1280, 16, 50),
    "THUDM/CogVideoX1.5-5B": (81, 768, 1360, 16, 50),
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_i2v": (121, 720, 1280, 24, 50),
}


def sizes(d: Defaults) -> tuple[float, ...]:
    return d.frames, d.height, d.width, d.fps, d.steps


@pytest.fixture(scope="module")
def rows() -> dict[str, FamilyResult]:
    return {row.id: row for row in try_families()}


@pytest.mark.parametrize("name", NAMES)
def test_a_family_passes_every_step(rows: dict[str, FamilyResult], name: str) -> None:
    assert rows[name].trouble == ""
    assert rows[name].whole, rows[name].steps


def test_every_family_has_a_tiny_pipeline() -> None:
    tried = {recipe.pipeline for recipe in RECIPES.values()}
    assert all(set(family.pipelines) & tried for family in FAMILIES)


@pytest.mark.parametrize("source", PUBLISHED)
def test_a_published_model_has_the_layers_it_is_known_for(source: str) -> None:
    blocks, billions, count, width = PUBLISHED[source]
    found = inventory(source)
    crossing = [site for site in found.sites if site.kind == "cross-attention"]
    assert round(found.parameters / 1e9, 2) == pytest.approx(billions, abs=0.011)
    assert 1 + max(site.block for site in found.sites if site.kind != "temporal") == blocks
    assert (len(crossing), crossing[0].inputs) == (count, width)
    assert sizes(found.defaults) == MADE_FOR.get(source, sizes(found.family.defaults))


def test_a_loaded_model_takes_the_defaults_that_its_own_configuration_tells() -> None:
    """Wan 2.2 5B beside its family's others: at their rate it would play half as slowly again."""
    pipeline = tiny_model("wan").pipeline
    family = family_of("WanPipeline")
    assert wrap_pipeline(pipeline, "a/b").defaults == family.defaults
    pipeline.transformer.register_to_config(in_channels=48)
    assert sizes(wrap_pipeline(pipeline, "a/b").defaults) == (121, 704, 1280, 24, 50)


@pytest.mark.parametrize(
    ("pipeline", "source", "made_for"),
    [
        ("SkyReelsV2Pipeline", "Skywork/SkyReels-V2-T2V-14B-720P-Diffusers", (121, 720, 1280, 24, 50)),
        ("SkyReelsV2Pipeline", "720P/SkyReels-V2-T2V-14B-540P-Diffusers", (97, 544, 960, 24, 50)),
        ("WanImageToVideoPipeline", "/models/Wan2.1-I2V-14B-720P-Diffusers", (81, 720, 1280, 16, 50)),
        ("TextToVideoSDPipeline", "ali-vilab/text-to-video-ms-1.7b", (16, 256, 256, 8, 50)),
    ],
)
def test_where_no_configuration_tells_the_published_name_does(
    pipeline: str, source: str, made_for: tuple[float, ...]
) -> None:
    assert sizes(family_of(pipeline).defaults_of(source, lambda *_: None)) == made_for


def test_what_a_pipeline_rounds_is_said() -> None:
    model = tiny_model("wan")
    settings = SamplingSettings(frames=8, steps=1)
    (note,) = size_note(model, settings, rc.generate(model, "a robot", settings))
    assert note == "8 frames asked, 9 made: the model's pipeline rounds it."
    settings = SamplingSettings(frames=5, steps=1)
    assert size_note(model, settings, rc.generate(model, "a robot", settings)) == ()


def test_of_a_model_that_is_not_in_the_table_the_configurations_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model("wan-2.2").pipeline.save_pretrained(tmp_path)
    fetched = []

    def download(_repository: str, file: str, *, revision: str | None) -> str:
        fetched.append(file)
        return str(tmp_path / file)

    monkeypatch.setattr(hub_files, "hf_hub_download", download)
    found = inventory("someone/tuned-wan")
    assert found.sites == inventory(str(tmp_path)).sites
    assert fetched == ["model_index.json", "transformer/config.json", "transformer_2/config.json"]

    def refuse(*_: object, **__: object) -> str:
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(hub_files, "hf_hub_download", refuse)
    with pytest.raises(
        ModelError, match=r"'someone/tuned-wan' cannot be loaded: .*the hub cannot be reached"
    ):
        inventory("someone/tuned-wan")
    with pytest.raises(ModelError, match="is no folder, and no hub id"):
        inventory("../../etc/passwd")


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_counted_in_the_order_they_run(name: str) -> None:
    """UNets register their middle after their end: names alone would count wrongly."""
    model = tiny_model(name)
    expected = [s.name for s in model.sites if s.kind == "cross-attention"]
    ran: list[str] = []
    hooks = [model.layers[n].register_forward_pre_hook(lambda _m, _x, n=n: ran.append(n)) for n in expected]
    try:
        rc.generate(model, "a robot", rc.SamplingSettings(guidance_scale=1.0))
    finally:
        for hook in hooks:
            hook.remove()
    assert list(dict.fromkeys(ran)) == expected


def test_each_expert_of_two_is_read_at_its_own_steps() -> None:
    model = tiny_model("wan-2.2")
    model = replace(model, defaults=replace(model.defaults, steps=8))
    seen = rc.capture(model, CONCEPT, rc.CaptureSettings(kinds=("cross-attention",), timesteps=2))
    assert {site.name.partition(".")[0] for site in seen.sites} == {"transformer", "transformer_2"}
    called = []
    with watch_calls(model.denoisers, lambda module, _a: called.append(module is model.denoisers[0])):
        rc.generate(model, "a robot")
    assert called == sorted(called, reverse=True), "the first expert runs first"
    assert {True, False} == set(called)


def test_text_and_video_rows_are_never_mixed() -> None:
    """In joint blocks the text lies before or behind the video; some tell the frames by places alone."""
    for name in ("cogvideox", "hunyuan", "ltx-condition"):
        model = tiny_model(name)
        seen = rc.capture(
            model, CONCEPT, rc.CaptureSettings(kinds=("feed-forward",), pool="frame", timesteps=1)
        )
        frames = {len(s.unsafe) / len(CONCEPT.pairs) for s in seen.sites.values()}
        assert frames == {2.0}, "5 frames are 2 latent frames, one row each"


def test_a_first_image_before_the_text_is_no_row_of_the_prompt() -> None:
    model = tiny_model("motif-i2v")
    site = next(site for site in model.sites if site.kind == "text")
    with torch.inference_mode():
        call = begin(model, ["a red car"], None)
        rows = listen(call, model, [site])[site]
    image = rows.shape[1] - call.arguments["encoder_hidden_states"].shape[1]
    own = valid_rows(model, call, (1, rows.shape[1]), [[1, 2, 3]])
    assert image == 4
    assert own[0].nonzero().flatten().tolist() == [4, 5, 6]


def test_blocks_that_see_no_text_are_no_sites_and_layers_may_be_missing() -> None:
    model = tiny_model("motif")
    blocks = model.denoisers[0]
    assert len(blocks.transformer_blocks) + len(blocks.single_transformer_blocks) == 5
    assert model.block_count == 4, "the last is the decoder's"
    shared = [site.block for site in model.sites if "cross_attn" in site.name]
    assert shared == [2, 2, 3, 3], "only the single blocks have it here"


def test_a_piece_that_sees_none_and_one_that_sees_the_first_are_both_read() -> None:
    model = tiny_model("helios")
    sites = [site for site in model.sites if site.kind == "feed-forward"]
    settings = CaptureSettings(kinds=("feed-forward",), timesteps=1, pool="frame")
    with torch.inference_mode():
        clip = plan(model, sites, settings)
        calls = record(model, ["a robot"], [0], clip.sampling, 0, None)
        sees = [bool(call.arguments["latents_history_short"].any()) for call in calls]
        assert sees == [False, False, True, True]
        assert [sees[i] for i in clip.chosen] == [False, True]
        rows = listen(calls[2], model, sites[:1])[sites[0]]
    shape = call_shape(model.family, model.denoisers[0], calls[2].arguments, 1)
    piece = video_rows(rows, "piece-last", shape)
    assert piece.shape[:3] == (1, 2, 1) and rows.shape[1] > 2, "rows of earlier pieces lie before it"
    assert torch.equal(piece.flatten(1, 2), rows[:, -2:])
    seen = rc.capture(model, CONCEPT, settings)
    assert {len(s.unsafe) for s in seen.sites.values()} == {len(CONCEPT.pairs) * 2 * 2}, "pieces and frames"


@pytest.mark.parametrize("name", NAMES)
def test_the_presets_for_any_model_have_sites_in_every_family(name: str) -> None:
    model, preset = tiny_model(name), load_preset("real-violence")
    found = preset_recipe(preset, model).capture
    assert select(model.sites, found.kinds, found.layers)
    kinds = {site.kind for site in model.sites}
    text = tuple(kind for kind in ("text", "sound-text") if kind in kinds)
    assert found.kinds == (text or ("text-entry",))


def test_a_kind_that_is_asked_for_is_never_replaced() -> None:
    model, preset = tiny_model("cogvideox"), load_preset("real-violence")
    with pytest.raises(SiteError, match="No site is left for text at layers any; this model has text-entry"):
        rc.capture(model, CONCEPT, rc.CaptureSettings(kinds=("text",)))
    wanted = {**preset.recommended, "sites": ("text",)}
    assert preset_recipe(replace(preset, by_model={model.name: wanted}), model).capture.kinds == ("text",)


def test_a_model_that_is_only_a_base_is_marked_wherever_it_is_printed() -> None:
    for arguments in (["models"], ["models", "show", "emilianJR/epiCRealism"]):
        assert "a base without motion" in CliRunner().invoke(app, arguments).stdout


def _video_pipelines() -> set[str]:
    """What diffusers exports that returns frames or says video: read from its sources, importing none."""
    found = set()
    for path in (Path(diffusers.__file__).parent / "pipelines").rglob("pipeline_*.py"):
        text = path.read_text(encoding="utf-8")
        makes = re.search(r"Output\(\s*(frames|video)=", text) is not None
        kinds = re.findall(r"^class (\w+Pipeline)\(", text, re.MULTILINE)
        found |= {kind for kind in kinds if makes or "Video" in kind}
    return found & set(dir(diffusers))


def test_every_video_pipeline_of_diffusers_is_supported_or_left_out_with_a_reason() -> None:
    supported = [kind for family in FAMILIES for kind in family.pipelines]
    video = _video_pipelines()
    assert {"WanPipeline", "LattePipeline"} <= video and "FluxPipeline" not in video
    assert sorted(video - set(supported) - set(LEFT_OUT)) == []
    assert not set(supported) & set(LEFT_OUT)
    assert set(LEFT_OUT) <= set(dir(diffusers))


def test_what_is_left_out_says_why() -> None:
    for kind, why in LEFT_OUT.items():
        with pytest.raises(ModelError, match="left out"):
            family_of(kind)
        assert why.endswith(".")
    with pytest.raises(ModelError, match="FluxPipeline is not supported yet"):
        family_of("FluxPipeline")


def test_capture_and_generation_leave_global_randomness_alone() -> None:
    model = tiny_model("ltx")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    rc.capture(model, CONCEPT)
    rc.generate(model, "a robot")
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", ["unet3d", "wan", "wan-2.2", "skyreels-v2-df-i2v", "latte", "hunyuan"])
def test_text_activations_do_not_depend_on_the_size_of_the_video(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read on the smallest video that the denoiser takes, and are those of full size."""
    model = tiny_model(name)
    kinds = tuple(sorted({site.kind for site in model.sites if model.layouts[site.name] == "text"}))
    settings = CaptureSettings(kinds=kinds)
    sites = [site for site in model.sites if site.kind in kinds]
    with torch.inference_mode():
        size = capturing.smallest_video(model, sites)
    assert (size.width, size.height) == (16, 16)
    small = capturing.capture(model, CONCEPT, settings).sites
    monkeypatch.setattr(capturing, "smallest_video", lambda *_: SamplingSettings(steps=2))
    full = capturing.capture(model, CONCEPT, settings).sites
    for site, rows in full.items():
        assert torch.equal(small[site].unsafe, rows.unsafe) and torch.equal(small[site].neutral, rows.neutral)
