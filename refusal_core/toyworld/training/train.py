"""Training of the bundled Wan model and its judge, in stages that go on from their last checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from refusal_core.toyworld import pipeline
from refusal_core.toyworld.judge import ATTRIBUTES, JudgeNetwork
from refusal_core.toyworld.pipeline import WAN, Part, build, decode_clips, encode_clips, to_unit
from refusal_core.toyworld.training import data
from refusal_core.toyworld.training.data import draw, random_scenes
from refusal_core.toyworld.training.optimise import Schedule, is_finished, train_stage
from refusal_core.toyworld.training.saving import save_judge, save_pipeline

CLIPS = 8000  # rendered once; 0.2 MB each in memory
AUTOENCODER = Schedule(steps=3800, muon=5e-3, adam=2e-3)
BATCH = 16
LATENT_CLIPS = 16_000
DENOISER = Schedule(steps=3200, muon=2e-3, adam=1.5e-3, warmup=200, ema=0.9995)
DENOISER_BATCH = 64
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
        target = data.short_clips(clips, BATCH, (17, 5, 17, 9)[step % 4], generator)
        return data.reconstruction_loss(autoencoder, target, generator)

    train_stage("autoencoder", {"vae": autoencoder}, loss_of_step, AUTOENCODER, checkpoint)
    return autoencoder


def train_denoiser(autoencoder: Part, work: Path) -> dict[str, Part]:
    """Train the denoiser and the text encoder together, by flow matching on the latents."""
    scenes = random_scenes(LATENT_CLIPS, seed=2)

    def encode(first: int, last: int) -> Tensor:
        return encode_clips(autoencoder, draw(scenes[first:last], 2_000_000 + first))

    latents = data.normalised(data.stored(work / "latents.npy", LATENT_CLIPS, encode), autoencoder)
    torch.manual_seed(3)
    tokenizer = pipeline.build_tokenizer()
    text_encoder, transformer = build(WAN, "text_encoder"), build(WAN, "transformer")

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(10_000_000 + step)
        chosen = torch.randint(len(latents), (DENOISER_BATCH,), generator=generator)
        captions = data.random_captions(scenes, chosen, step)

        def guess(noisy: Tensor, times: Tensor) -> Tensor:
            text = pipeline.encode_text(tokenizer, text_encoder, captions)
            found: Tensor = transformer(noisy, times, text, return_dict=False)[0]
            return found

        with data.mixed_precision(), data.plain_attention():
            return data.flow_loss(guess, latents[chosen], generator)

    modules = {"transformer": transformer, "text": text_encoder}
    train_stage("denoiser", modules, loss_of_step, DENOISER, work / "denoiser.safetensors")
    return {"text_encoder": text_encoder, "transformer": transformer}


def train_judge(autoencoder: Part, work: Path) -> JudgeNetwork:
    """Train the judge on rendered clips put through the autoencoder, with latent and pixel noise.

    A fifth of the clips stays as drawn, so that the judge reads those too.
    """
    torch.manual_seed(4)
    network = JudgeNetwork()
    scenes = random_scenes(JUDGE_CLIPS, seed=5)
    labels = data.labels_of(scenes, ATTRIBUTES)
    spread = torch.tensor(autoencoder.config.latents_std).view(1, -1, 1, 1, 1)

    def decode(first: int, last: int) -> Tensor:
        generator = torch.Generator().manual_seed(first)
        drawn = draw(scenes[first:last], 5_000_000 + first)
        latents = encode_clips(autoencoder, drawn)
        amount = 0.3 * torch.rand(len(latents), 1, 1, 1, 1, generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        decoded = decode_clips(autoencoder, latents + amount * spread * noise)
        decoded[::5] = drawn[::5]
        return decoded

    clips = data.stored(work / "judged-clips.npy", JUDGE_CLIPS, decode)

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(20_000_000 + step)
        chosen = torch.randint(len(clips), (64,), generator=generator)
        logits = network(data.disturbed(to_unit(clips[chosen]), generator))
        return data.judge_loss(logits, labels, chosen)

    train_stage("judge", {"judge": network}, loss_of_step, JUDGE, work / "judge.safetensors")
    return network.eval()


def train(work: Path, assets: Path) -> None:
    """Train everything, or go on where a former run was stopped, and write the model to ``assets``.

    ``work`` holds checkpoints and tables (2 GB) and may be deleted afterwards. The text encoder is saved
    in float32: transformers loads in the dtype on disk, and half precision is slow on a CPU.
    """
    work.mkdir(parents=True, exist_ok=True)
    autoencoder = train_autoencoder(work).eval()
    parts = train_denoiser(autoencoder, work)
    save_judge(train_judge(autoencoder, work), assets / "toyworld-judge" / "judge.safetensors")
    save_pipeline(pipeline.assemble(WAN, vae=autoencoder, **parts), ("vae", "transformer"), assets / WAN)
