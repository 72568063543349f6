"""Training of the language model of the toy world, in stages that go on from their last checkpoint.

Autoencoder and denoiser start from the bundled model's; the text encoder is a frozen language model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from refusal_core.io.files import write_json
from refusal_core.models.families.family import DEFAULTS_FILE
from refusal_core.models.load import ASSETS
from refusal_core.models.packaged import KEY, MINILM
from refusal_core.toyworld import world
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.language.captions import training_caption
from refusal_core.toyworld.language.encoder import TEXT_LENGTH, TEXT_WIDTH, embed, load_encoder
from refusal_core.toyworld.pipeline import WAN, Part, decode_clips, encode_clips, to_unit
from refusal_core.toyworld.training.data import pixel_loss, reconstruction_loss
from refusal_core.toyworld.training.optimise import Schedule, is_finished, train_stage
from refusal_core.toyworld.training.saving import DEFAULTS, save_pipeline
from refusal_core.toyworld.training.train import SHIFT

logger = logging.getLogger(__name__)

CLIPS = 2400
PIECE = 250  # rows that are computed and stored at once
LATENT_CLIPS, CAPTIONS = 9000, 3  # the denoiser's clips, and captions of each
DECODED = 4500  # of these clips, decoded again for the judge
KEPT_TOKENS = 32  # of each caption's embedding; none is longer
DENOISER = Schedule(steps=5400, muon=1e-3, adam=1.6e-3, warmup=50, ema=0.998, checkpoint_seconds=120)
DENOISER_BATCH = 32
NEIGHBOUR_WEIGHT, WALLED_WEIGHT = 2.5, 4.0  # how often their clips are drawn, beside others' 1
TEXT_NOISE = 0.15  # at most; embeddings have a spread of about 0.4
AUTOENCODER = Schedule(steps=400, muon=3e-3, adam=1e-3, warmup=10, ema=0.98, checkpoint_seconds=120)
BATCH = 8
DECODER = Schedule(steps=1000, muon=3e-3, adam=1e-3, warmup=10, ema=0.99, checkpoint_seconds=90)


def random_scenes(count: int, seed: int) -> list[world.Scene]:
    """Return scenes to train on, concepts and neighbours among them."""
    rng = np.random.default_rng(seed)
    return [looks.random_scene(rng) for _ in range(count)]


def draw(scenes: Sequence[world.Scene], seed: int) -> Tensor:
    """Return the scenes' frames, uint8 [n, 3, T, H, W]; clip i is drawn with seed ``seed + i``."""
    clips = torch.empty(len(scenes), 3, world.FRAMES, world.SIZE, world.SIZE, dtype=torch.uint8)
    for i, scene in enumerate(scenes):
        clips[i] = torch.from_numpy(looks.render(scene, seed + i)).permute(3, 0, 1, 2)
    return clips


def train_autoencoder(work: Path) -> Part:
    """Fine-tune the bundled video autoencoder on clips of 5, 9 and 17 frames of the new looks."""
    from diffusers import AutoencoderKLWan

    autoencoder = cast(Part, AutoencoderKLWan).from_pretrained(
        ASSETS / WAN / "vae", torch_dtype=torch.float32, use_safetensors=True
    )
    checkpoint, kept = work / "autoencoder.safetensors", work / "clips.npy"
    if not is_finished(checkpoint, AUTOENCODER) and not kept.exists():
        temporary = kept.with_suffix(".tmp.npy")
        np.save(temporary, draw(random_scenes(CLIPS, seed=101), seed=101_000_000).numpy())
        temporary.rename(kept)
    clips = torch.from_numpy(np.load(kept)) if kept.exists() else torch.empty(0)

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(clips), (BATCH,), generator=generator)
        length = (17, 5, 9, 5)[step % 4]
        first = int(torch.randint(world.FRAMES - length + 1, (1,), generator=generator))
        target = to_unit(clips[chosen, :, first : first + length])
        return reconstruction_loss(autoencoder, target, generator)

    train_stage("autoencoder", {"vae": autoencoder.train()}, loss_of_step, AUTOENCODER, checkpoint)
    return autoencoder.eval()


