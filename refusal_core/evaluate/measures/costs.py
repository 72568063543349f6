"""What a method costs: time and memory to prepare it, time to generate with it, bytes to keep."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one method. Times are of one machine: read them as ratios."""

    prepare_seconds: float
    peak_megabytes: float  # over what the process held before; on a CPU memory used again does not count
    stored_kilobytes: float
    video_ratio: float | None = None  # seconds a video over the original's, median over batches


@dataclass(slots=True)
class Meter:
    """Readings of a block that has run."""

    seconds: float = 0.0
    megabytes: float = 0.0


@contextmanager
def measured_cost() -> Iterator[Meter]:
    """Measure the time of a block and the peak of memory over its start, on GPUs where there are some.

    What reading took that a file saved counts too: a method costs the same, whichever ran before it.
    Of all GPUs, as torch counts what this process alone holds there: of several processes each has its own.
    """
    import psutil
    import torch

    from refusal_core.reading.kept import spared_seconds

    meter, stop = Meter(), threading.Event()
    # Before anything lies on a GPU torch knows nothing of them, and refuses to be asked.
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else range(0)
    process = psutil.Process()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)
    allocated = sum(map(torch.cuda.memory_allocated, gpus))
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    started, spared = time.perf_counter(), spared_seconds()
    try:
        yield meter
    finally:
        meter.seconds = time.perf_counter() - started + spared_seconds() - spared
        stop.set()
        thread.join()
        grown = sum(map(torch.cuda.max_memory_allocated, gpus)) - allocated if gpus else peak - before
        meter.megabytes = max(0, grown) / 1e6
