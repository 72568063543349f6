"""Training of the bundled Wan model and its judge, in stages that go on from their last checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from refusal_core.toyworld import pipeline, world
from refusal_core.toyworld.judge import ATTRIBUTES, NO_CONCEPT, JudgeNetwork
from refusal_core.toyworld.pipeline import WAN, Part, build, encode_clips, to_unit
from refusal_core.toyworld.training import data
from refusal_core.toyworld.training.data import draw, random_scenes, reconstruction_loss
from refusal_core.toyworld.training.optimise import Schedule, is_finished, train_stage
from refusal_core.toyworld.training.saving import save_judge, save_pipeline

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
RECIPE = (
    f"- video autoencoder: {AUTOENCODER.steps} steps, {CLIPS} clips, batch {BATCH}, Muon and AdamW,"
    " L1 + 2 MSE + edges\n"
    f"- denoiser and text encoder: {DENOISER.steps} steps, {LATENT_CLIPS} clips, batch"
    f" {DENOISER_BATCH}, flow matching, EMA, 10 % empty captions\n"
    f"- judge (in `assets/models/toyworld-judge`): {JUDGE.steps} steps on {JUDGE_CLIPS} clips put"
    " through the autoencoder, with noise"
)  # for the model card


def train_autoencoder(work: Path) -> Part:
    """Train the video autoencoder on clips of 5, 9 and 17 frames (on 5 alone, 17 would drift)."""
    torch.manual_seed(1)
    autoencoder = build(WAN, "vae")
    checkpoint = work / "autoencoder.safetensors"
    count = 0 if is_finished(checkpoint, AUTOENCODER) else CLIPS
    clips = draw(random_scenes(count, seed=1), seed=1_000_000)

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(clips), (BATCH,), generator=generator)
        length = (17, 5, 17, 9)[step % 4]
        first = int(torch.randint(world.FRAMES - length + 1, (1,), generator=generator))
        target = to_unit(clips[chosen, :, first : first + length])
        return reconstruction_loss(autoencoder, target, generator)

    train_stage("autoencoder", {"vae": autoencoder}, loss_of_step, AUTOENCODER, checkpoint)
    return autoencoder


def train_denoiser(autoencoder: Part, work: Path) -> dict[str, Part]:
    """Train the denoiser and the text encoder together, by flow matching on the latents.

    x_t = (1 - s) x_0 + s noise, target noise - x_0, time 1000 s; s is logit-normal, shifted as in sampling.
    Sets the latents' mean and spread in the autoencoder's configuration.
    """
    scenes = random_scenes(LATENT_CLIPS, seed=2)
    latents = data.cached_latents(
        work / "latents.safetensors", scenes, 2_000_000, lambda clips: encode_clips(autoencoder, clips)
    )
    spread, mean = torch.std_mean(latents, (0, 2, 3, 4), keepdim=True)
    autoencoder.register_to_config(
        latents_mean=mean.flatten().tolist(), latents_std=spread.flatten().tolist()
    )
    latents = (latents - mean) / spread
    torch.manual_seed(3)
    tokenizer, text_encoder, transformer = (
        pipeline.build_tokenizer(),
        build(WAN, "text_encoder"),
        build(WAN, "transformer"),
    )

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(10_000_000 + step)
        chosen = torch.randint(len(latents), (DENOISER_BATCH,), generator=generator)
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        level = torch.sigmoid(torch.randn(DENOISER_BATCH, generator=generator))
        level = SHIFT * level / (1 + (SHIFT - 1) * level)
        mix = level.view(-1, 1, 1, 1, 1)
        # The plain attention: on this CPU path the fused one takes half of a step in its backward pass.
        with data.mixed_precision(), sdpa_kernel(SDPBackend.MATH):
            text = pipeline.encode_text(tokenizer, text_encoder, data.random_captions(scenes, chosen, step))
            guess = transformer((1 - mix) * clean + mix * noise, level * 1000, text, return_dict=False)[0]
        return (guess.float() - (noise - clean)).square().mean()

    modules = {"transformer": transformer, "text": text_encoder}
    train_stage("denoiser", modules, loss_of_step, DENOISER, work / "denoiser.safetensors")
    return {"text_encoder": text_encoder, "transformer": transformer}


def train_judge(autoencoder: Part, work: Path) -> JudgeNetwork:
    """Train the judge on rendered clips put through the autoencoder, with latent and pixel noise."""
    torch.manual_seed(4)
    network = JudgeNetwork()
    checkpoint = work / "judge.safetensors"
    scenes = random_scenes(0 if is_finished(checkpoint, JUDGE) else JUDGE_CLIPS, seed=5)
    labels = {
        name: torch.tensor([values.index(getattr(scene, name) or NO_CONCEPT) for scene in scenes])
        for name, values in ATTRIBUTES.items()
    }
    clips = _judged_clips(autoencoder, scenes)

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(20_000_000 + step)
        chosen = torch.randint(len(clips), (64,), generator=generator)
        batch = to_unit(clips[chosen])
        amount = 0.12 * torch.rand(64, 1, 1, 1, 1, generator=generator)
        batch = batch + amount * torch.randn(batch.shape, generator=generator)
        batch = batch * (0.9 + 0.2 * torch.rand(64, 1, 1, 1, 1, generator=generator))
        logits = network(batch)
        losses = [cross_entropy(logits[n], labels[n][chosen], label_smoothing=0.02) for n in ATTRIBUTES]
        return torch.stack(losses).sum()

    train_stage("judge", {"judge": network}, loss_of_step, JUDGE, checkpoint)
    return network.eval()


def _judged_clips(autoencoder: Part, scenes: Sequence[world.Scene]) -> Tensor:
    """Return clips put through the autoencoder, with noise of up to 0.3 spreads on their latents.

    A fifth stays as drawn, so that the judge reads those too.
    """
    spread = torch.tensor(autoencoder.config.latents_std).view(1, -1, 1, 1, 1)
    pieces = [torch.empty(0)]
    for start in range(0, len(scenes), 500):
        generator = torch.Generator().manual_seed(start)
        drawn = draw(scenes[start : start + 500], 5_000_000 + start)
        latents = encode_clips(autoencoder, drawn)
        amount = 0.3 * torch.rand(len(latents), 1, 1, 1, 1, generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        pieces.append(pipeline.decode_clips(autoencoder, latents + amount * spread * noise))
        pieces[-1][::5] = drawn[::5]
        logger.info("judge: %d of %d clips put through the autoencoder", start + 500, len(scenes))
    return torch.cat(pieces[1:] or pieces)


def train(work: Path, assets: Path) -> None:
    """Train everything, or go on where a former run was stopped, and write the model to ``assets``.

    ``work`` holds checkpoints and latents (0.3 GB) and may be deleted afterwards. The text encoder is saved
    in float32: transformers loads in the dtype on disk, and half precision is slow on a CPU.
    """
    work.mkdir(parents=True, exist_ok=True)
    autoencoder = train_autoencoder(work).eval()
    parts = train_denoiser(autoencoder, work)
    save_judge(train_judge(autoencoder, work), assets / "toyworld-judge" / "judge.safetensors")
    save_pipeline(pipeline.assemble(WAN, vae=autoencoder, **parts), ("vae", "transformer"), assets / WAN)
