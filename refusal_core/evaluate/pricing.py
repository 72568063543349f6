"""What a video and an edit cost at published sizes: counted on the meta device, no weights are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from refusal_core.concepts import Preset
from refusal_core.errors import ModelError
from refusal_core.models.inventory import Inventory, build_on_meta, inventory
from refusal_core.models.sites import Site, select
from refusal_core.models.text_encoders import text_encoder_on_meta
from refusal_core.reading.video_side import SHORT_FRAMES, chosen_steps, schedule_steps
from refusal_core.settings import CaptureSettings, SiteKind

PAPER_KIND: SiteKind = "cross-attention"


@dataclass(frozen=True, slots=True)
class Price:
    """Operations in PFLOP, and memory in GB, of one model and one preset."""

    model: str
    frames: int
    height: int
    width: int
    steps: int
    pairs: int
    neutral: int
    video: float  # one guided video, denoiser alone
    edits: Mapping[str, float]  # denoiser alone, by the kind of sites
    text_encoder: float | None  # of all prompts; None: its size is not known
    memory: Mapping[str, float]  # weights in bfloat16, and the rows of each edit

    def table(self) -> list[str]:
        """Return the rows of a table in Markdown: step, PFLOP, videos."""
        video = f"one video: {self.frames} frames of {self.width}x{self.height}, {self.steps} steps"
        rows = [(video, self.video)]
        for kind, pflop in self.edits.items():
            rows += [(f"an edit at {kind} sites", pflop)]
        return [f"| {step} | {_digits(pflop)} | {_digits(pflop / self.video)} |" for step, pflop in rows]

    def plain(self) -> dict[str, object]:
        """Return plain data for JSON; an edit's work also in videos."""
        edits = {
            kind: {
                "pflop": pflop,
                "videos": pflop / self.video,
            }
            for kind, pflop in self.edits.items()
        }
        return {
            "model": self.model,
            "prompts": 2 * self.pairs + self.neutral,
            "video": {
                "pflop": self.video,
                "frames": self.frames,
                "height": self.height,
                "width": self.width,
                "steps": self.steps,
            },
            "edits": edits,
            "text_encoder": {"pflop": self.text_encoder},
            "memory": dict(self.memory),
        }


def price(source: str, preset: Preset, settings: CaptureSettings | None = None) -> Price:
    """Count what a model's video, and an edit at its text sites and at the paper's, cost.

    Args:
        source: a published model or a diffusers folder, as ``inventory`` takes it.
        preset: its prompts are counted.
        settings: size, steps and rows of the capture; its kinds of sites are counted too.

    Raises:
        ModelError: its denoiser takes more than latents, a timestep and text.
    """
    settings = settings or CaptureSettings()
    found = inventory(source)
    family, sizes = found.family, found.family.defaults
    count = _Counter(found)
    full = count.forward(sizes.frames, sizes.height, sizes.width)
    branches = 2 if family.guidance in ("passes", "batched") else 1
    pairs, neutral = len(preset.concept.pairs), len(preset.concept.neutral)
    wanted: list[SiteKind] = [*settings.kinds, "text", PAPER_KIND]
    kinds = dict.fromkeys(k for k in wanted if any(s.kind == k for s in found.sites))
    edits: dict[str, float] = {}
    memory = {"denoiser": 2 * found.parameters / 1e9}
    for kind in kinds:
        chosen = replace(settings, kinds=(kind,))
        of_pairs, of_neutral = count.capture(chosen)
        edits[kind] = pairs * of_pairs + neutral * of_neutral
        if not count.is_text(kind):
            memory[f"rows, {kind}"] = _rows_bytes(found.sites, chosen) / 1e9
    encoder = text_encoder_on_meta(family)
    reading = None
    if encoder is not None:
        memory["text encoder"] = 2 * sum(p.numel() for p in encoder.parameters()) / 1e9
        tokens = torch.empty(1, sizes.text_length, dtype=torch.long, device="meta")
        reading = (2 * pairs + neutral) * _pflop(lambda: encoder(tokens))
    return Price(
        source,
        sizes.frames,
        sizes.height,
        sizes.width,
        sizes.steps,
        pairs,
        neutral,
        branches * sizes.steps * full,
        edits,
        reading,
        memory,
    )


