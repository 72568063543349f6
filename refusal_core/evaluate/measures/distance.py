"""How far a set of videos is from another: the Fréchet distance of their features, and FVD by it.

Only figures on I3D or VideoMAE features are called FVD; both come from the package cd-fvd.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from refusal_core.errors import InputError, MissingExtraError, ModelError
from refusal_core.io.video import Video

FVD_FRAMES = 16  # the first ones; what both networks were trained on
INSTALL = "pip install 'cd-fvd>=0.1.1,<0.2'"
FvdModel = Literal["i3d", "videomae"]
FVD_MODELS: tuple[FvdModel, ...] = ("i3d", "videomae")

Features = Callable[[Sequence[Video]], NDArray[np.float64]]
"""Returns the features of videos, [videos, d]."""


def frechet_distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two sets of features (Dowson, Landau 1982).

    With C = R^T R, the trace of the root is the sum of the singular values of R1 R2^T: exact where there
    are fewer samples than features, where a root of the product of covariances is not. Covariances are
    divided by n - 1, as FID's are; cd-fvd's own figure divides by n.

    Args:
        one: features [n, d], n at least 2; the distance of few samples is too large, and comparable
            only between sets of one size.
        other: features [m, d].

    Raises:
        InputError: they are no such tables, or hold NaN or infinity.
    """
    a, b = (_checked(x) for x in (one, other))
    if a.shape[1] != b.shape[1]:
        raise InputError(f"Features of {a.shape[1]} and {b.shape[1]} numbers cannot be compared.")
    gap = float(np.sum((a.mean(0) - b.mean(0)) ** 2))
    r, s = _root(a), _root(b)
    shared = float(np.linalg.svd(r @ s.T, compute_uv=False).sum())
    return max(0.0, gap + float(np.sum(r**2) + np.sum(s**2)) - 2.0 * shared)


def _checked(features: NDArray[np.floating]) -> NDArray[np.float64]:
    table = np.asarray(features, np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise InputError(f"A distance needs features of at least 2 videos, not {table.shape}.")
    if not np.isfinite(table).all():
        raise InputError("The features hold NaN or infinity; leave out the videos they come from.")
    return table


def _root(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R with R^T R the covariance, of no more rows than there are features."""
    centred = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred


def video_distance(real: Sequence[Video], generated: Sequence[Video], features: Features) -> float:
    """Return the Fréchet distance of two sets of videos; an FVD where the features are ``fvd_features``.

    Raises:
        InputError: a set has under 2 videos, or the videos do not suit the features.
    """
    return frechet_distance(features(real), features(generated))


def fvd_features(
    model: str = "i3d", *, device: str = "auto", weights: Path | None = None, batch: int = 8
) -> Features:
    """Return the features of FVD (Unterthiner 2018; Ge 2024 for VideoMAE), from the first 16 frames.

    Args:
        model: ``i3d``, the usual one, or ``videomae``, which looks less at single frames.
        device: auto takes a GPU where there is one; a CPU needs seconds a video.
        weights: a file of the network's weights; without one cd-fvd fetches them when first used.
        batch: videos at once; more needs more memory.

    Raises:
        MissingExtraError: cd-fvd is not installed.
        InputError: the model is not known.
        ModelError: the network or its weights cannot be had.
    """
    if model not in FVD_MODELS:
        raise InputError(f"There are no FVD features '{model}'; choose i3d or videomae.")
    try:
        from cdfvd import fvd

        from refusal_core.models.devices import device_of
    except ImportError as e:
        raise MissingExtraError(f"FVD needs cd-fvd and torchvision: {INSTALL}.") from e
    place = device_of(device)
    file = None if weights is None else str(weights)
    if file is not None and not Path(file).is_file():  # cd-fvd would fetch others, and write them there
        raise ModelError(f"{Path(file).name} does not exist; check the name of the weights.")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it loads
            network = fvd.cdfvd(model, ckpt_path=file, compute_feats=True, n_fake="full", device=place)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as e:
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:120]
        raise ModelError(f"The {model} network cannot be loaded ({reason}); check its weights.") from e

    def features(videos: Sequence[Video]) -> NDArray[np.float64]:
        network.empty_fake_stats()
        network.fake_stats.capture_all = True
        for start in range(0, len(videos), batch):
            network.add_fake_stats(_stacked(videos[start : start + batch]))
        return np.asarray(network.fake_stats.get_all(), np.float64)

    return features


def _stacked(videos: Sequence[Video]) -> NDArray[np.uint8]:
    shapes = {v.frames.shape[1:] for v in videos}
    if any(len(v.frames) < FVD_FRAMES for v in videos):
        raise InputError(f"FVD needs videos of at least {FVD_FRAMES} frames.")
    if len(shapes) > 1:
        raise InputError("FVD needs videos of one size; scale them first.")
    return np.stack([v.frames[:FVD_FRAMES] for v in videos])