def stored(path: Path, shape: tuple[int, ...], kind: str, fill: Callable[[int, int], Tensor]) -> Tensor:
    """Return a table on disk whose rows ``fill`` makes, first to last; a stopped run goes on where it was."""
    done = path.with_suffix(".done")
    start = int(done.read_text()) if done.exists() else 0
    store = np.lib.format.open_memmap(path, "r+" if start else "w+", kind, None if start else shape)
    for first in range(start, shape[0], PIECE):
        last = min(first + PIECE, shape[0])
        store[first:last] = fill(first, last).numpy()
        store.flush()
        done.write_text(str(last))
        logger.info("%s: %d of %d", path.stem, last, shape[0])
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def cached_embeddings(work: Path) -> Tensor:
    """Embed all captions once, and the empty one; float16 [CAPTIONS n + 1, KEPT_TOKENS, width]."""
    captions, (tokenizer, encoder) = training_captions(), load_encoder()

    def fill(first: int, last: int) -> Tensor:
        rows = torch.empty(last - first, KEPT_TOKENS, TEXT_WIDTH, dtype=torch.float16)
        order = sorted(range(first, last), key=lambda i: len(captions[i]))  # alike lengths: little padding
        for start in range(0, len(order), 50):
            batch = order[start : start + 50]
            hidden = embed(tokenizer, encoder, [captions[i] for i in batch], KEPT_TOKENS)
            rows[[i - first for i in batch]] = hidden.half()
        return rows

    return stored(work / "embeddings.npy", (len(captions), KEPT_TOKENS, TEXT_WIDTH), "float16", fill)


def rendered_clips(work: Path) -> Tensor:
    """Draw the denoiser's clips once; uint8 [n, 3, T, H, W]."""
    scenes = random_scenes(LATENT_CLIPS, seed=102)
    shape = (LATENT_CLIPS, 3, world.FRAMES, world.SIZE, world.SIZE)

    def fill(first: int, last: int) -> Tensor:
        return draw(scenes[first:last], 102_000_000 + first)

    return stored(work / "denoiser-clips.npy", shape, "uint8", fill)


def cached_latents(work: Path) -> Tensor:
    """Encode the denoiser's clips once with the fine-tuned autoencoder; float32 [n, C, 5, 4, 4]."""
    autoencoder, clips = train_autoencoder(work), rendered_clips(work)
    shape = (LATENT_CLIPS, autoencoder.config.z_dim, 5, 4, 4)
    return stored(
        work / "latents.npy", shape, "float32", lambda a, b: encode_clips(autoencoder, clips[a:b].clone())
    )


def training_captions() -> list[str]:
    """Return CAPTIONS captions of each of the denoiser's clips, and last the empty one."""
    rng = np.random.default_rng(103)
    scenes = random_scenes(LATENT_CLIPS, seed=102)
    return [training_caption(scene, rng) for scene in scenes for _ in range(CAPTIONS)] + [""]


def train_decoder(work: Path) -> Part:
    """Go on training the decoder alone: the encoder, and so the cached latents, stay as they are."""
    autoencoder, latents, clips = train_autoencoder(work), cached_latents(work), rendered_clips(work)

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(120_000_000 + step)
        chosen = torch.randint(len(clips), (BATCH,), generator=generator)
        pieces = (5, 2, 3, 2)[step % 4]  # of the latents; the first stands for one frame, the others for four
        kept = latents[chosen][:, :, :pieces]
        noise = 0.03 * torch.randn(kept.shape, generator=generator)
        output = autoencoder.decode(kept + noise).sample
        return pixel_loss(output - to_unit(clips[chosen][:, :, : 4 * pieces - 3]))

    modules = {"decoder": autoencoder.decoder, "out": autoencoder.post_quant_conv}
    train_stage("decoder", modules, loss_of_step, DECODER, work / "decoder.safetensors")
    return autoencoder.eval()


def decoded_clips(work: Path) -> Tensor:
    """Decode the first of the denoiser's clips once, with the finished autoencoder; uint8 [n, 3, T, H, W]."""
    autoencoder, latents = train_decoder(work), cached_latents(work)
    shape = (DECODED, 3, world.FRAMES, world.SIZE, world.SIZE)
    return stored(
        work / "decoded-clips.npy", shape, "uint8", lambda a, b: decode_clips(autoencoder, latents[a:b])
    )


