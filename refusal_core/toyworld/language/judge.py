"""The judge of the language world: reads which of the looks a clip shows, and its attributes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from refusal_core.models.load import ASSETS
from refusal_core.toyworld.judge import ATTRIBUTES, NO_CONCEPT, JudgeNetwork, ToyJudge, load_judge
from refusal_core.toyworld.language import looks

LOOK_ATTRIBUTES: dict[str, tuple[str, ...]] = ATTRIBUTES | {"concept": (NO_CONCEPT, *looks.LOOKS)}
FILE = ASSETS / "toyworld-judge" / "language.safetensors"


class LookNetwork(JudgeNetwork):
    """As its base, but it looks at every frame, and keeps what is seen anywhere: looks that last a moment."""

    def __init__(self) -> None:
        super().__init__(LOOK_ATTRIBUTES)
        self.body = nn.Sequential(
            nn.Conv3d(3, 24, (1, 4, 4), stride=(1, 4, 4)),
            nn.GELU(),
            nn.Conv3d(24, 48, 3, stride=(1, 2, 2), padding=1),
            nn.GELU(),
            nn.Conv3d(48, 72, 3, stride=(1, 2, 2), padding=1),
            nn.GELU(),
            nn.Conv3d(72, 96, 3, stride=(2, 1, 1), padding=1),
            nn.GELU(),
        )
        self.pool, self.dropout = nn.AdaptiveAvgPool3d((3, 2, 2)), nn.Dropout(0.1)
        self.heads = nn.ModuleDict({name: nn.Linear(96 * 13, len(v)) for name, v in LOOK_ATTRIBUTES.items()})

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """clips [B, 3, T, H, W] in [-1, 1] -> logits [B, classes] of each attribute."""
        seen = self.body(clips)
        features = self.dropout(torch.cat([self.pool(seen).flatten(1), seen.amax((2, 3, 4))], 1))
        return {name: head(features) for name, head in self.heads.items()}


def load_look_judge(path: Path = FILE) -> ToyJudge:
    """Load a judge, the shipped one if none is named; to it a concept is a concept, a neighbour, or none.

    Raises:
        FileError: the file is missing or is not a judge of these looks.
    """
    return load_judge(path, LookNetwork(), looks.CONCEPTS)
