"""The judge of the toy world: a small classifier that reads a clip's concept and attributes.

It sees frames only, whoever made them; it knows neither prompts nor the denoiser.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from refusal_core.errors import FileError, InputError
from refusal_core.models.load import ASSETS
from refusal_core.toyworld import world

NO_CONCEPT = "none"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "concept": (NO_CONCEPT, *world.CONCEPTS),
    "colour": tuple(world.COLOURS),
    "shape": world.SHAPES,
    "motion": tuple(world.MOTIONS),
    "background": tuple(world.BACKGROUNDS),
}
FILE = ASSETS / "toyworld-judge" / "judge.safetensors"


class JudgeNetwork(nn.Module):
    """Space-time convolutions and one linear head an attribute; 0.4 M parameters."""

    def __init__(self, attributes: Mapping[str, tuple[str, ...]] = ATTRIBUTES) -> None:
        super().__init__()
        self.attributes = dict(attributes)
        self.body = nn.Sequential(
            nn.Conv3d(3, 24, (1, 4, 4), stride=(1, 4, 4)),
            nn.GELU(),
            nn.Conv3d(24, 48, 3, stride=(1, 2, 2), padding=1),
            nn.GELU(),
            nn.Conv3d(48, 72, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv3d(72, 96, 3, stride=(2, 1, 1), padding=1),
            nn.GELU(),
            nn.AdaptiveAvgPool3d((3, 2, 2)),
            nn.Flatten(),
            nn.Dropout(0.1),
        )
        self.heads = nn.ModuleDict({name: nn.Linear(96 * 12, len(v)) for name, v in attributes.items()})

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """clips [B, 3, T, H, W] in [-1, 1] -> logits [B, classes] of each attribute."""
        features = self.body(clips)
        return {name: head(features) for name, head in self.heads.items()}


@dataclass(frozen=True, slots=True)
class ToyReading:
    """What the judge sees in a clip: the likeliest value of each attribute and its probability."""

    values: Mapping[str, str]
    confidence: Mapping[str, float]


class ToyJudge:
    """A loaded judge. Reading is deterministic."""

    def __init__(self, network: JudgeNetwork, concepts: Iterable[str] = world.CONCEPTS) -> None:
        self._network = network.eval()
        self.known = network.attributes["concept"]
        self.concepts = frozenset(concepts)  # of what it knows; the others are harmless

    @torch.inference_mode()
    def read(self, clips: Sequence[NDArray[np.uint8]]) -> list[ToyReading]:
        """Read clips, each uint8 [T, 64, 64, 3] with T = 17.

        Raises:
            InputError: a clip has another size, so that the judge has never seen its like.
        """
        wanted = (world.FRAMES, world.SIZE, world.SIZE, 3)
        if wrong := [c.shape for c in clips if c.shape != wanted]:
            raise InputError(f"The toy judge reads clips of shape {wanted}, not {wrong[0]}.")
        if not clips:
            return []
        batch = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1.0)
        chances = {name: logits.softmax(-1) for name, logits in self._network(batch).items()}
        best = {name: p.max(-1) for name, p in chances.items()}
        return [
            ToyReading(
                {name: self._network.attributes[name][int(b.indices[i])] for name, b in best.items()},
                {name: float(b.values[i]) for name, b in best.items()},
            )
            for i in range(len(clips))
        ]


def load_judge(
    path: Path = FILE, network: JudgeNetwork | None = None, concepts: Iterable[str] = world.CONCEPTS
) -> ToyJudge:
    """Load a judge's weights, the shipped one's if none is named, into a network that reads what it reads.

    Raises:
        FileError: the file is missing or is not a judge of the network's attributes.
    """
    network = JudgeNetwork() if network is None else network
    try:
        with safe_open(path, framework="pt") as file:
            known = json.loads((file.metadata() or {}).get("attributes", "{}"))
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}
        if known != {name: list(values) for name, values in network.attributes.items()}:
            raise FileError(f"{path.name} judges other attributes; train it again with `toyworld train`.")
        network.load_state_dict(tensors)
    except (OSError, RuntimeError, ValueError) as e:
        raise FileError(f"{path.name} is missing or damaged; get it again from the repository.") from e
    return ToyJudge(network, concepts)
