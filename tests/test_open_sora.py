"""Open-Sora: listening inside its own sampler, and editing its module or its checkpoint by layer names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import refusal_core as rc
from refusal_core.errors import InputError, ModelError
from refusal_core.listening import Listener
from refusal_core.models.open_sora import adopt


class Attention(nn.Module):
    def __init__(self, width: int, text: bool = False) -> None:
        super().__init__()
        if text:
            self.q_linear, self.kv_linear = nn.Linear(width, width), nn.Linear(width, 2 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return self.proj(self.qkv(x).chunk(3, -1)[2])
        k, v = self.kv_linear(y).chunk(2, -1)
        weight = (self.q_linear(x) @ k.transpose(1, 2)).softmax(-1)
        return self.proj(weight @ v)


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """STDiT3's block by its names: attn, cross_attn, mlp."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn, self.cross_attn, self.mlp = Attention(width), Attention(width, text=True), Mlp(width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = x + self.attn(x)
        x = x + self.cross_attn(x, y)
        return x + self.mlp(x)


class Stdit3(nn.Module):
    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.spatial_blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.temporal_blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: Tensor, timestep: Tensor, y: Tensor) -> Tensor:
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            x = temporal(spatial(x, y), y)
        return x


FRAMES, TOKENS, WIDTH = 3, 4, 16
TEXTS = {"a dog on fire": 1, "a dog": 2, "a cat on fire": 3, "a cat": 4, "a house": 5}


def sample(model: nn.Module, prompt: str, steps: int = 4) -> Tensor:
    """Open-Sora's way: [conditional, unconditional] in one batch, conditional first."""
    x = torch.randn(1, FRAMES * TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, 5, WIDTH, generator=torch.Generator().manual_seed(TEXTS[prompt]))
    y = torch.cat([text, torch.zeros_like(text)])
    with torch.no_grad():
        for step in range(steps):
            conditional, free = model(torch.cat([x, x]), torch.tensor([step, step]), y).chunk(2)
            x = x - 0.1 * (free + 7.0 * (conditional - free)).tanh()
    return x


@pytest.fixture
def module() -> Stdit3:
    torch.manual_seed(0)
    return Stdit3()


@pytest.fixture
def edit(module: Stdit3) -> rc.edit.Edit:
    pairs = (rc.PromptPair("a dog on fire", "a dog"), rc.PromptPair("a cat on fire", "a cat"))
    listener = Listener(adopt(module), frames=FRAMES, every=2)
    for pair in pairs:
        for side, prompt in (("unsafe", pair.unsafe), ("safe", pair.safe)):
            with listener.listen(side):
                sample(module, prompt)
    with listener.listen("neutral"):
        sample(module, "a house")
    seen = listener.activations(rc.Concept("fire", pairs))
    assert {len(s.unsafe) for s in seen.sites.values()} == {2 * 2 * FRAMES}  # pairs x steps read x frames
    return rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")))


def test_only_the_conditional_rows_are_read(module: Stdit3) -> None:
    seen: list[Tensor] = []
    hook = module.spatial_blocks[0].cross_attn.proj.register_forward_pre_hook(lambda _m, x: seen.append(x[0]))
    listener = Listener(adopt(module), frames=FRAMES, every=4)
    with listener.listen("safe"):
        sample(module, "a dog")
    hook.remove()
    read = listener._rows["safe"][0]["model.spatial_blocks.0.cross_attn.proj"]
    torch.testing.assert_close(read, seen[0][0].unflatten(0, (FRAMES, TOKENS)).mean(1))
    assert not torch.allclose(read, seen[0][1].unflatten(0, (FRAMES, TOKENS)).mean(1))


