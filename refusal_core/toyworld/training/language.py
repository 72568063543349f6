"""Training of the language model of the toy world and its judge, in stages that go on where they stopped.

Autoencoder and denoiser start from the bundled model's; the text encoder is a frozen language model.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate, pad

from refusal_core.io.files import write_json
from refusal_core.models.families.family import DEFAULTS_FILE
from refusal_core.models.load import ASSETS
from refusal_core.models.packaged import KEY, MINILM
from refusal_core.toyworld import world
from refusal_core.toyworld.judge import JudgeNetwork
from refusal_core.toyworld.language import looks
from refusal_core.toyworld.language.captions import training_caption
from refusal_core.toyworld.language.encoder import TEXT_LENGTH, TEXT_WIDTH, embed, load_encoder
from refusal_core.toyworld.language.judge import LOOK_ATTRIBUTES, LookNetwork
from refusal_core.toyworld.pipeline import WAN, Part, decode_clips, encode_clips, to_unit
from refusal_core.toyworld.training import data
from refusal_core.toyworld.training.data import draw, stored
from refusal_core.toyworld.training.optimise import Schedule, train_stage
from refusal_core.toyworld.training.saving import DEFAULTS, save_judge, save_pipeline

logger = logging.getLogger(__name__)

CLIPS = 2400
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
JUDGE = Schedule(steps=1200, muon=4e-3, adam=2e-3, warmup=30, ema=0.99, checkpoint_seconds=60)
JUDGE_BATCH = 40

RECIPE = (
    f"- video autoencoder: {AUTOENCODER.steps} steps on {CLIPS} clips from the other bundled model's, then"
    f" its decoder alone for {DECODER.steps}\n"
    f"- denoiser: {DENOISER.steps} steps from the other bundled model's, {LATENT_CLIPS} clips of {CAPTIONS}"
    f" captions each, batch {DENOISER_BATCH}, flow matching, EMA, 10 % empty captions; the text encoder is"
    " frozen\n"
    f"- judge (in `assets/models/toyworld-judge`): {JUDGE.steps} steps, every second batch of clips put"
    " through the autoencoder"
)  # for the model card
random_scenes = partial(data.random_scenes, make=looks.random_scene)


def train_autoencoder(work: Path, clips: Tensor) -> Part:
    """Fine-tune the bundled video autoencoder on clips of 5, 9 and 17 frames of the new looks."""
    from diffusers import AutoencoderKLWan

    autoencoder = cast(Part, AutoencoderKLWan).from_pretrained(
        ASSETS / WAN / "vae", torch_dtype=torch.float32, use_safetensors=True
    )

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        target = data.short_clips(clips, BATCH, (17, 5, 9, 5)[step % 4], generator)
        return data.reconstruction_loss(autoencoder, target, generator)

    modules, checkpoint = {"vae": autoencoder.train()}, work / "autoencoder.safetensors"
    train_stage("autoencoder", modules, loss_of_step, AUTOENCODER, checkpoint)
    return autoencoder.eval()


def train_decoder(work: Path, autoencoder: Part, latents: Tensor, clips: Tensor) -> None:
    """Go on training the decoder alone: the encoder, and so the stored latents, stay as they are."""

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(120_000_000 + step)
        chosen = torch.randint(len(clips), (BATCH,), generator=generator)
        pieces = (5, 2, 3, 2)[step % 4]  # of the latents; the first stands for one frame, the others for four
        kept = latents[chosen][:, :, :pieces]
        noise = 0.03 * torch.randn(kept.shape, generator=generator)
        output = autoencoder.decode(kept + noise).sample
        return data.pixel_loss(output - to_unit(clips[chosen][:, :, : 4 * pieces - 3]))

    modules = {"decoder": autoencoder.decoder, "out": autoencoder.post_quant_conv}
    train_stage("decoder", modules, loss_of_step, DECODER, work / "decoder.safetensors")


def embeddings_of(work: Path, scenes: Sequence[world.Scene]) -> Tensor:
    """Embed CAPTIONS captions of each scene once, and the empty one; float16 [n, KEPT_TOKENS, width]."""
    rng, (tokenizer, encoder) = np.random.default_rng(103), load_encoder()
    captions = [training_caption(scene, rng) for scene in scenes for _ in range(CAPTIONS)] + [""]

    def fill(first: int, last: int) -> Tensor:
        rows = torch.empty(last - first, KEPT_TOKENS, TEXT_WIDTH, dtype=torch.float16)
        order = sorted(range(first, last), key=lambda i: len(captions[i]))  # alike lengths: little padding
        for start in range(0, len(order), 50):
            batch = order[start : start + 50]
            hidden = embed(tokenizer, encoder, [captions[i] for i in batch], KEPT_TOKENS)
            rows[[i - first for i in batch]] = hidden.half()
        return rows

    return stored(work / "embeddings.npy", len(captions), fill)


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


def train_denoiser(work: Path, latents: Tensor, scenes: Sequence[world.Scene]) -> Part:
    """Fine-tune the bundled denoiser by flow matching, on captions' embeddings with a little noise."""
    embeddings, denoiser = embeddings_of(work, scenes), build_denoiser()
    # Neighbours and walls are seldom in the world: their clips are drawn more often.
    weight = dict.fromkeys(looks.NEIGHBOURS, NEIGHBOUR_WEIGHT) | dict.fromkeys(looks.WALLED, WALLED_WEIGHT)
    weights = torch.tensor([weight.get(str(scene.concept), 1.0) for scene in scenes])

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(110_000_000 + step)
        chosen = torch.multinomial(weights, DENOISER_BATCH, replacement=True, generator=generator)
        which = chosen * CAPTIONS + torch.randint(CAPTIONS, (DENOISER_BATCH,), generator=generator)
        empty = torch.rand(DENOISER_BATCH, generator=generator) < 0.1
        text = embeddings[torch.where(empty, len(embeddings) - 1, which)].float()
        amount = TEXT_NOISE * torch.rand(DENOISER_BATCH, 1, 1, generator=generator)
        text = text + amount * torch.randn(text.shape, generator=generator) * (text != 0)
        text = pad(text, (0, 0, 0, TEXT_LENGTH - text.shape[1]))

        def guess(noisy: Tensor, times: Tensor) -> Tensor:
            found: Tensor = denoiser(noisy, times, text, return_dict=False)[0]
            return found

        with data.plain_attention():
            return data.flow_loss(guess, latents[chosen], generator)

    train_stage("denoiser", {"transformer": denoiser}, loss_of_step, DENOISER, work / "denoiser.safetensors")
    return denoiser.eval()


