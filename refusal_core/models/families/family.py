"""What there is to know of a family of video models, as plain types. Knows no weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from refusal_core.settings import SiteKind

# What enters a site, for B prompts of F latent frames with S tokens each, T text tokens:
Layout = Literal[
    "text",  # [B, T, H] or [B*F, T, H]: the text encoder's output; no timestep, one forward suffices
    "text-stream",  # [B, T, H]: text rows that have already seen the video (joint attention)
    "batch",  # [B, F*S, H]
    "frames-in-batch",  # [B*F, S, H]
    "pixels-in-batch",  # [B*S, F, H]
    "text-first",  # [B, T + F*S, H]
    "text-last",  # [B, F*S + T, H]
    "sound",  # [B, A, H]: A latents of the sound
    "piece-last",  # [B, E + F*S, H]: what a piece has seen of earlier ones before it
]
# How a pipeline runs the prompt and the empty prompt: the prompt's pass first, then the other; both in one
# batch, the prompt's rows last; not at all, as the scale is an input; or as a component of its own decides.
Guidance = Literal["passes", "batched", "embedded", "component"]
# packed: one row a token, the frames are an argument; placed: its place is, [B, 3, tokens], time first
Latents = Literal["BCFHW", "BFCHW", "BFHWC", "packed", "placed"]


TEXT_KINDS: tuple[SiteKind, ...] = ("text", "sound-text")
SOUND_KINDS: tuple[SiteKind, ...] = ("sound-text", "sound")
DEFAULTS_FILE = "studio.json"  # in a model's folder, where its defaults are not its family's


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a model generates when nothing else is asked."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    frames: Annotated[int, Field(ge=1, le=1000)]
    height: Annotated[int, Field(ge=8, le=8192)]
    width: Annotated[int, Field(ge=8, le=8192)]
    fps: Annotated[float, Field(gt=0, le=240)]
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance_scale: Annotated[float, Field(ge=0, le=100)]
    text_length: Annotated[int, Field(ge=1, le=10_000)]  # tokens the text encoder is given


@dataclass(frozen=True, slots=True)
class Variant:
    """A checkpoint of a family that was made for other defaults; it is known by one of these."""

    defaults: Defaults
    told_by: Mapping[str, Any] = field(default_factory=dict)  # values such as {"transformer.in_channels": 48}
    named: str = ""  # part of its published name, where no configuration tells


@dataclass(frozen=True, slots=True)
class Blocks:
    """One kind of block of a denoiser, and which linear of it each kind of site means.

    ``paths`` are in execution order (that of ``named_modules`` differs in UNets); ``*`` stands for each
    index of a list. Paths in ``sites`` are relative to a block; one that ends in ``?`` may be missing.
    """

    paths: tuple[str, ...]
    sites: Mapping[SiteKind, tuple[str, ...]]
    layout: Layout = "batch"
    text: Layout = "text"  # of the sites that read the text
    text_modulated_by: str = ""  # value of a denoiser's configuration with which the timestep scales the text
    without_last: str = (
        ""  # value of a denoiser's configuration: so many at the end see no text, and are no sites
    )
    own_count: bool = False  # counted from 0 beside the blocks before, not after them


@dataclass(frozen=True, slots=True)
class Network:
    """A published denoiser: what its class is built with."""

    attribute: str
    kind: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published model that people use."""

    source: str  # hub id
    networks: tuple[Network, ...]
    licence: str


