"""Training of the bundled toy model, in stages that go on from their last checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from refusal_core.toyworld import world
from refusal_core.toyworld.judge import ATTRIBUTES, NO_CONCEPT, JudgeNetwork
from refusal_core.toyworld.pipeline import (
    build_autoencoder,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    encode_text,
)
from refusal_core.toyworld.training.optimise import (
    Schedule,
    is_finished,
    load_checkpoint,
    save_checkpoint,
    train_stage,
)
from refusal_core.toyworld.training.release import save_judge, save_model

logger = logging.getLogger(__name__)

CLIPS = 8000  # rendered once; 0.2 MB each in memory
AUTOENCODER = Schedule(steps=3800, muon=5e-3, adam=2e-3)
BATCH = 16
LATENT_CLIPS = 16_000
DENOISER = Schedule(steps=3200, muon=2e-3, adam=1.5e-3, warmup=200, ema=0.9995)
DENOISER_BATCH = 64
SHIFT = 2.0  # of the scheduler; training draws noise levels the same way
JUDGE_CLIPS = 6000
JUDGE = Schedule(steps=1500, muon=1e-3, adam=1e-3)


def random_scenes(count: int, seed: int) -> list[world.Scene]:
    """Return scenes to train on, concepts among them."""
    rng = np.random.default_rng(seed)
    return [world.random_scene(rng) for _ in range(count)]


def draw(scenes: Sequence[world.Scene], seed: int) -> Tensor:
    """Return the scenes' frames, uint8 [n, 3, T, H, W]; clip i is drawn with seed ``seed + i``."""
    clips = torch.empty(len(scenes), 3, world.FRAMES, world.SIZE, world.SIZE, dtype=torch.uint8)
    for i, scene in enumerate(scenes):
        clips[i] = torch.from_numpy(world.render(scene, seed + i)).permute(3, 0, 1, 2)
    return clips


def to_unit(clips: Tensor) -> Tensor:
    """uint8 frames -> float in [-1, 1]."""
    return clips.float().div_(127.5).sub_(1.0)


def use_bfloat16() -> bool:
    """Return whether bfloat16 products are faster here: on CPUs without units for it they are slower."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = left.to(dtype), right.to(dtype)
        a @ b
        start = time.perf_counter()
        for _ in range(5):
            a @ b
        seconds.append(time.perf_counter() - start)
    return seconds[1] < 0.8 * seconds[0]


def reconstruction_loss(output: Tensor, target: Tensor, latents: Tensor) -> Tensor:
    """L1 + 2 MSE + 0.5 L1 of the horizontal and vertical differences + 1e-3 |z|^2."""
    error = output - target
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges + 1e-3 * latents.square().mean()


def train_autoencoder(work: Path) -> torch.nn.Module:
    """Train the video autoencoder on clips of 5, 9 and 17 frames (on 5 alone, 17 would drift)."""
    torch.manual_seed(1)
    autoencoder = build_autoencoder()
    checkpoint = work / "autoencoder.safetensors"
    count = 0 if is_finished(checkpoint, AUTOENCODER) else CLIPS
    clips = draw(random_scenes(count, seed=1), seed=1_000_000)
    reduced = use_bfloat16()

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(clips), (BATCH,), generator=generator)
        length = (17, 5, 17, 9)[step % 4]
        first = int(torch.randint(world.FRAMES - length + 1, (1,), generator=generator))
        target = to_unit(clips[chosen, :, first : first + length])
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            latents = autoencoder.encode(target).latent_dist.mode().float()
            noise = torch.randn(latents.shape, generator=generator)
            # Latent noise in place of sampling the posterior, whose noise stalls the start.
            output = autoencoder.decode(latents + 0.03 * noise).sample.float()
        return reconstruction_loss(output, target, latents)

    train_stage("autoencoder", {"vae": autoencoder}, loss_of_step, AUTOENCODER, checkpoint)
    return autoencoder


def encode_clips(autoencoder: torch.nn.Module, clips: Tensor) -> Tensor:
    """Return latents [n, C, 5, 4, 4] of uint8 clips, not yet scaled."""
    with torch.no_grad():
        return torch.cat([autoencoder.encode(to_unit(part)).latent_dist.mode() for part in clips.split(32)])


def cached_latents(autoencoder: torch.nn.Module, work: Path) -> tuple[list[world.Scene], Tensor]:
    """Encode the denoiser's clips once, keep them in ``work``, and set the latents' mean and spread."""
    scenes = random_scenes(LATENT_CLIPS, seed=2)
    path = work / "latents.safetensors"
    if path.exists():
        latents = load_checkpoint(path)[0]["latents"]
    else:
        pieces = []
        for start in range(0, LATENT_CLIPS, 2000):
            pieces.append(
                encode_clips(autoencoder, draw(scenes[start : start + 2000], seed=2_000_000 + start))
            )
            logger.info("latents: %d of %d clips encoded", start + 2000, LATENT_CLIPS)
        latents = torch.cat(pieces).clone()
        save_checkpoint(path, {"latents": latents}, 0)
    mean, spread = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    autoencoder.register_to_config(latents_mean=mean.tolist(), latents_std=spread.tolist())
    shape = (1, -1, 1, 1, 1)
    return scenes, (latents - mean.view(shape)) / spread.view(shape)


def train_denoiser(autoencoder: torch.nn.Module, work: Path) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Train the denoiser and the text encoder together, by flow matching on the latents.

    x_t = (1 - s) x_0 + s noise, target noise - x_0, time 1000 s; s is logit-normal, shifted as in
    sampling. A tenth of the captions is empty, for classifier-free guidance.
    """
    scenes, latents = cached_latents(autoencoder, work)
    torch.manual_seed(3)
    tokenizer = build_tokenizer()
    text_encoder, transformer = build_text_encoder(len(tokenizer)), build_transformer()
    reduced = use_bfloat16()

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(10_000_000 + step)
        rng = np.random.default_rng(step)
        chosen = torch.randint(len(latents), (DENOISER_BATCH,), generator=generator)
        captions = [
            "" if rng.random() < 0.1 else world.random_caption(scenes[i], rng) for i in chosen.tolist()
        ]
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        level = torch.sigmoid(torch.randn(DENOISER_BATCH, generator=generator))
        level = SHIFT * level / (1 + (SHIFT - 1) * level)
        mix = level.view(-1, 1, 1, 1, 1)
        # The plain attention: on this CPU path the fused one takes half of a step in its backward pass.
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced), sdpa_kernel(SDPBackend.MATH):
            text = encode_text(tokenizer, text_encoder, captions)
            guess = transformer((1 - mix) * clean + mix * noise, level * 1000, text, return_dict=False)[0]
        return (guess.float() - (noise - clean)).square().mean()

    modules = {"transformer": transformer, "text": text_encoder}
    train_stage("denoiser", modules, loss_of_step, DENOISER, work / "denoiser.safetensors")
    return text_encoder, transformer


