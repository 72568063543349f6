"""Compiling what makes videos: the denoiser's blocks, and the decoder of frames. Weights and names stay.

Blocks are compiled one by one, as diffusers does (``compile_repeated_blocks``), for each size anew, so that
the bytes of a video depend on no other. Whoever adds hooks or asks for gradients runs ``uncompiled``: hooks
that come after compilation may be ignored.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from refusal_core.errors import InputError, ModelError

TANH = "cpp.use_decompose_tanh"  # from exp: GELU's own tanh took an eighth of a block's time


def can_compile(place: str) -> bool:
    """Return whether what torch compiles with is here: a C++ compiler for a CPU, Triton for a GPU."""
    if place == "cpu":
        return shutil.which(os.environ.get("CXX", "g++")) is not None
    return find_spec("triton") is not None


def compile_parts(pipeline: Any, denoisers: Sequence[nn.Module], place: str) -> None:
    """Let the blocks of the denoisers and the decoder of frames be compiled when they first run.

    Raises:
        InputError: there is nothing to compile with.
        ModelError: diffusers does not know which blocks of this denoiser to compile.
    """
    if not can_compile(place):
        missing = "a C++ compiler (g++, or CXX)" if place == "cpu" else "Triton"
        raise InputError(f"To compile, torch needs {missing}; install it, or leave out --compile.")
    options = {TANH: True} if place == "cpu" and TANH in torch._inductor.list_options() else {}
    for denoiser in denoisers:
        if not getattr(denoiser, "_repeated_blocks", None):
            raise ModelError(f"{type(denoiser).__name__} cannot be compiled by blocks; leave out --compile.")
        denoiser.compile_repeated_blocks(dynamic=False, options=options)  # type: ignore[operator]
    decoder = getattr(getattr(pipeline, "vae", None), "decoder", None)
    if decoder is not None:
        decoder.compile(dynamic=False)


def uncompiled() -> AbstractContextManager[None]:
    """Run compiled modules as plain ones while the block runs."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled yet, and importing it takes seconds
        return nullcontext()
    return torch.compiler.set_stance("force_eager")
