"""Directions: from activations to what is removed at each site. Needs no model.

The slow, H-sized work of a site is done once and kept in an ``Estimator``; rank and strength then
cost a slice, alpha a small eigenproblem, so that sliders are live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from refusal_core.activations import Activations, Samples
from refusal_core.errors import RankError
from refusal_core.models.model import Fingerprint
from refusal_core.models.sites import Site
from refusal_core.separation import auc, d_prime, mean_by_group
from refusal_core.settings import SubspaceSettings
from refusal_core.subspace import (
    Basis,
    Span,
    Whitening,
    contrastive_basis,
    kept_part,
    precise,
    refusal_vector,
    sample_span,
    whiten,
)

ZERO = 1e-6  # |r| below this share of the rows' size is rounding: the site has not seen the concept
LOW_SHARE = 0.01
RANK_LIMIT = 128  # of the settings


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
    separation: Separation | None  # on held-out pairs

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


class Estimator:
    """Estimates directions from one set of activations, keeping what does not depend on sliders."""

    def __init__(self, seen: Activations) -> None:
        self.seen = seen
        self._spans: dict[tuple[int, bool, bool], Span] = {}
        self._whitenings: dict[tuple[int, float], Whitening] = {}
        self._separations: dict[tuple[int, SubspaceSettings], Separation | None] = {}

    def estimate(self, settings: SubspaceSettings, *, held_out: bool = False) -> Directions:
        """Return the directions at these settings.

        Args:
            settings: method, rank, alpha, centring, shrinkage.
            held_out: also measure each site's separation on pairs left out of the estimate.

        Raises:
            RankError: at no site is there anything of the concept.
        """
        found: dict[Site, Direction] = {}
        empty: list[str] = []
        done: dict[int, tuple[Tensor, Tensor, Tensor, float, int, int] | None] = {}
        for site, samples in self.seen.sites.items():
            key = id(samples)
            if key not in done:
                done[key] = self._solve(samples, settings)
            solved = done[key]
            if solved is None:
                empty.append(site.name)
                continue
            separation = self._separation(samples, settings) if held_out else None
            found[site] = Direction(site, *solved, separation)
        if not found:
            raise RankError(
                "Unsafe and safe prompts give equal activations at every site; choose later layers or"
                " other pairs."
            )
        notes = _notes(found, empty, settings)
        return Directions(self.seen.model, self.seen.concept, self.seen.pairs, settings, found, notes)

    def spectrum(self, site: Site, settings: SubspaceSettings, limit: int = 32) -> Spectrum | None:
        """Return the spectrum of a site, None where it holds nothing of the concept; see ``Spectrum``.

        The plain refusal vector has one direction, which holds all of it.
        """
        samples = self.seen.sites[site]
        if settings.method == "rv":
            return Spectrum((1.0,), (1.0,), 1)
        try:
            r = refusal_vector(samples.unsafe, samples.safe)
            if settings.method == "whitened":
                found = self._whitening(samples, settings)
                parts = (found.detect.T @ r).square()
                values, total = found.values, parts.sum()
            else:
                basis = self._basis(samples, replace(settings, rank=RANK_LIMIT))
                parts, values, total = (basis.vectors.T @ r).square(), basis.values, r @ r
                found = basis
        except RankError:
            return None
        shares = (parts.cumsum(0) / total.clamp_min(1e-300)).tolist()
        return Spectrum(tuple(values.tolist()[:limit]), tuple(shares[:limit]), found.available)

    def _solve(
        self, samples: Samples, settings: SubspaceSettings
    ) -> tuple[Tensor, Tensor, Tensor, float, int, int] | None:
        """Return U, Q, level, kept share, rank used and available; None where r is zero."""
        r = refusal_vector(samples.unsafe, samples.safe)
        size = float(precise(samples.safe).norm(dim=1).mean())
        if float(r.norm()) <= ZERO * size or float(r.norm()) == 0.0:
            return None
        try:
            if settings.method == "whitened":
                return self._solve_whitened(samples, settings, r)
            return self._solve_projector(samples, settings, r)
        except RankError:
            return None

    def _solve_whitened(
        self, samples: Samples, settings: SubspaceSettings, r: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, float, int, int]:
        found = self._whitening(samples, settings)
        k = min(settings.rank, found.available)
        remove, detect = found.remove[:, :k].T.contiguous(), found.detect[:, :k].T.contiguous()
        # The share of r that the oblique projector takes, in the metric that makes it orthogonal.
        whole = found.detect.T @ r
        share = float((detect @ r).square().sum() / whole.square().sum().clamp_min(1e-300))
        return remove, detect, detect @ found.mean, share, k, found.available

    def _whitening(self, samples: Samples, settings: SubspaceSettings) -> Whitening:
        key = (id(samples), settings.shrinkage)
        if key not in self._whitenings:
            self._whitenings[key] = whiten(
                samples.differences, samples.ordinary, shrinkage=settings.shrinkage
            )
        return self._whitenings[key]

    def _basis(self, samples: Samples, settings: SubspaceSettings) -> Basis:
        """Return the basis of PCA or cPCA; without neutral rows there is nothing to contrast with."""
        contrast = settings.method == "cpca" and len(samples.neutral) > 1
        key = (id(samples), settings.center, contrast)
        if key not in self._spans:
            neutral = samples.neutral if contrast else None
            self._spans[key] = sample_span(samples.differences, neutral, center=settings.center)
        alpha = settings.alpha if contrast else 0.0
        return contrastive_basis(
            self._spans[key], rank=settings.rank, alpha=alpha, relative=settings.relative
        )

    def _solve_projector(
        self, samples: Samples, settings: SubspaceSettings, r: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, float, int, int]:
        p, share, used, available = r, 1.0, 1, 1
        if settings.method != "rv":
            basis = self._basis(samples, settings)
            p, share = kept_part(r, basis)
            used, available = basis.vectors.shape[1], basis.available
        if share <= ZERO**2:
            raise RankError("The subspace holds nothing of the refusal vector.")
        unit = (p / p.norm())[None]
        return unit, unit, unit @ precise(samples.ordinary).mean(0), share, used, available

    def _separation(self, samples: Samples, settings: SubspaceSettings) -> Separation | None:
        """Measure the detector on pairs it has not seen, leaving one pair out at a time."""
        key = (id(samples), settings)
        if key not in self._separations:
            self._separations[key] = _leave_one_pair_out(samples, settings, self.seen)
        return self._separations[key]


def _leave_one_pair_out(samples: Samples, settings: SubspaceSettings, seen: Activations) -> Separation | None:
    pairs = torch.unique(samples.pair_of_row).tolist()
    if len(pairs) < 3:
        return None
    unsafe, safe = [], []
    for pair in pairs:
        out = samples.pair_of_row == pair
        rest = Samples(
            samples.unsafe[~out],
            samples.safe[~out],
            samples.neutral,
            samples.pair_of_row[~out],
            samples.by_token,
        )
        solved = Estimator(seen)._solve(rest, settings)
        if solved is None:
            return None
        detect = solved[1]
        # All directions are read along the one that the other pairs' mean difference takes.
        r = refusal_vector(rest.unsafe, rest.safe)
        lead = detect.T @ (detect @ r)
        lead = lead / (lead @ r)  # folds differ in scale otherwise
        unsafe.append(precise(samples.unsafe[out]) @ lead)
        safe.append(precise(samples.safe[out]) @ lead)
    u, s, groups = torch.cat(unsafe), torch.cat(safe), samples.pair_of_row
    if samples.by_token:
        u, s = mean_by_group(u, groups), mean_by_group(s, groups)
    return Separation(auc(u, s), d_prime(u, s))


def _notes(found: Mapping[Site, Direction], empty: list[str], settings: SubspaceSettings) -> tuple[str, ...]:
    notes = []
    if empty:
        names = ", ".join(empty[:3]) + (f" and {len(empty) - 3} more" if len(empty) > 3 else "")
        notes.append(f"Left out, as the concept has not reached it or its subspace is empty: {names}.")
    if settings.method != "rv":
        least = min(d.rank_available for d in found.values())
        if least < settings.rank:
            notes.append(f"Rank {settings.rank} asked, {least} available: clamped.")
    low = [d for d in found.values() if d.kept_share < LOW_SHARE]
    if low:
        notes.append(
            f"At {len(low)} of {len(found)} sites the subspace holds under 1 % of the refusal vector;"
            " raise the rank or take the second moment (center off)."
        )
    return tuple(notes)
