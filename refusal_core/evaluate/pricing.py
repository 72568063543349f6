"""What a video and an edit cost at published sizes: counted on the meta device, no weights are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from refusal_core.concepts import Preset, neutral_prompts
from refusal_core.errors import ModelError
from refusal_core.models.families.family import Defaults, Family, Network
from refusal_core.models.inventory import Inventory, build_on_meta, inventory
from refusal_core.models.load import read_defaults
from refusal_core.models.sites import select
from refusal_core.models.text_encoders import text_encoder_on_meta
from refusal_core.reading.video_side import SHORT_FRAMES, passes, video_bytes
from refusal_core.recipe import Recipe, changed
from refusal_core.settings import CaptureSettings, SiteKind

PAPER_KIND: SiteKind = "cross-attention"
Weighted = list[tuple[nn.Module, int]]  # networks whose costs, so many times each, add up to a whole one's


@dataclass(frozen=True, slots=True)
class Price:
    """Operations in PFLOP, and memory in GB, of one model and one preset."""

    sizes: Defaults
    pairs: int
    neutral: int
    video: float  # one guided video, denoiser alone
    edits: Mapping[str, float]  # denoiser alone, by the kinds of sites
    text_encoder: float | None  # of all prompts; None: its size is not known
    memory: Mapping[str, float]  # weights in bfloat16, and the rows of edits on the video's side

    def table(self) -> list[str]:
        """Return the rows of a table in Markdown: step, PFLOP, videos."""
        s = self.sizes
        rows = [(f"one video: {s.frames} frames of {s.width}x{s.height}, {s.steps} steps", self.video)]
        rows += [(f"an edit at the sites {kinds}", pflop) for kinds, pflop in self.edits.items()]
        return [f"| {step} | {_digits(pflop)} | {_digits(pflop / self.video)} |" for step, pflop in rows]

    def plain(self) -> dict[str, object]:
        """Return plain data for JSON; an edit's work also in videos."""
        return {
            "video": {"pflop": self.video},
            "edits": {k: {"pflop": x, "videos": x / self.video} for k, x in self.edits.items()},
            "text_encoder": {"pflop": self.text_encoder},
            "memory": dict(self.memory),
        }


def price(source: str, preset: Preset, values: Mapping[str, object] | None = None) -> Price:
    """Count what a model's video, the preset's edit, and one at text sites and at the paper's cost.

    Args:
        source: a published model or a diffusers folder, as ``inventory`` takes it.
        preset: whose prompts and settings are counted.
        values: what is changed of its settings, by their names.

    Raises:
        ModelError: its denoiser takes more than latents, a timestep and text.
        InputError: a setting is not known, or cannot be.
    """
    found = inventory(source)
    sizes = read_defaults(Path(source)) or found.defaults
    recipe = changed(Recipe(preset.concept), preset.recommended_for(source))
    if not any(site.kind in recipe.capture.kinds for site in found.sites):
        recipe = changed(recipe, {"sites": found.family.default_kinds})
    settings = changed(recipe, values or {}).capture
    count = _Counter(found, sizes)
    pairs = len(preset.concept.pairs)
    neutral = len(neutral_prompts(preset.concept, settings.neutral, settings.neutral_count))
    edits: dict[str, float] = {}
    memory = {"denoiser": 2 * found.parameters / 1e9}
    wanted: list[tuple[SiteKind, ...]] = [settings.kinds, ("text",), (PAPER_KIND,)]
    for kinds in dict.fromkeys(wanted):
        if any(site.kind in kinds for site in found.sites):
            chosen, name = replace(settings, kinds=kinds), "+".join(kinds)
            of_pair, of_neutral = count.capture(chosen)
            edits[name] = pairs * of_pair + neutral * of_neutral
            if seen := count.of_video(kinds):
                read = select(found.sites, seen, settings.layers)
                memory[f"rows, {name}"] = video_bytes(read, settings) / 1e9
    reading = _reading(found.family, source, sizes.text_length)
    if reading is not None:
        memory["text encoder"] = reading[1]
    encoder = None if reading is None else (2 * pairs + neutral) * reading[0]
    return Price(sizes, pairs, neutral, count.video(), edits, encoder, memory)


def _reading(family: Family, source: str, length: int) -> tuple[float, float] | None:
    """Return the text encoder's PFLOP for a prompt, and its GB in bfloat16; None where it is not known."""
    whole, one, two = (text_encoder_on_meta(family, source, layers) for layers in (None, 1, 2))
    if whole is None or one is None or two is None:
        return None
    config: Any = whole.config
    layers = int(config.num_hidden_layers)
    tokens = torch.empty(1, length, dtype=torch.long, device="meta")
    pflop = _pflop([(one, 2 - layers), (two, layers - 1)], {"input_ids": tokens})
    return pflop, 2 * sum(p.numel() for p in whole.parameters()) / 1e9


