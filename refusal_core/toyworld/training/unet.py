"""The toy world on the paper's own kind of backbone: a small ``TextToVideoSDPipeline`` (UNet3D).

Frames go through an image autoencoder one by one, text through a CLIP text model, and the denoiser is a UNet
with temporal layers, as in ModelScope and ZeroScope. Its scheduler is DDIM with velocity targets and a last
step of pure noise, so that few steps suffice.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from refusal_core.toyworld import pipeline, world
from refusal_core.toyworld.pipeline import UNET, Part, build, encode_clips, to_unit
from refusal_core.toyworld.training import data
from refusal_core.toyworld.training.data import draw, random_scenes
from refusal_core.toyworld.training.optimise import Schedule, is_finished, train_stage
from refusal_core.toyworld.training.saving import DEFAULTS, save_pipeline

FRAMES_DRAWN = 1500  # clips whose frames train the autoencoder
AUTOENCODER = Schedule(steps=1800, muon=3e-3, adam=2e-3)
AUTOENCODER_BATCH = 64  # frames
LATENT_CLIPS = 6000
DENOISER = Schedule(steps=3000, muon=2e-3, adam=1e-3, warmup=200, ema=0.999)
DENOISER_BATCH = 16  # clips
RECIPE = (
    f"- image autoencoder: {AUTOENCODER.steps} steps, the frames of {FRAMES_DRAWN} clips, batch"
    f" {AUTOENCODER_BATCH}, Muon and AdamW, L1 + 2 MSE + edges\n"
    f"- denoiser and text encoder: {DENOISER.steps} steps, {LATENT_CLIPS} clips, batch"
    f" {DENOISER_BATCH}, velocity targets, EMA, 10 % empty captions; the weights here were trained in"
    " two goes: the rate had fallen to its end at step 1500 and was raised again for the rest\n"
    "- judge: the same as of toyworld-wan, which never saw this model's autoencoder"
)  # for the model card


def train_autoencoder(work: Path) -> Part:
    """Train the image autoencoder on single frames."""
    torch.manual_seed(11)
    autoencoder = build(UNET, "vae")
    checkpoint = work / "unet-autoencoder.safetensors"
    count = 0 if is_finished(checkpoint, AUTOENCODER) else FRAMES_DRAWN
    frames = draw(random_scenes(count, seed=11), 11_000_000).permute(0, 2, 1, 3, 4).flatten(0, 1)

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(30_000_000 + step)
        target = to_unit(frames[torch.randint(len(frames), (AUTOENCODER_BATCH,), generator=generator)])
        return data.reconstruction_loss(autoencoder, target, generator)

    train_stage("image autoencoder", {"vae": autoencoder}, loss_of_step, AUTOENCODER, checkpoint)
    return autoencoder


def train_denoiser(autoencoder: Part, work: Path) -> dict[str, Part]:
    """Train the denoiser and the text model together on velocities v = a noise - s x_0.

    Sets the autoencoder's scale, so that latents have unit spread. Text embeddings come without a mask, as
    the pipeline makes them.
    """
    scenes = random_scenes(LATENT_CLIPS, seed=12)

    def encode(first: int, last: int) -> Tensor:
        frames = draw(scenes[first:last], 12_000_000 + first).permute(0, 2, 1, 3, 4).flatten(0, 1)
        return encode_clips(autoencoder, frames).unflatten(0, (-1, world.FRAMES)).transpose(1, 2).half()

    latents = data.stored(work / "unet-latents.npy", LATENT_CLIPS, encode)
    scale = 1.0 / float(latents.float().std())
    autoencoder.register_to_config(scaling_factor=scale)
    latents = latents * scale
    torch.manual_seed(13)
    tokenizer, scheduler = pipeline.build_tokenizer(), build(UNET, "scheduler")
    text_encoder, unet = build(UNET, "text_encoder"), build(UNET, "unet")

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(40_000_000 + step)
        chosen = torch.randint(len(latents), (DENOISER_BATCH,), generator=generator)
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(scheduler.config.num_train_timesteps, (DENOISER_BATCH,), generator=generator)
        captions = data.random_captions(scenes, chosen, step)
        with data.mixed_precision(), data.plain_attention():
            text = text_encoder(pipeline.tokens(tokenizer, captions).input_ids)[0]
            guess = unet(scheduler.add_noise(clean, noise, times), times, text, return_dict=False)[0]
        return (guess.float() - scheduler.get_velocity(clean, noise, times)).square().mean()

    # Without dropout: nothing is learned by heart from clips so many, and it costs a tenth of a step.
    modules = {"unet": unet.eval(), "text": text_encoder.eval()}
    train_stage("unet", modules, loss_of_step, DENOISER, work / "unet-denoiser.safetensors")
    return {"text_encoder": text_encoder, "unet": unet}


def train(work: Path, assets: Path) -> None:
    """Train the UNet3D toy model, or go on where a former run was stopped, and write it to ``assets``."""
    work.mkdir(parents=True, exist_ok=True)
    autoencoder = train_autoencoder(work).eval()
    built = pipeline.assemble(UNET, vae=autoencoder, **train_denoiser(autoencoder, work))
    save_pipeline(built, ("vae", "unet"), assets / UNET, replace(DEFAULTS, steps=10))