def test_the_edit_goes_into_the_module_and_out_again(module: Stdit3, edit) -> None:
    before = {k: v.clone() for k, v in module.state_dict().items()}
    original = sample(module, "a dog on fire")
    with rc.applied(adopt(module), edit):
        assert not torch.equal(sample(module, "a dog on fire"), original)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_the_edit_is_baked_into_the_checkpoint(module: Stdit3, edit, tmp_path: Path) -> None:
    (tmp_path / "ckpt").mkdir()
    save_file(module.state_dict(), tmp_path / "ckpt" / "model.safetensors")
    rc.bake(tmp_path / "ckpt", edit, tmp_path / "out")
    baked = load_file(tmp_path / "out" / "model.safetensors")
    with rc.applied(adopt(module), edit):
        assert all(torch.equal(v, baked[k]) for k, v in module.state_dict().items())


def test_both_lists_share_the_paper_s_count_of_layers() -> None:
    with torch.device("meta"):
        model = adopt(Stdit3(1152, 28))
    chosen = [s.name for s in model.sites if s.kind == "cross-attention" and s.block in (16, 17)]
    lists = ("model.spatial_blocks", "model.temporal_blocks")
    assert chosen == [f"{part}.{i}.cross_attn.proj" for part in lists for i in (16, 17)]
    assert model.block_count == 28