@dataclass(frozen=True, slots=True)
class Stacked:
    """A linear that elsewhere is one part of a larger one: rows of its width lie before and behind it."""

    name: str  # of the larger one
    before: int = 0  # parts, each with as many rows as the layer has inputs
    after: int = 0


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture. Everything that differs between families is data here."""

    name: str
    title: str
    pipelines: tuple[str, ...]
    blocks: tuple[Blocks, ...]
    text_arguments: tuple[str, ...]  # of the denoiser's forward, swapped on replay
    defaults: Defaults
    denoisers: tuple[str, ...] = ("transformer",)  # attributes of the pipeline, in execution order
    entry: tuple[str, ...] = ()  # the linear through which the text encoder's output enters
    default_kinds: tuple[SiteKind, ...] = ("text",)  # edited where a preset names none that it has
    latents: Latents = "BCFHW"
    latents_argument: str = "hidden_states"
    image_optional: bool = False  # of a pipeline that takes one: it makes a video without, too
    # Its text encoder reads the image, too: the image's rows come first, the prompt's are so many fewer
    # than ``text_length``.
    image_in_text: int | None = None
    templated: bool = False  # the text encoder reads more than the prompt: rows are pooled per prompt
    registers: bool = (
        False  # learned tokens, which have read the prompt, lie behind its own in place of padding
    )
    batches: bool = True  # several prompts in one call
    needs_negative: bool = False  # its guidance fails without a negative prompt
    size_multiple: int = 16
    # Of a video made piece by piece: the pipeline's argument for a piece's latent frames, and its default.
    piece: tuple[str, int] | None = None
    sound_rate: str = ""  # where in a pipeline the samples a second of its sound stand
    fewest_frames: int = 1  # of a video that is decoded
    arguments: Mapping[str, Any] = field(default_factory=dict)  # always handed to the pipeline
    unguided: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    guidance: Guidance = "batched"
    guided_by: str = "guidance_scale"  # the pipeline's argument that our guidance scale means
    lora: Literal["pipeline", "model"] | None = "pipeline"  # what loads a LoRA in plain diffusers
    comfyui: Mapping[str, str | Stacked] = field(default_factory=dict)  # regular expression -> ComfyUI's name
    checkpoints: tuple[Checkpoint, ...] = ()
    variants: tuple[Variant, ...] = ()  # the first that fits holds, before ``defaults``
    note: str = ""

    @property
    def makes_sound(self) -> bool:
        """Whether a stream for the sound runs beside the picture's."""
        return any(kind in SOUND_KINDS for blocks in self.blocks for kind in blocks.sites)

    def defaults_of(self, name: str, told: Callable[[str, str], object]) -> Defaults:
        """Return what a checkpoint was made for.

        Args:
            name: its hub id or folder.
            told: returns a value of a part's configuration, by both their names; None where there is none.
        """
        for variant in self.variants:
            values = [told(*key.split(".")) == value for key, value in variant.told_by.items()]
            if all(values) if values else variant.named in PurePath(name).name:
                return variant.defaults
        return self.defaults


Sites = dict[SiteKind, tuple[str, ...]]
APACHE, CARD = "Apache-2.0", "own licence, see the model card"


def published(source: str, kind: str, licence: str, **config: Any) -> Checkpoint:
    """Return a checkpoint of one denoiser, by the arguments its class is built with."""
    attribute = "unet" if kind.startswith("UNet") else "transformer"
    return Checkpoint(source, (Network(attribute, kind, config),), licence)


def cross_attention_sites(attention: str, feed_forward: str) -> Sites:
    """Return the sites of a block with separate cross-attention, under diffusers' usual names."""
    return {
        "text": (f"{attention}.to_k", f"{attention}.to_v"),
        "cross-attention": (f"{attention}.to_out.0",),
        "feed-forward": (f"{feed_forward}.net.0.proj",),
        "feed-forward-out": (f"{feed_forward}.net.2",),
        "self-attention": ("attn1.to_out.0",),
    }


def joint_attention_sites(attention: str) -> Sites:
    """Return the sites of a block in which text and video attend to each other; the video stream's."""
    return {
        "text": (f"{attention}.add_k_proj", f"{attention}.add_v_proj"),
        "cross-attention": (f"{attention}.to_out.0",),
        "feed-forward": ("ff.net.0.proj",),
        "feed-forward-out": ("ff.net.2",),
    }
