"""The paper's two tables: what they say, what it takes to make them again, and ours beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pandas import DataFrame

from refusal_core.errors import InputError
from refusal_core.evaluate.reports.cells import Cell
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.reports.tables import as_latex, as_markdown, interval, percent
from refusal_core.models.inventory import build_on_meta
from refusal_core.models.model import family_of


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One row of a table of the paper: unsafe rates in percent, by its judge."""

    category: str  # as our suite names it
    preset: str  # whose pairs erase it here
    original: float
    other: float | None  # NullSCE in table 1, SAFREE in table 2
    paper: float


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table of the paper and what it was measured on."""

    title: str
    suite: str
    model: str  # that the paper used
    other: str
    rows: tuple[PaperRow, ...]
    fvd: tuple[float, float]  # of the original and of theirs
    steps: int
    flops: Callable[[], float]  # of one step on one prompt, both guidance branches


def open_sora_flops() -> float:
    """Return the multiply-adds, times two, of a step of STDiT3-XL/2 at 51 frames of 240 x 426.

    Per token and block 14 H^2: query, key, value and output (4), cross-attention's query and output (2), and
    the feed-forward of width 4 H (8). Attention itself and the text are small beside these.
    """
    hidden, blocks, branches = 1152, 28 + 28, 2
    frames, rows, columns = 15, 240 // 8 // 2, -(-(426 // 8) // 2)
    return 2.0 * 14 * hidden**2 * blocks * branches * frames * rows * columns


def zeroscope_flops() -> float:
    """Return the operations of a step of ZeroScope at 24 frames of 320 x 576, counted on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    family = family_of("TextToVideoSDPipeline")
    network = build_on_meta(family.checkpoints[0].networks[0])
    with torch.device("meta"):
        arguments = torch.empty(2, 4, 24, 40, 72), torch.empty(2), torch.empty(2, 77, 1024)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*arguments)
    return float(counter.get_total_flops())


TABLES: dict[str, PaperTable] = {
    "table1": PaperTable(
        title="Open-Sora on T2VSafetyBench",
        suite="t2vsafetybench",
        model="open-sora",
        other="NullSCE",
        rows=(
            PaperRow("copyright-trademark", "real-trademark", 73.0, 48.0, 33.0),
            PaperRow("pornography", "real-nudity", 44.7, 23.0, 13.4),
            PaperRow("sequential-action-risk", "real-sequential-action", 41.8, 22.0, 9.1),
            PaperRow("gore", "real-gore", 74.9, None, 5.3),
            PaperRow("public-figures", "real-public-figure", 10.0, 9.0, 2.0),
        ),
        fvd=(164.53, 160.36),
        steps=30,
        flops=open_sora_flops,
    ),
    "table2": PaperTable(
        title="ZeroScope on SafeSora",
        suite="safesora",
        model="cerspense/zeroscope_v2_576w",
        other="SAFREE",
        rows=(
            PaperRow("violence", "real-violence", 71.7, 50.6, 10.2),
            PaperRow("terrorism", "real-terrorism", 76.0, 52.0, 4.0),
            PaperRow("racism", "real-racism", 73.3, 57.8, 4.4),
            PaperRow("sexual", "real-nudity", 51.5, 18.2, 9.1),
            PaperRow("animal-abuse", "real-animal-abuse", 67.8, 37.0, 22.2),
        ),
        fvd=(69.44, 69.02),
        steps=50,
        flops=zeroscope_flops,
    ),
}
SUSTAINED = 120.0  # TFLOP/s, assumed: what a GPU of 300 keeps up in bfloat16
READING_BYTES = 400  # a video's line in the journal, at most
PICTURE_BYTES = 300 << 10  # a few frames of one category under one method, as PNG, at most
METHODS = ("original", "safree", "paper", "whitened")


def paper_table(name: str) -> PaperTable:
    """Return a table by its name; raises InputError with what there is."""
    if name not in TABLES:
        raise InputError(f"There is no '{name}'; choose one of {', '.join(TABLES)}.")
    return TABLES[name]


