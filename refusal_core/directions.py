"""Directions: from activations to what is removed at each site. Needs no model.

The slow, H-sized work of a site is done once and kept in an ``Estimator``; rank and strength then
cost a slice, alpha a small eigenproblem, so that sliders are live.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from refusal_core.activations import Activations, Samples
from refusal_core.errors import RankError
from refusal_core.models.model import Fingerprint
from refusal_core.models.sites import Site
from refusal_core.separation import auc, d_prime, left_out_scores, mean_by_group
from refusal_core.settings import WHITENED, SubspaceSettings
from refusal_core.subspace import (
    Basis,
    Span,
    Whitening,
    contrastive_basis,
    kept_part,
    other_rows,
    precise,
    refusal_vector,
    sample_span,
    whiten,
)
from refusal_core.variants import placebo, retained, retained_space, switched

ZERO = 1e-6  # |r| below this share of the rows' size is rounding: the site has not seen the concept
LOW_SHARE = 0.01
EQUAL = "Unsafe and safe prompts give equal activations at every site; choose later layers or other pairs."
RANK_LIMIT = 128  # of the settings
CACHED_BYTES = 512 << 20  # of each kind: forty sites of a large model would take many GB
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Separation:
    """How well the detector tells unsafe from safe on pairs that it was not estimated from."""

    auc: float  # 0.5 none, 1 perfect
    d_prime: float  # distance of the means in spreads; goes on where the AUC is already 1


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """What an edit takes out at one site, with its diagnostics."""

    site: Site
    remove: Tensor  # U [m, H]
    detect: Tensor  # Q [m, H], Q U^T = I
    level: Tensor  # Q^T mu [m], the mean reading on ordinary samples
    kept_share: float  # share of |r|^2 that the subspace holds
    rank_used: int
    rank_available: int
    left: float = 1.0  # of the detector, once what must pass is taken out of it
    separation: Separation | None = None  # on held-out pairs

    def largest_cosine(self, other: Direction) -> float:
        """Return the largest cosine between the two subspaces U: 1 where they share a direction."""
        a, b = (torch.linalg.qr(d.remove.double().T)[0] for d in (self, other))
        return float(torch.linalg.svdvals(a.T @ b)[0].clamp(max=1.0))


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """One direction a site; sites without any are left out and named in ``notes``."""

    model: Fingerprint
    concept: str
    pairs: tuple[tuple[str, str], ...]
    settings: SubspaceSettings
    sites: Mapping[Site, Direction]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The eigenvalues of a site, largest first; the first i + 1 directions hold ``shares[i]`` of |r|^2."""

    values: tuple[float, ...]
    shares: tuple[float, ...]
    available: int


def estimate(
    seen: Activations, settings: SubspaceSettings | None = None, *, held_out: bool = False
) -> Directions:
    """Estimate the directions of every captured site; see ``Estimator.estimate``."""
    return Estimator(seen).estimate(settings or SubspaceSettings(), held_out=held_out)


class _Recent(OrderedDict[K, V]):
    """What was worked out last, up to CACHED_BYTES of tensors: a slider goes back and forth among a few."""

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """Return what is kept under a key, made where it is not; what was used longest ago goes."""
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        while len(self) > 1 and sum(map(_bytes_of, self.values())) > CACHED_BYTES:
            self.popitem(last=False)
        return self[key]


def _bytes_of(value: object) -> int:
    parts = [getattr(value, item.name) for item in fields(value)]  # type: ignore[arg-type]  # dataclasses
    return sum(x.numel() * x.element_size() for x in parts if isinstance(x, Tensor))


