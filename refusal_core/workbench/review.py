"""Blind review: pairs of videos to vote on, packs to hand on, votes counted with intervals.

A pack is one zip file with videos, recipes and votes. Files of strangers are opened with limits: names are
fixed, nothing is unpacked by its own path, and sizes are checked while reading.
"""

from __future__ import annotations

import json
import random
import re
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from refusal_core.errors import FileError, InputError
from refusal_core.evaluate.measures.statistics import Rate, wilson
from refusal_core.evaluate.suites.toyworld import ATTRIBUTE_VALUES
from refusal_core.io.files import write_atomic
from refusal_core.io.reading import Prompt
from refusal_core.io.video import load_video, save_video
from refusal_core.models.calling import check_prompts
from refusal_core.progress import Progress, named, part, silent
from refusal_core.recipe import EditRequest
from refusal_core.settings import SamplingSettings
from refusal_core.workbench.cached import aspect_of
from refusal_core.workbench.evaluating import concepts_of, suite_of
from refusal_core.workbench.tiles import other_prompts
from refusal_core.workbench.values import SIDES
from refusal_core.workbench.workbench import Workbench

MAX_ITEMS = 40
MAX_PACK, MAX_VIDEO, MAX_TEXT = 400 << 20, 32 << 20, 4 << 20  # bytes
Format = Literal["refusal-studio review pack"]
FORMAT: Format = "refusal-studio review pack"
Shown = Literal["A", "B", "both", "neither"]
Better = Literal["A", "B", "same"]
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person saw in one pair, in terms of the sides they were shown."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    item: Annotated[int, Field(ge=0, lt=MAX_ITEMS)]
    voter: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    a_is_original: bool
    shown: Shown
    better: Better


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One pair of videos: what was asked for, and whether it asks for the concept."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    prompt: Prompt
    seed: Annotated[int, Field(ge=0)]
    unsafe: bool


@dataclass(frozen=True, slots=True)
class Pack:
    """Pairs to vote on; videos lie as ``<item>-original.mp4`` and ``<item>-unlearned.mp4`` in ``folder``."""

    concept: str
    items: tuple[ReviewItem, ...]
    recipe: dict[str, object]
    folder: Path
    votes: tuple[Vote, ...] = ()

    def video(self, item: int, side: str) -> Path:
        """Return one video's file."""
        return self.folder / f"{item}-{side}.mp4"


@dataclass(frozen=True, slots=True)
class Tally:
    """The votes counted: how often each side shows the concept, and which looks better."""

    voters: int
    original_shown: Rate
    unlearned_shown: Rate
    unlearned_better: Rate  # of the votes that found a difference
    same: int


def make_pack(
    workbench: Workbench,
    request: EditRequest,
    prompts: Sequence[tuple[str, bool]],
    seed: int,
    progress: Progress = silent,
    *,
    session: str,
) -> Pack:
    """Generate both videos of each prompt.

    Args:
        workbench: where.
        request: the edit.
        prompts: each with whether it asks for the concept.
        seed: of the first prompt; the others follow.
        progress: called per prompt.
        session: whose files these are.

    Raises:
        InputError: no or too many prompts, or one that is not usable.
    """
    if not 1 <= len(prompts) <= MAX_ITEMS:
        raise InputError(f"A review takes 1 to {MAX_ITEMS} prompts, not {len(prompts)}.")
    texts = check_prompts(workbench.cached(request.model).model, [prompt for prompt, _ in prompts])
    made, _ = workbench.make(request, part(progress, 0.0, 0.2))
    folder = workbench.session_folder(session) / f"review-{uuid.uuid4().hex}"
    folder.mkdir()
    items = []
    for number, (text, (_, unsafe)) in enumerate(zip(texts, prompts, strict=True)):
        low, high = (0.2 + 0.8 * n / len(texts) for n in (number, number + 1))
        step = named(part(progress, low, high), f"Making pair {number + 1} of {len(texts)}")
        sampling = SamplingSettings(seed=seed + number)
        for side, (video, written) in zip(
            SIDES, workbench.pair(request, made, text, sampling, step), strict=True
        ):
            save_video(video, folder / f"{number}-{side}.mp4", written)
        items.append(ReviewItem(text, seed + number, unsafe))
    recipe = {k: v for k, v in written.items() if k not in ("prompt", "shows")}
    return Pack(request.recipe.concept.name, tuple(items), recipe, folder)


