"""How a model is loaded, as one value. Loads nothing itself, torch least of all: options are made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from refusal_core.errors import InputError
from refusal_core.settings import Knob, check_settings

if TYPE_CHECKING:
    import torch

Offload = Literal["none", "model", "sequential", "group"]
Dtype = Literal["auto", "saved", "float32", "float16", "bfloat16"]
Quantise = Literal["none", "int8", "fp8"]


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How the model is loaded."""

    device: str = Knob("Where it runs: cpu, cuda, cuda:1, mps; auto is a GPU where there is one.").at("auto")
    dtype: Dtype = Knob(
        "Of the weights; auto is bfloat16 on a GPU and float32 on a CPU, saved what the files have."
    ).at("auto")
    offload: Offload = Knob("Where the GPU is too small: what waits in the computer's memory.").at("none")
    revision: str | None = Knob("Of a hub id: a tag or a commit.").at(None)
    quantise: Quantise = Knob(
        "The denoisers' weights in a byte each: int8 by torchao, or fp8 that is cast as each layer runs."
    ).at("none")
    denoiser: Path | None = Knob("A single .safetensors or .gguf file to take the (first) denoiser from.").at(
        None
    )
    denoiser_2: Path | None = Knob("One for the second denoiser, of Wan 2.2 that for little noise.").at(None)
    compiled: bool | None = Knob(
        "Compile blocks: faster videos after a wait; by default where a bundled model makes thousands.",
        name="compile",
    ).at(None)  # None: not, but where whoever makes the videos finds that it pays; the last bits differ
    cache: bool = Knob(
        "Keep what neutral prompts give in REFUSAL_STUDIO_DATA, else the user's cache folder: `models cache`."
    ).at(True)
    # Asked with a description where the structure had to be guessed; None: never accepted.
    accept_guess: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        if self.compiled and self.offload != "none":
            raise InputError("Compile or offload, not both; leave out --compile.")
        if self.compiled and self.quantise != "none":
            raise InputError("Compile or quantise, not both; leave out --compile.")

    @property
    def place(self) -> str:
        """The device that computes."""
        from refusal_core.models.devices import device_of

        return device_of(self.device)

    @property
    def weights(self) -> torch.dtype:
        """The dtype of the weights; auto: bfloat16 on a GPU, float32 on a CPU, as where files say nothing.

        Whoever compiles for speed gets bfloat16 on a CPU, too, where that has units for it.
        """
        import torch

        from refusal_core.models.devices import multiplies_bfloat16

        fast = self.place != "cpu" or (self.compiled and multiplies_bfloat16())
        chosen: torch.dtype = getattr(torch, self.dtype, torch.float32)
        return torch.bfloat16 if self.dtype == "auto" and fast else chosen