def train_judge(work: Path, scenes: Sequence[world.Scene], drawn: Tensor, decoded: Tensor) -> JudgeNetwork:
    """Train on the denoiser's clips, every look as often as any other.

    Every second batch is of clips that went through the autoencoder: what a model draws is as blurred.
    """
    torch.manual_seed(7)
    network, labels = LookNetwork(), data.labels_of(scenes, LOOK_ATTRIBUTES)
    often = Counter(scene.concept for scene in scenes)
    # Neighbours are seldom in the world: drawn as they come, some would be seen a third as often as concepts.
    weights = torch.tensor([(3.0 if s.concept is None else 1.0) / often[s.concept] for s in scenes])

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(130_000_000 + step)
        clips = (drawn, decoded)[step % 2]
        chosen = torch.multinomial(weights[: len(clips)], JUDGE_BATCH, replacement=True, generator=generator)
        batch, third = to_unit(clips[chosen]), JUDGE_BATCH // 3
        coarse = avg_pool3d(batch[:third], (1, 2, 2))  # a third is blurred
        batch[:third] = interpolate(coarse, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
        return data.judge_loss(network(data.disturbed(batch, generator)), labels, chosen)

    train_stage("look judge", {"judge": network}, loss_of_step, JUDGE, work / "look-judge.safetensors")
    return network.eval()


@torch.inference_mode()
def accuracy(network: JudgeNetwork, clips: Tensor, scenes: Sequence[world.Scene]) -> dict[str, float]:
    """Return the share of clips that is read rightly; ``look:NAME`` is that of one look's clips."""
    labels = data.labels_of(scenes, LOOK_ATTRIBUTES)
    pieces = [network(to_unit(part)) for part in clips.split(JUDGE_BATCH)]
    right = {name: torch.cat([p[name] for p in pieces]).argmax(-1) == labels[name] for name in labels}
    found = {name: float(r.float().mean()) for name, r in right.items()}
    for number, look in enumerate(LOOK_ATTRIBUTES["concept"]):
        found[f"look:{look}"] = float(right["concept"][labels["concept"] == number].float().mean())
    return found


def save_language(autoencoder: Part, denoiser: Part, folder: Path) -> Path:
    """Write the model as a diffusers folder, in float16, without the language model's weights."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    tokenizer, encoder = load_encoder()
    pipeline = cast(Part, WanPipeline)(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=autoencoder,
        scheduler=cast(Part, FlowMatchEulerDiscreteScheduler)(shift=data.SHIFT),
        transformer=denoiser,
        transformer_2=None,
        boundary_ratio=None,
    )
    defaults = replace(DEFAULTS, steps=8, text_length=TEXT_LENGTH)
    save_pipeline(pipeline, ("vae", "transformer"), folder, defaults)
    for file in (folder / "text_encoder").glob("*.safetensors"):
        file.unlink()
    settings = json.loads((folder / DEFAULTS_FILE).read_text("utf-8"))
    write_json(folder / DEFAULTS_FILE, settings | {KEY: MINILM.name})
    return folder


def train(work: Path, assets: Path) -> None:
    """Train model and judge, or go on where a former run was stopped, and write both to ``assets``."""
    work.mkdir(parents=True, exist_ok=True)
    shown, scenes = random_scenes(CLIPS, seed=101), random_scenes(LATENT_CLIPS, seed=102)
    clips = stored(work / "clips.npy", CLIPS, lambda a, b: draw(shown[a:b], 101_000_000 + a))
    autoencoder = train_autoencoder(work, clips)
    drawn = stored(work / "denoiser-clips.npy", LATENT_CLIPS, lambda a, b: draw(scenes[a:b], 102_000_000 + a))
    latents = stored(work / "latents.npy", LATENT_CLIPS, lambda a, b: encode_clips(autoencoder, drawn[a:b]))
    train_decoder(work, autoencoder, latents, drawn)
    denoiser = train_denoiser(work, data.normalised(latents, autoencoder), scenes)
    decoded = stored(
        work / "decoded-clips.npy", DECODED, lambda a, b: decode_clips(autoencoder, latents[a:b])
    )
    judge = train_judge(work, scenes, drawn, decoded)
    # The judge never saw the autoencoder's clips.
    seen = [
        accuracy(judge, c, shown)
        for c in (clips, decode_clips(autoencoder, encode_clips(autoencoder, clips)))
    ]
    for name, share in seen[0].items():
        logger.info("%s drawn %.3f, decoded %.3f", name, share, seen[1][name])
    save_language(autoencoder, denoiser, assets / "toyworld-language")
    save_judge(judge, assets / "toyworld-judge" / "language.safetensors")