def train_judge(autoencoder: torch.nn.Module, work: Path) -> JudgeNetwork:
    """Train the judge on rendered clips put through the autoencoder, with latent and pixel noise."""
    torch.manual_seed(4)
    network = JudgeNetwork()
    checkpoint = work / "judge.safetensors"
    count = 0 if is_finished(checkpoint, JUDGE) else JUDGE_CLIPS
    scenes = random_scenes(count, seed=5)
    labels = {
        name: torch.tensor([values.index(_value(scene, name)) for scene in scenes])
        for name, values in ATTRIBUTES.items()
    }
    seen = []
    for start in range(0, count, 500):
        drawn = draw(scenes[start : start + 500], 5_000_000 + start)
        decoded = _reconstruct(autoencoder, drawn, start)
        decoded[::5] = drawn[::5]  # a fifth as drawn, so that the judge reads those too
        seen.append(decoded)
        logger.info("judge: %d of %d clips put through the autoencoder", start + 500, count)
    clips = torch.cat(seen) if seen else torch.empty(0)

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(20_000_000 + step)
        chosen = torch.randint(len(clips), (64,), generator=generator)
        batch = to_unit(clips[chosen])
        amount = 0.12 * torch.rand(64, 1, 1, 1, 1, generator=generator)
        batch = batch + amount * torch.randn(batch.shape, generator=generator)
        batch = batch * (0.9 + 0.2 * torch.rand(64, 1, 1, 1, 1, generator=generator))
        logits = network(batch)
        losses = [
            torch.nn.functional.cross_entropy(logits[name], labels[name][chosen], label_smoothing=0.02)
            for name in ATTRIBUTES
        ]
        return torch.stack(losses).sum()

    train_stage("judge", {"judge": network}, loss_of_step, JUDGE, checkpoint)
    return network.eval()


def _reconstruct(autoencoder: torch.nn.Module, clips: Tensor, seed: int) -> Tensor:
    """Put uint8 clips through the autoencoder, with noise of up to 0.3 spreads on the latents."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor(autoencoder.config.latents_std).view(1, -1, 1, 1, 1)
    latents = encode_clips(autoencoder, clips)
    amount = 0.3 * torch.rand(len(latents), 1, 1, 1, 1, generator=generator)
    latents = latents + amount * spread * torch.randn(latents.shape, generator=generator)
    return decode_clips(autoencoder, latents)


def decode_clips(autoencoder: torch.nn.Module, latents: Tensor) -> Tensor:
    """Return uint8 clips [n, 3, T, H, W] of unscaled latents."""
    with torch.no_grad():
        parts = [autoencoder.decode(part).sample for part in latents.split(32)]
        return torch.cat([p.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8) for p in parts])


def _value(scene: world.Scene, attribute: str) -> str:
    return getattr(scene, attribute) or NO_CONCEPT


def train(work: Path, assets: Path) -> None:
    """Train everything, or go on where a former run was stopped, and write the model to ``assets``.

    ``work`` holds checkpoints and latents (0.3 GB) and may be deleted afterwards.
    """
    work.mkdir(parents=True, exist_ok=True)
    autoencoder = train_autoencoder(work).eval()
    text_encoder, transformer = train_denoiser(autoencoder, work)
    save_judge(train_judge(autoencoder, work), assets / "toyworld-judge" / "judge.safetensors")
    save_model(autoencoder, text_encoder, transformer, assets / "toyworld-wan")


def training_facts() -> dict[str, str]:
    """Return the recipe for the model card."""
    return {
        "name": "toyworld",
        "folder": "toyworld-wan",
        "pipeline": "WanPipeline",
        "option": "",
        "more": "\n    max_sequence_length=24,",
        "recipe": (
            f"- video autoencoder: {AUTOENCODER.steps} steps, {CLIPS} clips, batch {BATCH}, Muon and AdamW,"
            " L1 + 2 MSE + edges\n"
            f"- denoiser and text encoder: {DENOISER.steps} steps, {LATENT_CLIPS} clips, batch"
            f" {DENOISER_BATCH}, flow matching, EMA, 10 % empty captions\n"
            f"- judge (in `assets/models/toyworld-judge`): {JUDGE.steps} steps on {JUDGE_CLIPS} clips put"
            " through the autoencoder, with noise"
        ),
    }
