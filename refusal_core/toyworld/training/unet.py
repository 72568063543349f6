"""The toy world on the paper's own kind of backbone: a small ``TextToVideoSDPipeline`` (UNet3D).

Frames go through an image autoencoder one by one, text through a CLIP text model, and the denoiser is a
UNet with temporal layers, as in ModelScope and ZeroScope.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from refusal_core.toyworld import world
from refusal_core.toyworld.pipeline import TEXT_LENGTH, TEXT_WIDTH, build_tokenizer
from refusal_core.toyworld.training.optimise import (
    Schedule,
    is_finished,
    load_checkpoint,
    save_checkpoint,
    train_stage,
)
from refusal_core.toyworld.training.release import DEFAULTS, save_pipeline
from refusal_core.toyworld.training.train import (
    draw,
    random_scenes,
    reconstruction_loss,
    to_unit,
    use_bfloat16,
)

logger = logging.getLogger(__name__)

LATENT_CHANNELS = 8
FRAMES_DRAWN = 1500  # clips whose frames train the autoencoder
AUTOENCODER = Schedule(steps=1800, muon=3e-3, adam=2e-3)
AUTOENCODER_BATCH = 64  # frames
LATENT_CLIPS = 6000
DENOISER = Schedule(steps=3000, muon=2e-3, adam=1e-3, warmup=200, ema=0.999)
DENOISER_BATCH = 16  # clips
UNET_DEFAULTS = replace(DEFAULTS, steps=10)


def build_scheduler() -> DDIMScheduler:
    """Return DDIM with velocity targets and a last step of pure noise, so that few steps suffice."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
    )