def forecast(table: PaperTable, counts: dict[str, int], methods: Sequence[str]) -> str:
    """Return what a run makes, in Markdown: videos, GPU hours and disk.

    Args:
        table: of the paper.
        counts: prompts of each category.
        methods: each makes every prompt's video once.
    """
    rows, total = [], 0
    flops = table.flops()
    seconds = table.steps * flops / (SUSTAINED * 1e12)
    for row in table.rows:
        videos = counts.get(row.category, 0) * len(methods)
        total += videos
        hours = f"{videos * seconds / 3600:.1f}"
        rows.append([row.category, str(counts.get(row.category, 0)), str(videos), hours])
    pictures = len(table.rows) * len(methods)
    disk = total * READING_BYTES + pictures * PICTURE_BYTES
    rows.append(["all", str(sum(counts.values())), str(total), f"{total * seconds / 3600:.1f}"])
    head = ["category", "prompts", "videos", "GPU hours"]
    return (
        f"{table.title}: {', '.join(methods)}\n\n{as_markdown(DataFrame(rows, columns=head))}\n\n"
        f"{seconds:.1f} s a video: {table.steps} steps of {flops / 1e12:.1f} TFLOP (counted) at"
        f" {SUSTAINED:.0f} TFLOP/s (assumed; scale it to your GPU). Disk: readings and {pictures}"
        f" pictures of a few frames, under {max(1, disk >> 20)} MB; videos are not kept."
    )


def beside_paper(table: PaperTable, reports: Sequence[Report], *, latex: bool = False) -> str:
    """Return the paper's figures and ours in one table, and below it what else is to be said.

    Shares are in percent, ours with their 95 % intervals. In LaTeX, what is below is a comment.
    """
    both = _side_by_side(table, reports)
    lines = [
        f"FVD, paper: original {table.fvd[0]:.2f}, theirs {table.fvd[1]:.2f}; ours is measured by `distance`"
        " on two folders of videos."
    ]
    if any(_broken(cell) for report in reports for cell in report.cells):
        lines.append("Broken: videos that are flat, noise or frozen where the original's are not.")
    lines += [f"Note: {report.concept}, {note}" for report in reports for note in report.notes]
    if latex:
        return "\n".join([as_latex(both), *(f"% {' '.join(line.split())}" for line in lines)])
    return "\n".join([as_markdown(both), "", *lines])


def _side_by_side(table: PaperTable, reports: Sequence[Report]) -> DataFrame:
    methods = list(dict.fromkeys(name for report in reports for name in report.names))
    head = ["category", "paper: original", f"paper: {table.other}", "paper: theirs"]
    head += [f"ours: {method}" for method in methods]
    rows = []
    for row in table.rows:
        cells = []
        for method in methods:
            measured = (report.cell(method, row.category) for report in reports)
            cells.append(next((_shown(cell) for cell in measured if cell is not None), "-"))
        other = "-" if row.other is None else f"{row.other:.1f}"
        rows.append([row.category, f"{row.original:.1f}", other, f"{row.paper:.1f}", *cells])
    rows.append(_means(table, reports, methods))
    return DataFrame(rows, columns=head)


def _shown(cell: Cell) -> str:
    broken = _broken(cell)
    return f"{interval(cell.unsafe)}, {percent(broken)} broken" if broken else interval(cell.unsafe)


def _broken(cell: Cell) -> float:
    return cell.quality.get("broken", 0.0)


def _means(table: PaperTable, reports: Sequence[Report], methods: Sequence[str]) -> list[str]:
    """Return the row of means over categories."""
    others = [row.other for row in table.rows if row.other is not None]
    theirs = [sum(getattr(row, k) for row in table.rows) / len(table.rows) for k in ("original", "paper")]
    ours = []
    for method in methods:
        cells = [r.cell(method, row.category) for r in reports for row in table.rows]
        rates = [c.unsafe.rate for c in cells if c is not None and c.unsafe.rate is not None]
        ours.append(percent(sum(rates) / len(rates)) if rates else "-")
    return ["mean", f"{theirs[0]:.1f}", f"{sum(others) / len(others):.1f}", f"{theirs[1]:.1f}", *ours]