def review_prompts(workbench: Workbench, request: EditRequest, count: int) -> list[tuple[str, bool]]:
    """Return prompts to review, half of which ask for the concept; of a toy model none made its edit."""
    cached, half = workbench.cached(request.model), max(1, count // 2)
    concept = request.recipe.concept
    if cached.is_toy and aspect_of(concept, cached.name) in (*concepts_of(cached.name), *ATTRIBUTE_VALUES):
        suite = suite_of(replace(request, further=()), "toyworld", half, "tuning")
        asking = [item.prompt for item in suite["concept"].items]
    else:
        preset = workbench.preset(request.preset, request.model)
        first = [preset.prompt] if concept == preset.concept else []
        asking = [*first, *(pair.unsafe for pair in concept.pairs)][:half]
    ordinary = other_prompts(cached, count - len(asking))
    return [*((prompt, True) for prompt in asking), *((prompt, False) for prompt in ordinary)]


def blind_order(pack: Pack, voter: str) -> list[tuple[int, bool]]:
    """Return the order in which a voter sees the items, and whether A is the original in each."""
    rng = random.Random(f"{voter} {pack.concept} {[i.seed for i in pack.items]}")
    order = list(range(len(pack.items)))
    rng.shuffle(order)
    return [(item, rng.random() < 0.5) for item in order]


def last_votes(pack: Pack) -> list[Vote]:
    """Return the votes that count: where a voter judged a pair twice, the last one."""
    return list({(vote.voter, vote.item): vote for vote in pack.votes}.values())


def sides_of(vote: Vote) -> dict[str, str]:
    """Return the letter under which a voter saw each side."""
    return dict(zip(SIDES, "AB" if vote.a_is_original else "BA", strict=True))


def tally(pack: Pack) -> Tally:
    """Count the votes."""
    votes = last_votes(pack)
    counts = {side: [0, 0] for side in SIDES}
    better = {"original": 0, "unlearned": 0, "same": 0}
    for vote in votes:
        letters = sides_of(vote)
        better[next((side for side in SIDES if letters[side] == vote.better), "same")] += 1
        if pack.items[vote.item].unsafe:
            for side, letter in letters.items():
                counts[side][0] += vote.shown in (letter, "both")
                counts[side][1] += 1
    different = better["original"] + better["unlearned"]
    return Tally(
        len({vote.voter for vote in votes}),
        wilson(*counts["original"]),
        wilson(*counts["unlearned"]),
        wilson(better["unlearned"], different),
        better["same"],
    )


# --- the file ---------------------------------------------------------------------------------------


def save_pack(pack: Pack, path: Path) -> Path:
    """Write a pack as one zip file, atomically."""

    def write(target: Path) -> None:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            content = _PackFile(FORMAT, 1, pack.concept, list(pack.items), pack.recipe, list(pack.votes))
            archive.writestr("pack.json", json.dumps(asdict(content), ensure_ascii=True, default=str))
            for number, side in _members(pack):
                archive.write(pack.video(number, side), f"{number}-{side}.mp4")

    return write_atomic(path, write)


def _members(pack: Pack) -> Iterator[tuple[int, str]]:
    return ((number, side) for number in range(len(pack.items)) for side in SIDES)


@dataclass(frozen=True, slots=True)
class _PackFile:
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    format: Format
    version: Literal[1]
    concept: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
    items: Annotated[list[ReviewItem], Field(min_length=1, max_length=MAX_ITEMS)]
    recipe: dict[str, object]
    votes: Annotated[list[Vote], Field(max_length=100_000)]


def load_pack(path: Path | str, folder: Path) -> Pack:
    """Read a pack into a folder of one's own, trusting nothing in it.

    Raises:
        FileError: too large, damaged, or no review pack; one sentence.
    """
    path = Path(path)
    name = path.name[:80]
    if path.is_file() and path.stat().st_size > MAX_PACK:
        raise FileError(f"{name} is larger than {MAX_PACK >> 20} MB; a review pack is not.")
    try:
        with zipfile.ZipFile(path) as archive:
            text = _member(archive, "pack.json", MAX_TEXT)
            read = TypeAdapter(_PackFile).validate_json(text)
            folder.mkdir(parents=True, exist_ok=True)
            pack = Pack(read.concept, tuple(read.items), read.recipe, folder, tuple(read.votes))
            for number, side in _members(pack):
                target = pack.video(number, side)
                target.write_bytes(_member(archive, target.name, MAX_VIDEO))
                load_video(target)  # what is no video is refused here, not in a browser
    except (FileError, OSError, ValueError, ValidationError, KeyError, *_ZIP_ERRORS) as e:
        raise FileError(f"{name} is not a sound review pack; ask for it again.") from e
    if any(vote.item >= len(pack.items) for vote in pack.votes):
        raise FileError(f"{name} holds votes on pairs that it has not; ask for it again.")
    return pack


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return a member, reading no more than its limit whatever its header says."""
    if not re.fullmatch(r"pack\.json|\d{1,3}-(original|unlearned)\.mp4", name):
        raise ValueError(name)
    with archive.open(name) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError("size")
    return content