def build_autoencoder() -> AutoencoderKL:
    """Return the image autoencoder: 64x64 pixels to 8x8x8."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=world.SIZE,
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """Return a two-layer CLIP text model, trained together with the denoiser."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def build_unet() -> UNet3DConditionModel:
    """Return the denoiser: two levels, spatial cross-attention and temporal layers."""
    return UNet3DConditionModel(
        sample_size=world.SIZE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(56, 96),
        down_block_types=("CrossAttnDownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "CrossAttnUpBlock3D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
    )


def assemble(
    autoencoder: AutoencoderKL, text_encoder: CLIPTextModel, unet: UNet3DConditionModel
) -> TextToVideoSDPipeline:
    """Put the trained parts together."""
    return TextToVideoSDPipeline(
        vae=autoencoder.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=build_tokenizer(),
        unet=unet.eval(),
        scheduler=build_scheduler(),
    )


def encode_text(
    tokenizer: PreTrainedTokenizerFast, text_encoder: CLIPTextModel, captions: Sequence[str]
) -> Tensor:
    """Return text embeddings [B, TEXT_LENGTH, TEXT_WIDTH] without a mask, as the pipeline makes them."""
    tokens = tokenizer(
        list(captions), padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    )
    return text_encoder(tokens.input_ids)[0]


def train_autoencoder(work: Path) -> AutoencoderKL:
    """Train the image autoencoder on single frames."""
    torch.manual_seed(11)
    autoencoder = build_autoencoder()
    checkpoint = work / "unet-autoencoder.safetensors"
    count = 0 if is_finished(checkpoint, AUTOENCODER) else FRAMES_DRAWN
    frames = draw(random_scenes(count, seed=11), 11_000_000).permute(0, 2, 1, 3, 4).flatten(0, 1)
    reduced = use_bfloat16()

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(30_000_000 + step)
        target = to_unit(frames[torch.randint(len(frames), (AUTOENCODER_BATCH,), generator=generator)])
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            latents = autoencoder.encode(target).latent_dist.mode().float()
            noise = torch.randn(latents.shape, generator=generator)
            output = autoencoder.decode(latents + 0.03 * noise).sample.float()
        return reconstruction_loss(output, target, latents)

    train_stage("image autoencoder", {"vae": autoencoder}, loss_of_step, AUTOENCODER, checkpoint)
    return autoencoder


def cached_latents(autoencoder: AutoencoderKL, work: Path) -> tuple[list[world.Scene], Tensor]:
    """Encode the clips once, [n, C, T, 8, 8] of unit spread, and set the autoencoder's scale."""
    scenes = random_scenes(LATENT_CLIPS, seed=12)
    path = work / "unet-latents.safetensors"
    if not path.exists():
        pieces = []
        for start in range(0, LATENT_CLIPS, 500):
            clips = draw(scenes[start : start + 500], 12_000_000 + start)
            with torch.no_grad():
                frames = clips.permute(0, 2, 1, 3, 4).flatten(0, 1).split(512)
                found = torch.cat([autoencoder.encode(to_unit(f)).latent_dist.mode() for f in frames])
            pieces.append(found.unflatten(0, (len(clips), world.FRAMES)).transpose(1, 2).half())
            logger.info("latents: %d of %d clips encoded", start + 500, LATENT_CLIPS)
        save_checkpoint(path, {"latents": torch.cat(pieces).contiguous()}, 0)
    latents = load_checkpoint(path)[0]["latents"]
    scale = 1.0 / float(latents.float().std())
    autoencoder.register_to_config(scaling_factor=scale)
    return scenes, latents * scale


def train_denoiser(autoencoder: AutoencoderKL, work: Path) -> tuple[CLIPTextModel, UNet3DConditionModel]:
    """Train the denoiser and the text model together on velocities v = a noise - s x_0."""
    scenes, latents = cached_latents(autoencoder, work)
    torch.manual_seed(13)
    tokenizer, scheduler = build_tokenizer(), build_scheduler()
    text_encoder, unet = build_text_encoder(len(tokenizer)), build_unet()
    reduced = use_bfloat16()

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(40_000_000 + step)
        rng = np.random.default_rng(step)
        chosen = torch.randint(len(latents), (DENOISER_BATCH,), generator=generator)
        captions = [
            "" if rng.random() < 0.1 else world.random_caption(scenes[i], rng) for i in chosen.tolist()
        ]
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(scheduler.config.num_train_timesteps, (DENOISER_BATCH,), generator=generator)
        # The plain attention: on this CPU path the fused one takes most of a step in its backward pass.
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced), sdpa_kernel(SDPBackend.MATH):
            text = encode_text(tokenizer, text_encoder, captions)
            guess = unet(scheduler.add_noise(clean, noise, times), times, text, return_dict=False)[0]
        return (guess.float() - scheduler.get_velocity(clean, noise, times)).square().mean()

    # Without dropout: nothing is learned by heart from clips so many, and it costs a tenth of a step.
    modules: dict[str, nn.Module] = {"unet": unet.eval(), "text": text_encoder.eval()}
    train_stage("unet", modules, loss_of_step, DENOISER, work / "unet-denoiser.safetensors")
    return text_encoder, unet


def train_unet(work: Path, assets: Path) -> None:
    """Train the UNet3D toy model, or go on where a former run was stopped, and write it to ``assets``."""
    work.mkdir(parents=True, exist_ok=True)
    autoencoder = train_autoencoder(work).eval()
    text_encoder, unet = train_denoiser(autoencoder, work)
    pipeline = assemble(autoencoder, text_encoder, unet)
    save_pipeline(pipeline, ("vae", "unet"), assets / "toyworld-unet3d", UNET_DEFAULTS)


def training_facts() -> dict[str, str]:
    """Return the recipe for the model card."""
    return {
        "name": "toyworld-unet3d",
        "folder": "toyworld-unet3d",
        "pipeline": "TextToVideoSDPipeline",
        "option": " --family unet3d",
        "more": "",
        "recipe": (
            f"- image autoencoder: {AUTOENCODER.steps} steps, the frames of {FRAMES_DRAWN} clips, batch"
            f" {AUTOENCODER_BATCH}, Muon and AdamW, L1 + 2 MSE + edges\n"
            f"- denoiser and text encoder: {DENOISER.steps} steps, {LATENT_CLIPS} clips, batch"
            f" {DENOISER_BATCH}, velocity targets, EMA, 10 % empty captions; the weights here were trained in"
            " two goes: the rate had fallen to its end at step 1500 and was raised again for the rest\n"
            "- judge: the same as of toyworld-wan, which never saw this model's autoencoder"
        ),
    }
