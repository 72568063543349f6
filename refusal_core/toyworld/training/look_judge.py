"""Training of the judge of the language world, on its rendered clips."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, cross_entropy, interpolate

from refusal_core.toyworld import world
from refusal_core.toyworld.judge import NO_CONCEPT, JudgeNetwork
from refusal_core.toyworld.language.judge import FILE, LOOK_ATTRIBUTES, LookNetwork
from refusal_core.toyworld.pipeline import decode_clips, encode_clips, to_unit
from refusal_core.toyworld.training.language import LATENT_CLIPS, decoded_clips, random_scenes, train_decoder
from refusal_core.toyworld.training.optimise import Schedule, train_stage
from refusal_core.toyworld.training.saving import save_judge

JUDGE = Schedule(steps=1200, muon=4e-3, adam=2e-3, warmup=30, ema=0.99, checkpoint_seconds=60)
BATCH = 40


def labels_of(scenes: list[world.Scene]) -> dict[str, Tensor]:
    """Return what the judge should read, as a class of each attribute."""
    return {
        name: torch.tensor([values.index(getattr(scene, name) or NO_CONCEPT) for scene in scenes])
        for name, values in LOOK_ATTRIBUTES.items()
    }


def train_look_judge(work: Path) -> JudgeNetwork:
    """Train on the denoiser's clips, every look as often as any other.

    Every second batch is of clips that went through the autoencoder: what a model draws is as blurred.
    """
    torch.manual_seed(7)
    network, scenes = LookNetwork(), random_scenes(LATENT_CLIPS, seed=102)
    drawn, decoded = np.load(work / "denoiser-clips.npy", mmap_mode="r"), decoded_clips(work).numpy()
    labels = labels_of(scenes)
    often = Counter(scene.concept for scene in scenes)
    # Neighbours are seldom in the world: drawn as they come, some would be seen a third as often as concepts.
    weights = torch.tensor([(3.0 if s.concept is None else 1.0) / often[s.concept] for s in scenes])

    def loss_of_step(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(130_000_000 + step)
        clips = (drawn, decoded)[step % 2]
        chosen = torch.multinomial(weights[: len(clips)], BATCH, replacement=True, generator=generator)
        batch = _worse(to_unit(torch.from_numpy(clips[chosen.numpy()])), generator)
        logits = network(batch)
        losses = [cross_entropy(logits[n], labels[n][chosen], label_smoothing=0.02) for n in LOOK_ATTRIBUTES]
        return torch.stack(losses).sum()

    train_stage("look judge", {"judge": network}, loss_of_step, JUDGE, work / "look-judge.safetensors")
    return network.eval()


def _worse(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Blur a third of the clips, add noise, and change the brightness, as an autoencoder might."""
    third = len(batch) // 3
    coarse = avg_pool3d(batch[:third], (1, 2, 2))
    batch[:third] = interpolate(coarse, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
    amount = 0.12 * torch.rand(len(batch), 1, 1, 1, 1, generator=generator)
    batch = batch + amount * torch.randn(batch.shape, generator=generator)
    return batch * (0.9 + 0.2 * torch.rand(len(batch), 1, 1, 1, 1, generator=generator))


@torch.inference_mode()
def held_out_accuracy(network: JudgeNetwork, clips: Tensor) -> dict[str, float]:
    """Return the share read rightly of the autoencoder's first clips, which the judge never saw.

    ``look:NAME`` is that of one look's clips.

    Args:
        clips: uint8 [n, 3, T, H, W], as drawn or as an autoencoder gives them back.
    """
    labels = labels_of(random_scenes(len(clips), seed=101))
    pieces = [network(to_unit(part)) for part in clips.split(BATCH)]
    right = {name: torch.cat([p[name] for p in pieces]).argmax(-1) == labels[name] for name in labels}
    found = {name: float(r.float().mean()) for name, r in right.items()}
    for number, look in enumerate(LOOK_ATTRIBUTES["concept"]):
        found[f"look:{look}"] = float(right["concept"][labels["concept"] == number].float().mean())
    return found


if __name__ == "__main__":
    import sys

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    judge, autoencoder = train_look_judge(folder), train_decoder(folder)
    save_judge(judge, FILE if len(sys.argv) < 3 else Path(sys.argv[2]))
    held_out = torch.from_numpy(np.load(folder / "clips.npy"))
    again = decode_clips(autoencoder, encode_clips(autoencoder, held_out))
    decoded_shares = held_out_accuracy(judge, again)
    for name, share in held_out_accuracy(judge, held_out).items():
        logging.info("%s drawn %.3f, decoded %.3f", name, share, decoded_shares[name])
