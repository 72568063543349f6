"""Which device computes."""

from __future__ import annotations

import os

import torch


def device_of(asked: str) -> str:
    """Return the device for a name; ``auto`` is a GPU where there is one, else the CPU.

    Of the processes that a launcher starts on one machine (it sets LOCAL_RANK), each takes a GPU of its own.
    """
    if asked != "auto":
        return asked
    if not torch.cuda.is_available():
        return "cpu"
    rank = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{int(rank) % torch.cuda.device_count()}" if rank.isdigit() else "cuda"
