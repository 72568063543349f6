"""Activations of a model that is run by another program's sampler, as Open-Sora's is. Runs nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from refusal_core.activations import Activations, Samples
from refusal_core.concepts import Concept
from refusal_core.errors import InputError
from refusal_core.hooks import tap
from refusal_core.models.model import Model
from refusal_core.models.open_sora import BRANCHES
from refusal_core.models.sites import Site, select
from refusal_core.settings import CaptureSettings, SiteKind

Side = Literal["unsafe", "safe", "neutral"]


class Listener:
    """Collects activations while Open-Sora's own inference runs, one prompt at a time.

    Example::

        listener = Listener(adopt(model), frames=15)
        for unsafe, safe in pairs:
            with listener.listen("unsafe"):
                run_inference(unsafe, seed=0)
            with listener.listen("safe"):
                run_inference(safe, seed=0)
        seen = listener.activations(concept)
    """

    def __init__(
        self,
        model: Model,
        kinds: Sequence[SiteKind] = ("cross-attention",),
        layers: Sequence[int] | None = None,
        *,
        frames: int = 1,
        every: int = 5,
        guided: bool = True,
    ) -> None:
        """Choose what is read.

        Args:
            model: from ``adopt``.
            kinds: of sites.
            layers: blocks; None means all.
            frames: latent frames; one row a frame is kept.
            every: of the denoising steps, read each so many.
            guided: whether rows of other guidance branches follow the prompt's.
        """
        self._model = model
        self._sites = {s.name: s for s in select(model.sites, tuple(kinds), layers)}
        self._frames, self._every, self._guided = frames, every, guided
        self._rows: dict[Side, list[dict[str, Tensor]]] = {"unsafe": [], "safe": [], "neutral": []}

    @contextmanager
    def listen(self, side: Side) -> Iterator[None]:
        """Read what one prompt's inference sends through the sites."""
        steps: dict[str, list[Tensor]] = {name: [] for name in self._sites}
        calls = dict.fromkeys(self._sites, 0)
        video = {"tokens": 0}
        layers = {name: self._model.layers[name] for name in self._sites}
        first = next(name for name in self._model.layers if self._model.layouts[name] == "batch")

        def read(name: str, x: Tensor) -> None:
            if self._model.layouts[name] == "batch":
                video["tokens"] = x.shape[1]
            if name not in calls:
                return
            if calls[name] % self._every == 0:
                steps[name].append(self._pool(x[:, -video["tokens"] :]))
            calls[name] += 1

        with torch.no_grad(), tap({first: self._model.layers[first], **layers}, read):
            yield
        if not all(steps.values()):
            raise InputError("The inference inside listen() did not run the model; run it there.")
        self._rows[side].append({name: torch.cat(rows) for name, rows in steps.items()})

    def _pool(self, x: Tensor) -> Tensor:
        """Return [frames, H]: the means over a frame's tokens, of the prompt's rows only."""
        branches = BRANCHES[self._model.family.name] if self._guided else 1
        if len(x) % branches:
            raise InputError(
                f"{len(x)} rows are not {branches} guidance branches; without guidance say guided=False."
            )
        if x.shape[1] % self._frames:
            raise InputError(f"{list(x.shape)} rows do not divide into {self._frames} frames; correct it.")
        prompt = x[: len(x) // branches].float().mean(0)
        return prompt.reshape(self._frames, -1, prompt.shape[-1]).mean(1).cpu()

    def activations(self, concept: Concept) -> Activations:
        """Return what was read.

        Raises:
            InputError: the prompts listened to are not those of the concept, in number or in steps.
        """
        unsafe, safe, pairs = len(self._rows["unsafe"]), len(self._rows["safe"]), len(concept.pairs)
        if (unsafe, safe) != (pairs, pairs):
            raise InputError(f"{unsafe} unsafe and {safe} safe prompts were heard of {pairs} pairs.")
        kinds = tuple(dict.fromkeys(s.kind for s in self._sites.values()))
        settings = CaptureSettings(kinds=kinds, trajectory="own")
        sites = {site: self._samples(name, site) for name, site in self._sites.items()}
        texts = tuple((p.unsafe, p.safe) for p in concept.pairs)
        return Activations(self._model.fingerprint, concept.name, texts, settings, sites)

    def _samples(self, name: str, site: Site) -> Samples:
        unsafe, safe = ([rows[name] for rows in self._rows[side]] for side in ("unsafe", "safe"))
        if any(len(u) != len(s) for u, s in zip(unsafe, safe, strict=True)):
            raise InputError("An unsafe and its safe prompt took different numbers of steps; use the same.")
        neutral = [rows[name] for rows in self._rows["neutral"]]
        numbers = [torch.full((len(u),), i) for i, u in enumerate(unsafe)]
        return Samples(
            torch.cat(unsafe),
            torch.cat(safe),
            torch.cat(neutral) if neutral else torch.empty(0, site.inputs),
            torch.cat(numbers),
            by_token=False,
        )