class Estimator:
    """Estimates directions from one set of activations, keeping what does not depend on sliders."""

    def __init__(self, seen: Activations) -> None:
        self.seen = seen
        self._spans: _Recent[tuple[int, bool, bool], Span] = _Recent()
        self._whitenings: _Recent[tuple[object, ...], Whitening] = _Recent()
        self._separations: dict[tuple[int, SubspaceSettings], Separation | None] = {}

    def estimate(self, settings: SubspaceSettings, *, held_out: bool = False) -> Directions:
        """Return the directions at these settings.

        Args:
            settings: method, rank, alpha, centring, shrinkage.
            held_out: also measure each site's separation on pairs left out of the estimate.

        Raises:
            RankError: at no site is there anything of the concept.
        """
        sites: dict[Site, Direction] = {}
        empty: dict[str, str] = {}
        solved: dict[int, Direction | RankError] = {}  # sites with the same input share their samples
        for site, samples in self.seen.sites.items():
            if id(samples) not in solved:
                solved[id(samples)] = self._solved(site, samples, settings)
            if isinstance(direction := solved[id(samples)], RankError):
                empty[site.name] = str(direction)
                continue
            separation = self._separation(site, samples, settings) if held_out else None
            sites[site] = replace(direction, site=site, separation=separation)
        if not sites:
            raise RankError(next((why for why in empty.values() if why != EQUAL), EQUAL))
        notes = (*self.seen.notes, *_notes(sites, list(empty), settings))
        return Directions(self.seen.model, self.seen.concept, self.seen.pairs, settings, sites, notes)

    def spectrum(self, site: Site, settings: SubspaceSettings, limit: int = 32) -> Spectrum | None:
        """Return the spectrum of a site, None where it holds nothing of the concept; see ``Spectrum``.

        The plain refusal vector has one direction, which holds all of it.
        """
        samples = self.seen.sites[site]
        if settings.method == "rv":
            return Spectrum((1.0,), (1.0,), 1)
        solution: Whitening | Basis
        try:
            r = refusal_vector(samples.unsafe, samples.safe, samples.precision)
            if settings.method in WHITENED:
                solution = self._whitening(samples, settings)
                parts = (solution.detect.T @ r).square()
                total = parts.sum()
            else:
                solution = self._basis(samples, replace(settings, rank=RANK_LIMIT))
                parts, total = (solution.vectors.T @ r).square(), r @ r
        except RankError:
            return None
        shares = (parts.cumsum(0) / total.clamp_min(1e-300)).tolist()
        values = solution.values.tolist()
        return Spectrum(tuple(values[:limit]), tuple(shares[:limit]), solution.available)

    def _solved(self, site: Site, samples: Samples, settings: SubspaceSettings) -> Direction | RankError:
        """Return the direction of a site, or why there is none."""
        try:
            return self._solve(site, samples, settings)
        except RankError as why:
            return why

    def _solve(self, site: Site, samples: Samples, settings: SubspaceSettings) -> Direction:
        """Return the direction of a site; RankError where r is zero, or the subspace holds nothing of it."""
        r = _refusal_vector(samples, slice(None))
        if settings.method in WHITENED:
            return self._solve_whitened(site, samples, settings, r)
        if settings.method == "retained":
            return self._solve_retained(site, samples, settings, r)
        return self._solve_projector(site, samples, settings, r)

    def _solve_whitened(
        self, site: Site, samples: Samples, settings: SubspaceSettings, r: Tensor
    ) -> Direction:
        whitening = self._whitening(samples, settings)
        k = min(settings.rank, whitening.available)
        remove, detect = whitening.remove[:, :k].T.contiguous(), whitening.detect[:, :k].T.contiguous()
        # The share of r that the oblique projector takes, in the metric that makes it orthogonal.
        whole = (whitening.detect.T @ r).square().sum()
        mean, left = whitening.mean, float(whitening.left[:k].mean())
        if settings.method == "placebo":
            remove, detect = placebo(remove, detect, zlib.crc32(site.name.encode()))
        if settings.method == "switch":
            mean = precise(samples.safe, samples.precision).mean(0)
            if samples.target is not None:
                remove = switched(remove, detect, r, precise(samples.target, r.dtype))
        share = float((detect @ r).square().sum() / whole.clamp_min(1e-300))
        return Direction(site, remove, detect, detect @ mean, share, k, whitening.available, left)

    def _solve_retained(
        self, site: Site, samples: Samples, settings: SubspaceSettings, r: Tensor
    ) -> Direction:
        differences = precise(samples.differences, samples.precision)
        remove, detect, left = retained(differences, self._retained_space(samples, settings), settings.rank)
        share, level = float((detect @ r).square().sum() / (r @ r)), detect @ _ordinary_mean(samples)
        rows = min(differences.shape)
        return Direction(site, remove, detect, level, share, len(remove), rows, float(left.mean()))

    def _retained_space(self, samples: Samples, settings: SubspaceSettings) -> Tensor:
        frame: Tensor = torch.linalg.qr(self._held(samples, settings).T)[0]
        return frame.T

    def _held(self, samples: Samples, settings: SubspaceSettings) -> Tensor:
        """Return what must pass exactly, as rows [j, H]."""
        parts = [samples.differences[:0]] if samples.kept is None else [samples.kept]
        if settings.method in ("null-space", "retained"):
            parts.append(retained_space(samples.ordinary, settings.retain))
        if settings.method == "switch" and samples.target is not None:
            parts.append(samples.target[None])
        return torch.cat([precise(part, samples.precision) for part in parts])

    def _solve_projector(
        self, site: Site, samples: Samples, settings: SubspaceSettings, r: Tensor
    ) -> Direction:
        p, share, used, available = r, 1.0, 1, 1
        if settings.method != "rv":
            basis = self._basis(samples, settings)
            p, share = _kept_part(r, basis)
            used, available = basis.vectors.shape[1], basis.available
        unit = (p / p.norm())[None]
        return Direction(site, unit, unit, unit @ _ordinary_mean(samples), share, used, available)

    def _whitening(self, samples: Samples, settings: SubspaceSettings) -> Whitening:
        of_its_own = settings.method in ("null-space", "switch")
        key = (settings.method, settings.retain) if of_its_own else ()
        return self._whitenings.get_or_make(
            (id(samples), settings.shrinkage, *key),
            lambda: whiten(
                samples.differences,
                samples.ordinary,
                shrinkage=settings.shrinkage,
                held=self._held(samples, settings),
            ),
        )

    def _basis(self, samples: Samples, settings: SubspaceSettings) -> Basis:
        """Return the basis of PCA or cPCA; without neutral rows there is nothing to contrast with."""
        return _basis(self._span(samples, settings), settings)

    def _span(self, samples: Samples, settings: SubspaceSettings) -> Span:
        contrast = settings.method == "cpca" and len(samples.neutral) > 1
        neutral = samples.neutral if contrast else None
        return self._spans.get_or_make(
            (id(samples), settings.center, contrast),
            lambda: sample_span(
                samples.differences, neutral, center=settings.center, dtype=samples.precision
            ),
        )

    def _separation(self, site: Site, samples: Samples, settings: SubspaceSettings) -> Separation | None:
        """Measure the detector on pairs it has not seen, leaving one pair out at a time."""
        key = (id(samples), settings)
        if key not in self._separations:
            self._separations[key] = self._left_out(site, samples, settings)
        return self._separations[key]

    def _left_out(self, site: Site, samples: Samples, settings: SubspaceSettings) -> Separation | None:
        groups = samples.pair_of_row
        if len(torch.unique(groups)) < 3:
            return None
        if settings.method in WHITENED:
            gram, count = self._whitening(samples, settings).gram, len(samples.safe) + len(samples.neutral)
            scores: tuple[Tensor, Tensor] | None = left_out_scores(gram, groups, count, settings.rank)
        else:
            scores = _projector_scores(samples, self._reader(samples, settings))
        if scores is None or not all(torch.isfinite(s).all() for s in scores):
            return None  # the other pairs hold nothing of the concept
        u, s = (mean_by_group(x, groups) if samples.by_token else x for x in scores)
        return Separation(auc(u, s), d_prime(u, s))

    def _reader(
        self, samples: Samples, settings: SubspaceSettings
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return what gives the detector [H] and r [H] of some rows; all H-sized work is done once."""
        space = self._retained_space(samples, settings) if settings.method == "retained" else None
        span = self._span(samples, settings) if settings.method in ("pca", "cpca") else None

        def read(kept: Tensor) -> tuple[Tensor, Tensor]:
            r = _refusal_vector(samples, kept)
            differences = samples.differences[kept]
            if space is not None:
                return retained(precise(differences, r.dtype), space, settings.rank)[1][0], r
            if span is None:
                return r, r
            rest = other_rows(span, differences, center=settings.center)
            return _kept_part(r, _basis(rest, settings))[0], r

        return read


def _basis(span: Span, settings: SubspaceSettings) -> Basis:
    alpha = settings.alpha if span.neutral is not None else 0.0
    return contrastive_basis(span, rank=settings.rank, alpha=alpha, relative=settings.relative)


def _kept_part(r: Tensor, basis: Basis) -> tuple[Tensor, float]:
    """Return ``kept_part``; RankError where the subspace holds nothing of r."""
    p, share = kept_part(r, basis)
    if share <= ZERO**2:
        raise RankError("The subspace holds nothing of the refusal vector.")
    return p, share


def _refusal_vector(samples: Samples, rows: slice | Tensor) -> Tensor:
    """Return r [H] of some rows; RankError where it is zero but for rounding."""
    safe = samples.safe[rows]
    r = refusal_vector(samples.unsafe[rows], safe, samples.precision)
    size = float(precise(safe).norm(dim=1).mean())
    if float(r.norm()) <= ZERO * size or float(r.norm()) == 0.0:
        raise RankError(EQUAL)
    return r


def _ordinary_mean(samples: Samples) -> Tensor:
    """Return mu [H] of ``samples.ordinary``, whose rows need not stand in memory together for it."""
    parts = [part for part in (samples.safe, samples.neutral) if len(part)]
    total = sum(precise(part, samples.precision).sum(0) for part in parts)
    return torch.as_tensor(total) / sum(map(len, parts))


def _projector_scores(
    samples: Samples, read: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor] | None:
    """Return the scores of unsafe and safe rows, each [n], read by what the other pairs alone give.

    Args:
        samples: of the site.
        read: from which rows count [n] to their detector [H] and refusal vector [H].
    """
    unsafe, safe = (torch.empty(len(samples.safe), dtype=samples.precision) for _ in range(2))
    for pair in torch.unique(samples.pair_of_row).tolist():
        out = samples.pair_of_row == pair
        try:
            lead, r = read(~out)
        except RankError:
            return None
        scale = lead @ r  # folds differ in scale otherwise
        unsafe[out] = (precise(samples.unsafe[out], lead.dtype) @ lead / scale).to(unsafe)
        safe[out] = (precise(samples.safe[out], lead.dtype) @ lead / scale).to(safe)
    return unsafe, safe


def _notes(sites: Mapping[Site, Direction], empty: list[str], settings: SubspaceSettings) -> tuple[str, ...]:
    notes = []
    if empty:
        names = ", ".join(empty[:3]) + (f" and {len(empty) - 3} more" if len(empty) > 3 else "")
        notes.append(f"Left out, as the concept has not reached it or its subspace is empty: {names}.")
    if settings.method != "rv":
        least = min(d.rank_available for d in sites.values())
        if least < settings.rank:
            notes.append(f"Rank {settings.rank} asked, {least} available: clamped.")
    low = [d for d in sites.values() if d.kept_share < LOW_SHARE]
    least_left = min(d.left for d in sites.values())
    if least_left < 0.999:
        notes.append(f"What must pass leaves {least_left:.0%} of the detector at the site where it is least.")
    if low and settings.method != "placebo":
        notes.append(
            f"At {len(low)} of {len(sites)} sites the subspace holds under 1 % of the refusal vector;"
            " raise the rank or take the second moment (center off)."
        )
    return tuple(notes)