class _Counter:
    """Counts the forwards of a model's first denoiser; a second is its like."""

    def __init__(self, found: Inventory) -> None:
        self._found, self._family = found, found.family
        self._network = build_on_meta(found.networks[0])
        self._experts = len(found.networks)
        if self._family.name not in _SHAPES or getattr(self._network.config, "image_dim", None):
            raise ModelError(
                f"The cost of {self._family.title} is not counted here, as its denoiser takes more than"
                f" latents, a timestep and text; counted are {', '.join(_SHAPES)}."
            )
        self._ratio, self._space = _SHAPES[self._family.name]
        self._known: dict[tuple[int, int, int], float] = {}

    def is_text(self, kind: SiteKind) -> bool:
        """Return whether what enters these sites is the text encoder's output."""
        if kind == "text-entry":
            return True
        blocks = [b for b in self._family.blocks if kind in b.sites]
        return kind == "text" and all(b.text == "text" for b in blocks)

    def capture(self, settings: CaptureSettings) -> tuple[float, float]:
        """Return the PFLOP of one pair, and of one neutral prompt."""
        if self.is_text(settings.kinds[0]):
            smallest = self.smallest() * self._experts
            return 2 * smallest, smallest
        sizes = self._family.defaults
        steps = schedule_steps(settings, sizes.steps, self._experts)
        chosen = chosen_steps(settings.timesteps * self._experts, steps)
        frames = SHORT_FRAMES if self._ratio > 1 or self._family.name == "unet3d" else sizes.frames
        forward = self.forward(
            settings.frames or min(sizes.frames, frames),
            settings.height or sizes.height,
            settings.width or sizes.width,
        )
        run = (chosen[-1] + 1) * forward
        repeated = run if settings.trajectory == "own" else len(chosen) * forward
        return run + repeated, run

    def smallest(self) -> float:
        """Return the PFLOP of a forward on the smallest video, as capture tries it."""
        for frames in (1, self._family.defaults.frames):
            for side in (16, 32, 64, 128):
                try:
                    return self.forward(frames, side, side)
                except (RuntimeError, ValueError, IndexError):
                    continue
        sizes = self._family.defaults
        return self.forward(sizes.frames, sizes.height, sizes.width)

    def forward(self, frames: int, height: int, width: int) -> float:
        """Return the PFLOP of one forward."""
        if (size := (frames, height, width)) not in self._known:
            self._known[size] = _pflop(lambda: self._network(**self._arguments(*size)))
        return self._known[size]

    def _arguments(self, frames: int, height: int, width: int) -> dict[str, torch.Tensor]:
        # As diffusers gives it: a mapping whose keys are attributes, too.
        config: Any = self._network.config
        family = self._family
        channels = config.in_channels
        space = 16 if channels == 48 else self._space  # Wan 2.2 5B has a decoder of its own
        latent = 1 + (frames - 1) // self._ratio
        shape = {"B": 1, "C": channels, "F": latent, "H": height // space, "W": width // space}
        return {
            family.latents_argument: _empty(*(shape[axis] for axis in family.latents)),
            "timestep": torch.empty(1, dtype=torch.long, device="meta"),
            "encoder_hidden_states": _empty(1, family.defaults.text_length, _text_width(config)),
        }


_SHAPES = {"wan": (4, 8), "skyreels-v2": (4, 8), "unet3d": (1, 8), "animatediff": (1, 8), "cogvideox": (4, 8)}
"""By family: frames a latent frame, and pixels a latent pixel; their denoisers take nothing else."""


def _digits(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def _text_width(config: Any) -> int:
    names = ("text_dim", "cross_attention_dim", "text_embed_dim")
    return int(next(width for name in names if (width := getattr(config, name, None))))


def _pflop(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return float(counter.get_total_flops()) / 1e15


def _rows_bytes(sites: Sequence[Site], settings: CaptureSettings) -> int:
    """Return what the rows of a video-side capture take at most."""
    rows = 4 * (2 * settings.pair_rows + settings.neutral_rows)
    return sum(rows * site.inputs for site in select(sites, settings.kinds, settings.layers))