def test_without_temporal_blocks_all_of_it_is_there(module: Stdit3, tmp_path: Path) -> None:
    """Open-Sora 1.3 may leave out the temporal list, and then each block sees space and time."""
    del module.temporal_blocks
    module.forward = lambda x, _timestep, y: module.spatial_blocks[1](module.spatial_blocks[0](x, y), y)
    seen = heard(module, sample, ("cross-attention",))
    assert list(named(seen.sites)) == [f"model.spatial_blocks.{i}.cross_attn.proj" for i in (0, 1)]
    edit = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with rc.applied(adopt(module), edit):
        changed = [k for k, v in module.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == [f"spatial_blocks.{i}.cross_attn.proj.weight" for i in (0, 1)]
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_mistakes_are_one_sentence(module: Stdit3) -> None:
    with pytest.raises(ModelError, match="neither spatial_blocks nor double_blocks"):
        adopt(nn.Linear(2, 2))
    listener = Listener(adopt(module), frames=FRAMES)
    with pytest.raises(InputError, match="did not run the model"), listener.listen("safe"):
        pass
    with (
        pytest.raises(InputError, match="rows do not divide"),
        Listener(adopt(module), frames=5).listen("safe"),
    ):
        sample(module, "a dog")
    pairs = (rc.PromptPair("a dog on fire", "a dog"), rc.PromptPair("a cat on fire", "a cat"))
    with pytest.raises(InputError, match="0 unsafe and 0 safe prompts were heard"):
        listener.activations(rc.Concept("fire", pairs))


# --- Open-Sora 2 -------------------------------------------------------------------------------------

HIDDEN, HEADS, TEXT = 32, 4, 5
KINDS = ("cross-attention", "feed-forward", "feed-forward-out")
PAIRS = (rc.PromptPair("a dog on fire", "a dog"), rc.PromptPair("a cat on fire", "a cat"))


@dataclass
class MmditConfig:
    """As Open-Sora's: a dataclass that is no mapping, and that says where its files lay."""

    from_pretrained: str = "/home/me/Open_Sora_v2.safetensors"
    cache_dir: str = "/home/me/.cache"
    hidden_size: int = HIDDEN
    depth: int = 2
    depth_single_blocks: int = 4
    fused_qkv: bool = False


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
    return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class StreamAttention(nn.Module):
    """One stream's queries, keys and values, in one linear or in three as the published model has them."""

    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        if fused:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        if hasattr(self, "qkv"):
            return self.qkv(x).chunk(3, -1)
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


class DoubleBlock(nn.Module):
    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        self.img_attn, self.txt_attn = StreamAttention(width, fused), StreamAttention(width, fused)
        self.img_mlp, self.txt_mlp = (
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in "ab"
        )

    def forward(self, img: Tensor, txt: Tensor) -> tuple[Tensor, Tensor]:
        joint = zip(self.txt_attn.heads(txt), self.img_attn.heads(img), strict=True)
        seen = attend(*(torch.cat(both, 1) for both in joint))
        img = img + self.img_attn.proj(seen[:, txt.shape[1] :])
        txt = txt + self.txt_attn.proj(seen[:, : txt.shape[1]])
        return img + self.img_mlp(img), txt + self.txt_mlp(txt)


class SingleBlock(nn.Module):
    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        self.width, self.fused = width, fused
        if fused:
            self.linear1 = nn.Linear(width, 7 * width)
        else:
            self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
            self.v_mlp = nn.Linear(width, 5 * width)
        self.linear2 = nn.Linear(5 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = (self.linear1,) if self.fused else (self.q_proj, self.k_proj, self.v_mlp)
        q, k, v, mlp = torch.cat([part(x) for part in parts], -1).split(
            [self.width] * 3 + [4 * self.width], -1
        )
        return x + self.linear2(torch.cat([attend(q, k, v), nn.functional.gelu(mlp)], -1))


class Mmdit(nn.Module):
    """MMDiT by its names and proportions: twice as many single blocks, the text before the video in them."""

    def __init__(self, config: MmditConfig) -> None:
        super().__init__()
        self.config, width, fused = config, config.hidden_size, config.fused_qkv
        self.img_in, self.txt_in = nn.Linear(16, width), nn.Linear(16, width)
        self.double_blocks = nn.ModuleList(DoubleBlock(width, fused) for _ in range(config.depth))
        self.single_blocks = nn.ModuleList(
            SingleBlock(width, fused) for _ in range(config.depth_single_blocks)
        )
        self.final_layer = nn.Linear(width, 16)

    def forward(self, img: Tensor, txt: Tensor, timesteps: Tensor) -> Tensor:
        img, txt = self.img_in(img) + timesteps[:, None, None], self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt)
        x = torch.cat([txt, img], 1)
        for block in self.single_blocks:
            x = block(x)
        return self.final_layer(x[:, txt.shape[1] :])


def sample_v2(model: nn.Module, prompt: str, steps: int = 4) -> Tensor:
    """Open-Sora 2's way: [prompt, no text, no text and no image] in one batch, the prompt first."""
    x = torch.randn(1, FRAMES * TOKENS, 16, generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, TEXT, 16, generator=torch.Generator().manual_seed(TEXTS[prompt]))
    free = torch.randn(1, TEXT, 16, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        for step in range(steps):
            time = torch.full((3,), step / steps)
            found = model(torch.cat([x, x, 0.5 * x]), torch.cat([text, free, free]), time)
            conditional, unconditional, imageless = found.chunk(3)
            x = (
                x
                - 0.1
                * (imageless + 3 * (unconditional - imageless) + 7.5 * (conditional - unconditional)).tanh()
            )
    return x


def heard(module: nn.Module, run, kinds: tuple[str, ...]) -> rc.Activations:
    listener = Listener(adopt(module), kinds, frames=FRAMES, every=2)
    for pair in PAIRS:
        for side, prompt in (("unsafe", pair.unsafe), ("safe", pair.safe)):
            with listener.listen(side):
                run(module, prompt)
    return listener.activations(rc.Concept("fire", PAIRS))


def named(by_site) -> dict:
    return {site.name: value for site, value in by_site.items()}


def read_apart(module: nn.Module, layer: str, prompt: str) -> Tensor:
    """Return the rows [steps * frames, H] of the prompt's own video tokens, read without the Listener."""
    inputs: list[Tensor] = []
    hook = module.get_submodule(layer).register_forward_pre_hook(lambda _m, x: inputs.append(x[0].double()))
    sample_v2(module, prompt)
    hook.remove()
    text = TEXT if layer.startswith("single") else 0
    assert {x.shape[:2] for x in inputs} == {(3, text + FRAMES * TOKENS)}
    return torch.cat([x[0, text:].reshape(FRAMES, TOKENS, -1).mean(1) for x in inputs[::2]])


def edited_apart(module: nn.Module, layer: str) -> Tensor:
    """Return W - W r r^T / |r|^2 in float64, r the difference of the means of unsafe and safe rows."""
    unsafe, safe = (
        torch.cat([read_apart(module, layer, getattr(pair, side)) for pair in PAIRS])
        for side in ("unsafe", "safe")
    )
    r, weight = unsafe.mean(0) - safe.mean(0), module.get_submodule(layer).weight.detach().double()
    return weight - torch.outer(weight @ r, r) / r.dot(r)


@pytest.mark.parametrize("fused", [False, True], ids=["published", "fused"])
def test_open_sora_2_is_listened_to_edited_and_baked(tmp_path: Path, fused: bool) -> None:
    torch.manual_seed(0)
    module = Mmdit(MmditConfig(fused_qkv=fused))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    original = sample_v2(module, "a dog on fire")
    seen = heard(module, sample_v2, KINDS)
    layers = [
        f"double_blocks.{i}.{part}" for i in (0, 1) for part in ("img_attn.proj", "img_mlp.0", "img_mlp.2")
    ]
    layers += [f"single_blocks.{i}.linear2" for i in range(4)]
    assert sorted(named(seen.sites)) == sorted(f"model.{layer}" for layer in layers)
    for layer in layers:
        wanted = torch.cat([read_apart(module, layer, pair.unsafe) for pair in PAIRS])
        torch.testing.assert_close(
            named(seen.sites)[f"model.{layer}"].unsafe.double(), wanted, atol=1e-5, rtol=0
        )

    edit = rc.make_edit(rc.estimate(seen, rc.SubspaceSettings(method="rv")), rc.EditSettings(anchor="zero"))
    expected = {f"{layer}.weight": edited_apart(module, layer) for layer in layers}
    with rc.applied(adopt(module), edit):
        edited = {k: v.clone() for k, v in module.state_dict().items()}
        assert not torch.equal(sample_v2(module, "a dog on fire"), original)
    for name, weight in edited.items():
        if name in expected:
            torch.testing.assert_close(weight.double(), expected[name], atol=1e-5, rtol=0)
            assert not torch.allclose(weight, before[name], atol=1e-4)
        else:
            assert torch.equal(weight, before[name]), name
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert torch.equal(sample_v2(module, "a dog on fire"), original)

    # The published folder holds the autoencoder's file beside it.
    (tmp_path / "ckpt").mkdir()
    save_file(module.state_dict(), tmp_path / "ckpt" / "Open_Sora_v2.safetensors")
    save_file({"decoder.conv_in.weight": torch.ones(2, 2)}, tmp_path / "ckpt" / "hunyuan_vae.safetensors")
    assert rc.bake(tmp_path / "ckpt", edit, tmp_path / "out").edited == len(layers)
    baked = load_file(tmp_path / "out" / "Open_Sora_v2.safetensors")
    assert baked.keys() == edited.keys()
    assert all(torch.equal(v, edited[k]) for k, v in baked.items())


def test_where_the_files_of_open_sora_2_lay_does_not_matter_but_what_they_hold_does() -> None:
    own = adopt(Mmdit(MmditConfig())).fingerprint
    assert own.fits(adopt(Mmdit(MmditConfig(from_pretrained="/elsewhere.safetensors"))).fingerprint)
    assert not own.fits(adopt(Mmdit(MmditConfig(fused_qkv=True))).fingerprint)


def test_open_sora_2_has_the_published_count_of_layers() -> None:
    with torch.device("meta"):
        module = Mmdit(MmditConfig(hidden_size=3072, depth=19, depth_single_blocks=38))
    model = adopt(module)
    assert model.block_count == 57
    assert [s.inputs for s in model.sites if s.block == 19] == [3072 + 12288]  # [attention | feed-forward]
    assert adopt(module).lock is model.lock


def test_guidance_of_another_number_of_branches_is_refused() -> None:
    module = Mmdit(MmditConfig())
    listener = Listener(adopt(module), frames=FRAMES)
    with pytest.raises(InputError, match="2 rows are not 3 guidance branches"), listener.listen("safe"):
        module(torch.zeros(2, FRAMES * TOKENS, 16), torch.zeros(2, TEXT, 16), torch.zeros(2))
