"""Open-Sora: listening inside its own sampler, and editing its module or its checkpoint by layer names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import refusal_core as rc
from refusal_core.errors import InputError, ModelError
from refusal_core.models.open_sora import Listener, adopt


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
