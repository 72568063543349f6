"""``distance`` measures how far one folder of videos is from another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def distance(
    real: Annotated[Path, typer.Argument(help="A folder of .mp4 files, such as the original's.")],
    generated: Annotated[Path, typer.Argument(help="Another, such as the unlearned model's.")],
    features: Annotated[str, typer.Option("--features", help="i3d or videomae.")] = "i3d",
    weights: Annotated[
        Path | None, typer.Option("--weights", help="The network's weights; fetched where none are given.")
    ] = None,
) -> None:
    """Print the FVD between two folders of videos; needs the extra `distance`."""
    from refusal_core.evaluate.folders import videos_in
    from refusal_core.evaluate.measures.distance import fvd_features, video_distance

    sets = [videos_in(folder) for folder in (real, generated)]
    found = video_distance(*sets, fvd_features(features, weights=weights))
    print(f"FVD ({features}, {len(sets[0])} and {len(sets[1])} videos): {found:.2f}")
