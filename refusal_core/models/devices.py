"""Which device computes."""

from __future__ import annotations

import os

import torch

from refusal_core.errors import InputError


def device_of(name: str) -> str:
    """Return the device for a name; ``auto`` is a GPU where there is one, else the CPU.

    Of the processes that a launcher starts on one machine (it sets LOCAL_RANK), each takes a GPU of its own.

    Raises:
        InputError: there is no such device here.
    """
    if name != "auto":
        return _checked(name)
    if not torch.cuda.is_available():
        return "cpu"
    rank = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{int(rank) % torch.cuda.device_count()}" if rank.isdigit() else "cuda"


def _checked(name: str) -> str:
    try:
        device = torch.device(name)
        count = getattr(torch, device.type).device_count()  # torch.cpu, torch.cuda, torch.mps …
    except (RuntimeError, AttributeError):
        count, device = 0, torch.device("cpu")
    if (device.index or 0) >= count:
        known = ", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise InputError(f"There is no device '{name}' here; choose one of {known}.")
    return name


def multiplies_bfloat16() -> bool:
    """Return whether the CPU has units that multiply matrices of bfloat16; without, float32 is faster."""
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not tell
    return bool(known.get("amx_bf16"))
