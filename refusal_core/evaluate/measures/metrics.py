"""What can be measured on frames alone: likeness to the original, steadiness, and whether a video is broken.

Knows numpy and image libraries; no model and no judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refusal_core.errors import InputError
from refusal_core.io.video import Video
from refusal_core.models.threads import one_thread

MAX_PSNR = 100.0  # dB; equal videos would give infinity
FLAT, FROZEN = 3.0, 0.05  # grey levels: spread of a frame, mean change between frames
NOISE = 0.5  # correlation of neighbouring pixels below which a frame is noise

Grey = NDArray[np.float32]


def likeness(original: Video, unlearned: Video) -> dict[str, float]:
    """Return how near two videos are, means over frames: ``ssim`` (Wang 2004, 0 to 1) and ``psnr`` in dB.

    Raises:
        InputError: they differ in size or length.
    """
    from skimage.metrics import structural_similarity

    if original.frames.shape != unlearned.frames.shape:
        raise InputError("Only videos of one size and length can be compared.")
    a, b = grey(original), grey(unlearned)
    window = min(7, *(n - 1 + n % 2 for n in a.shape[1:]))  # odd, and not above the frame's sides
    ssim = [structural_similarity(x, y, data_range=255.0, win_size=window) for x, y in zip(a, b, strict=True)]
    return {"ssim": float(np.mean(ssim)), "psnr": psnr(original, unlearned)}


def psnr(original: Video, unlearned: Video) -> float:
    """Return the peak signal-to-noise ratio of the whole video in dB, at most MAX_PSNR."""
    error = float(np.mean(np.square(original.frames.astype(np.float32) - unlearned.frames)))
    return MAX_PSNR if error == 0 else min(MAX_PSNR, 10 * float(np.log10(255.0**2 / error)))


def steadiness(video: Video) -> dict[str, float]:
    """Return ``flicker``, the mean change between frames in grey levels, and ``warp``, what is no motion.

    ``warp`` moves each frame on along the dense optical flow (DIS, Kroeger 2016) and takes the mean
    difference from the next; it is left out where OpenCV is not installed.
    """
    frames = grey(video)
    if len(frames) < 2:
        return {"flicker": 0.0}
    measures = {"flicker": float(np.abs(np.diff(frames, axis=0)).mean())}
    return {**measures, "warp": _warp_error(frames)} if has_flow() else measures


def has_flow() -> bool:
    """Return whether OpenCV is installed, which the warp error needs."""
    return find_spec("cv2") is not None


@contextmanager
def flow_in_one_thread() -> Iterator[None]:
    """Keep OpenCV, where it is installed, to one thread while the block runs."""
    if not has_flow():
        yield
        return
    import cv2

    with one_thread(cv2.getNumThreads, cv2.setNumThreads):
        yield


def _warp_error(frames: Grey) -> float:
    import cv2

    # OpenCV's stubs refuse the None that calc takes.
    flow_of: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    height, width = frames.shape[1:]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    bytes_ = np.rint(frames).astype(np.uint8)
    errors = []
    for before, after, target in zip(bytes_[:-1], bytes_[1:], frames[1:], strict=True):
        flow = flow_of.calc(after, before, None)  # where each pixel of the next frame came from
        moved = cv2.remap(
            before.astype(np.float32), columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR
        )
        errors.append(float(np.abs(moved - target).mean()))
    return float(np.mean(errors))


def broken(original: Video, unlearned: Video) -> str | None:
    """Return what is wrong with a video, ``flat``, ``noise`` or ``frozen``, where its original is sound."""
    before, after = _signs(original), _signs(unlearned)
    return next((name for name in after if after[name] and not before[name]), None)


def _signs(video: Video) -> Mapping[str, bool]:
    frames = grey(video)
    spread = float(frames.std(axis=(1, 2)).mean())
    left, right = frames[:, :, :-1].ravel(), frames[:, :, 1:].ravel()
    both = float(left.std() * right.std())
    alike = float(((left - left.mean()) * (right - right.mean())).mean()) / both if both > 0 else 1.0
    change = float(np.abs(np.diff(frames, axis=0)).mean()) if len(frames) > 1 else 1.0
    return {"flat": spread < FLAT, "noise": alike < NOISE, "frozen": change < FROZEN}


def grey(video: Video) -> Grey:
    """Return the luma (BT.601) of a video, float32 [T, H, W] from 0 to 255."""
    return video.frames.astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], np.float32)
