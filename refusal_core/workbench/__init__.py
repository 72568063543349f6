"""The app's only door to the core. Knows neither tensors nor Gradio."""

from __future__ import annotations

from refusal_core.evaluate.measures.statistics import Rate
from refusal_core.workbench.evaluating import MAX_VIDEOS as MAX_EVALUATED
from refusal_core.workbench.evaluating import OFFERED as OFFERED_METHODS
from refusal_core.workbench.evaluating import Evaluated, evaluate
from refusal_core.workbench.exporting import FORMS as EXPORT_FORMS
from refusal_core.workbench.exporting import Exported
from refusal_core.workbench.exporting import export as export_edit
from refusal_core.workbench.exporting import push as push_edit
from refusal_core.workbench.history import History, data_folder, summary_of
from refusal_core.workbench.pairs import parse_pasted
from refusal_core.workbench.review import MAX_ITEMS as MAX_REVIEWED
from refusal_core.workbench.review import (
    Pack,
    Tally,
    Vote,
    blind_order,
    load_pack,
    make_pack,
    review_prompts,
    save_pack,
    tally,
)
from refusal_core.workbench.tiles import (
    AXES,
    example_jobs,
    make_tiles,
    other_jobs,
    parse_axis,
    seed_jobs,
    sweep_jobs,
)
from refusal_core.workbench.values import (
    Clip,
    Comparison,
    Cosines,
    EditRequest,
    Estimate,
    PairNote,
    RunCard,
    SiteRow,
    SpectrumView,
    Tile,
)
from refusal_core.workbench.workbench import MAX_SHOWN_PAIRS, Workbench

__all__ = [
    "AXES",
    "EXPORT_FORMS",
    "MAX_EVALUATED",
    "MAX_REVIEWED",
    "MAX_SHOWN_PAIRS",
    "OFFERED_METHODS",
    "Clip",
    "Comparison",
    "Cosines",
    "EditRequest",
    "Estimate",
    "Evaluated",
    "Exported",
    "History",
    "Pack",
    "PairNote",
    "Rate",
    "RunCard",
    "SiteRow",
    "SpectrumView",
    "Tally",
    "Tile",
    "Vote",
    "Workbench",
    "blind_order",
    "data_folder",
    "evaluate",
    "example_jobs",
    "export_edit",
    "load_pack",
    "make_pack",
    "make_tiles",
    "other_jobs",
    "parse_axis",
    "parse_pasted",
    "push_edit",
    "review_prompts",
    "save_pack",
    "seed_jobs",
    "summary_of",
    "sweep_jobs",
    "tally",
]
