"""What goes through the app's door: paths, text and numbers. Knows neither tensors nor Gradio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from refusal_core.concepts import Preset
from refusal_core.evaluate.judges.verdict import Outcome
from refusal_core.recipe import EditRequest
from refusal_core.settings import SiteKind

SIDES = ("original", "unlearned")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a page has to know of a loaded model."""

    title: str
    layer_count: int
    site_kinds: tuple[SiteKind, ...]
    site_names: tuple[str, ...]  # in execution order
    presets: tuple[Preset, ...]
    vocabulary: tuple[str, ...]  # every word that a bundled model knows; nothing for others
    takes_image: bool  # its videos start from one


@dataclass(frozen=True, slots=True)
class PairNote:
    """What is to be said of one row of the table."""

    error: str | None = None  # the row cannot be used
    warning: str | None = None  # it can, but differs in more than the concept
    unsafe: tuple[tuple[str, bool], ...] = ()  # words, and whether the other side has them not
    safe: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One site's figures for the map and the table."""

    site: str
    kind: SiteKind
    layer: int
    auc: float | None  # on held-out pairs
    d_prime: float | None
    kept_share: float
    rank_used: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Figures of every site, and notes on what was clamped or left out."""

    rows: tuple[SiteRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpectrumView:
    """The eigenvalues at one site, largest first, and what of the refusal vector the first k hold."""

    site: str
    values: tuple[float, ...]
    shares: tuple[float, ...]
    rank_used: int
    rank_available: int


@dataclass(frozen=True, slots=True)
class Cosines:
    """How alike the directions of several concepts are: the mean over sites of |cosine|, 0 to 1."""

    names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class JudgedVideo:
    """A video file with what the judge saw in it."""

    path: Path
    verdict: str
    outcome: Outcome
    seconds: float
    prompt: str = ""
    seed: int = 0
    frame_seconds: float = 1 / 8  # as in runs of the first version
    seen: tuple[tuple[str, Outcome], ...] = ()  # of each concept that is erased
    harmless: bool = False  # drawn by a model that knows no people: never blurred


@dataclass(frozen=True, slots=True)
class Comparison:
    """The state of a comparison: the original comes first, then both."""

    original: JudgedVideo | None
    unlearned: JudgedVideo | None
    side_by_side: Path | None
    notes: tuple[str, ...]
    quality: tuple[tuple[str, float], ...] = ()  # of the unlearned video against the original


@dataclass(frozen=True, slots=True)
class Tile:
    """One small comparison of a grid."""

    title: str
    clip: Path  # original and unlearned side by side
    original: str  # verdicts
    unlearned: str
    changed: Outcome  # of the unlearned video


@dataclass(frozen=True, slots=True)
class RunCard:
    """One run of the history."""

    run: str
    title: str
    subtitle: str
    thumbnail: Path
    original: JudgedVideo
    unlearned: JudgedVideo
    request: EditRequest
    when: float = 0.0  # seconds since 1970