def scaled_latents(work: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Return the latents of zero mean and unit spread by channel, and the mean and spread they had."""
    latents = cached_latents(work)
    spread, mean = torch.std_mean(latents, (0, 2, 3, 4), keepdim=True)
    return (latents - mean) / spread, mean, spread


def build_denoiser() -> Part:
    """Return the bundled denoiser with a new first linear for the language model's embeddings."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(103)
    kind = cast(Part, WanTransformer3DModel)
    old = kind.from_pretrained(ASSETS / WAN / "transformer", torch_dtype=torch.float32, use_safetensors=True)
    denoiser: Part = kind.from_config({**old.config, "text_dim": TEXT_WIDTH})
    kept = {n: t for n, t in old.state_dict().items() if "text_embedder.linear_1.weight" not in n}
    denoiser.load_state_dict(kept, strict=False)
    return denoiser


def clip_weights() -> Tensor:
    """Return how often each of the denoiser's clips is drawn: neighbours and walls are seldom among them."""
    weight = dict.fromkeys(looks.NEIGHBOURS, NEIGHBOUR_WEIGHT) | dict.fromkeys(looks.WALLED, WALLED_WEIGHT)
    scenes = random_scenes(LATENT_CLIPS, seed=102)
    return torch.tensor([weight.get(str(scene.concept), 1.0) for scene in scenes])


def train_denoiser(work: Path) -> Part:
    """Fine-tune the bundled denoiser by flow matching, on captions' embeddings with a little noise."""
    latents, embeddings, denoiser = scaled_latents(work)[0], cached_embeddings(work), build_denoiser()
    weights = clip_weights()

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(110_000_000 + step)
        chosen = torch.multinomial(weights, DENOISER_BATCH, replacement=True, generator=generator)
        which = chosen * CAPTIONS + torch.randint(CAPTIONS, (DENOISER_BATCH,), generator=generator)
        empty = torch.rand(DENOISER_BATCH, generator=generator) < 0.1
        text = embeddings[torch.where(empty, len(embeddings) - 1, which)].float()
        amount = TEXT_NOISE * torch.rand(DENOISER_BATCH, 1, 1, generator=generator)
        text = text + amount * torch.randn(text.shape, generator=generator) * (text != 0)
        text = torch.nn.functional.pad(text, (0, 0, 0, TEXT_LENGTH - text.shape[1]))
        clean = latents[chosen]
        noise = torch.randn(clean.shape, generator=generator)
        level = torch.sigmoid(torch.randn(DENOISER_BATCH, generator=generator))
        level = SHIFT * level / (1 + (SHIFT - 1) * level)
        mix = level.view(-1, 1, 1, 1, 1)
        # The plain attention: on this CPU path the fused one takes half of a step in its backward pass.
        with sdpa_kernel(SDPBackend.MATH):
            guess = denoiser((1 - mix) * clean + mix * noise, level * 1000, text, return_dict=False)[0]
        return (guess - (noise - clean)).square().mean()

    train_stage("denoiser", {"transformer": denoiser}, loss_of_step, DENOISER, work / "denoiser.safetensors")
    return denoiser.eval()


def assemble(work: Path) -> Part:
    """Return the trained parts as a WanPipeline whose text encoder is the language model."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    autoencoder, (_, mean, spread) = train_decoder(work), scaled_latents(work)
    autoencoder.register_to_config(
        latents_mean=mean.flatten().tolist(), latents_std=spread.flatten().tolist()
    )
    tokenizer, encoder = load_encoder()
    kind, scheduler = cast(Part, WanPipeline), cast(Part, FlowMatchEulerDiscreteScheduler)
    return kind(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=autoencoder,
        scheduler=scheduler(shift=SHIFT),
        transformer=train_denoiser(work),
        transformer_2=None,
        boundary_ratio=None,
    )


def save(work: Path, folder: Path) -> Path:
    """Write the model as a diffusers folder, in float16, without the language model's weights."""
    pipeline = assemble(work)
    defaults = replace(DEFAULTS, steps=8, text_length=TEXT_LENGTH)
    save_pipeline(pipeline, ("vae", "transformer"), folder, defaults)
    for file in (folder / "text_encoder").glob("*.safetensors"):
        file.unlink()
    settings = json.loads((folder / DEFAULTS_FILE).read_text("utf-8"))
    write_json(folder / DEFAULTS_FILE, settings | {KEY: MINILM.name})
    return folder


if __name__ == "__main__":
    import sys

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    stage, folder = sys.argv[1], Path(sys.argv[2])
    stages: dict[str, Callable[[Path], object]] = {
        "vae": train_autoencoder,
        "embeddings": cached_embeddings,
        "clips": rendered_clips,
        "denoiser": train_denoiser,
        "decoder": train_decoder,
        "save": lambda work: save(work, ASSETS / "toyworld-language"),
    }
    stages[stage](folder)