class _Counter:
    """Counts the forwards of a model's first denoiser; a second is its like."""

    def __init__(self, found: Inventory, sizes: Defaults) -> None:
        self._family, self._sizes, self._experts = found.family, sizes, len(found.networks)
        self._networks = _weighted(found.networks[0])
        # As diffusers gives it: a mapping whose keys are attributes, too.
        self._config: Any = self._networks[0][0].config
        if self._family.name not in _SHAPES or getattr(self._config, "image_dim", None):
            raise ModelError(
                f"The cost of {self._family.title} is not counted here, as its denoiser takes more than"
                f" latents, a timestep and text; counted are {', '.join(_SHAPES)}."
            )
        self._ratio, self._space = _SHAPES[self._family.name]
        self._known: dict[tuple[int, int, int], float] = {}

    def of_video(self, kinds: Sequence[SiteKind]) -> tuple[SiteKind, ...]:
        """Return the kinds at which more enters than the text encoder's output."""
        joint = any(b.text != "text" for b in self._family.blocks if "text" in b.sites)
        return tuple(k for k in kinds if k != "text-entry" and (k != "text" or joint))

    def video(self) -> float:
        """Return the PFLOP of one guided video."""
        s = self._sizes
        branches = 2 if self._family.guidance in ("passes", "batched") else 1
        return branches * s.steps * self.forward(s.frames, s.height, s.width)

    def capture(self, settings: CaptureSettings) -> tuple[float, float]:
        """Return the PFLOP of one pair, and of one neutral prompt."""
        seen = self.of_video(settings.kinds)
        text = 0.0 if len(seen) == len(settings.kinds) else self.smallest() * self._experts
        if not seen:
            return 2 * text, text
        sizes = self._sizes
        run, repeated = passes(settings, sizes.steps, self._experts)
        frames = SHORT_FRAMES if self._ratio > 1 or self._family.name == "unet3d" else sizes.frames
        forward = self.forward(
            settings.frames or min(sizes.frames, frames),
            settings.height or sizes.height,
            settings.width or sizes.width,
        )
        return 2 * text + (run + repeated) * forward, text + run * forward

    def smallest(self) -> float:
        """Return the PFLOP of a forward on the smallest video, as capture tries it."""
        for frames in (1, self._sizes.frames):
            for side in (16, 32, 64, 128):
                try:
                    return self.forward(frames, side, side)
                except (RuntimeError, ValueError, IndexError):
                    continue
        sizes = self._sizes
        return self.forward(sizes.frames, sizes.height, sizes.width)

    def forward(self, frames: int, height: int, width: int) -> float:
        """Return the PFLOP of one forward."""
        if (size := (frames, height, width)) not in self._known:
            self._known[size] = _pflop(self._networks, self._arguments(*size))
        return self._known[size]

    def _arguments(self, frames: int, height: int, width: int) -> dict[str, torch.Tensor]:
        family, channels = self._family, self._config.in_channels
        space = 16 if channels == 48 else self._space  # Wan 2.2 5B has a decoder of its own
        latent = 1 + (frames - 1) // self._ratio
        shape = {"B": 1, "C": channels, "F": latent, "H": height // space, "W": width // space}
        text = (1, self._sizes.text_length, _text_width(self._config))
        return {
            family.latents_argument: torch.empty(*(shape[axis] for axis in family.latents), device="meta"),
            "timestep": torch.empty(1, dtype=torch.long, device="meta"),
            "encoder_hidden_states": torch.empty(*text, device="meta"),
        }


_SHAPES = {"wan": (4, 8), "skyreels-v2": (4, 8), "unet3d": (1, 8), "animatediff": (1, 8), "cogvideox": (4, 8)}
"""By family: frames a latent frame, and pixels a latent pixel; their denoisers take nothing else."""


def _digits(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _text_width(config: Any) -> int:
    names = ("text_dim", "cross_attention_dim", "text_embed_dim")
    return int(next(width for name in names if (width := getattr(config, name, None))))


def _weighted(network: Network) -> Weighted:
    """Return a network of one block and one of two, weighted: all blocks of a transformer cost the same."""
    layers = network.config.get("num_layers")
    if not isinstance(layers, int) or layers < 3:
        return [(build_on_meta(network), 1)]
    few = [build_on_meta(replace(network, config={**network.config, "num_layers": n})) for n in (1, 2)]
    return [(few[0], 2 - layers), (few[1], layers - 1)]


def _pflop(networks: Weighted, arguments: Mapping[str, torch.Tensor]) -> float:
    total = 0
    for network, times in networks:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(**arguments)
        total += times * counter.get_total_flops()
    return total / 1e15
