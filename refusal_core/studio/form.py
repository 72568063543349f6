"""The workbench's form as one value: read in one place, whatever page asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from refusal_core.errors import InputError
from refusal_core.studio.compare import CompareStep
from refusal_core.studio.concept import ConceptStep, rows_of
from refusal_core.studio.edit import EditStep
from refusal_core.workbench import EditRequest

Values = dict[Any, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """The components of the three steps."""

    one: ConceptStep
    two: EditStep
    three: CompareStep
    owner: gr.Textbox  # the browser's opaque id

    @property
    def inputs(self) -> set[gr.components.Component]:
        """The components that decide an edit."""
        one = self.one
        return {
            one.model, one.preset, one.pairs, one.unsafe_images, one.safe_images, one.also, one.strengths,
            *self.two.settings,
        }  # fmt: skip

    @property
    def asked(self) -> set[gr.components.Component]:
        """Those that decide a comparison."""
        return {*self.inputs, self.three.prompt, self.three.seed, self.three.image, self.owner}

    def request(self, values: Values) -> EditRequest:
        """Return the edit that the form asks for.

        Raises:
            InputError: the strengths of other concepts cannot be read.
        """
        one, two = self.one, self.two
        pairs = rows_of(values[one.pairs])
        return EditRequest(
            preset=values[one.preset],
            pairs=pairs,
            model=str(values[one.model] or ""),
            images=_images(values[one.unsafe_images], values[one.safe_images], len(pairs)),
            method=values[two.method],
            sites=tuple(values[two.sites]),
            layers=f"{int(values[two.first])}-{int(values[two.last])}",
            rank=int(values[two.rank]),
            strength=float(values[two.strength]),
            anchor=values[two.anchor],
            alpha=float(values[two.alpha]),
            relative=bool(values[two.relative]),
            center=bool(values[two.center]),
            shrinkage=float(values[two.shrinkage]),
            pool=values[two.pool],
            timesteps=int(values[two.timesteps]),
            trajectory=values[two.trajectory],
            also=_also(values[one.also], values[one.strengths]),
        )

    def prompt(self, values: Values) -> tuple[str, int, Path | None]:
        """Return prompt, seed and the image to start from."""
        image = values[self.three.image]
        return values[self.three.prompt], int(values[self.three.seed] or 0), Path(image) if image else None


def _images(
    unsafe: list[str] | None, safe: list[str] | None, count: int
) -> tuple[tuple[Path | None, Path | None], ...]:
    """Return the images of each pair, in the order of the rows; none where none was given."""
    sides = [[Path(p) for p in side or []][:count] for side in (unsafe, safe)]
    if not any(sides):
        return ()
    padded = [side + [None] * (count - len(side)) for side in sides]
    return tuple(zip(*padded, strict=True))


def _also(names: list[str] | None, strengths: str | None) -> tuple[tuple[str, float], ...]:
    given = [piece.strip() for piece in (strengths or "").split(",")]
    found = []
    for place, name in enumerate(names or []):
        text = given[place] if place < len(given) else ""
        try:
            found.append((name, float(text) if text else 1.0))
        except ValueError as e:
            raise InputError(f"'{text[:20]}' is no strength; write numbers with commas between.") from e
    return tuple(found)
