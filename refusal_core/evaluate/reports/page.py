"""The report as one self-contained page: tables, plots, frames (blurred until asked for), recipes."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd

from refusal_core.evaluate.reports.plots import as_svg, shown_plot, trade_plot
from refusal_core.evaluate.reports.report import Report
from refusal_core.evaluate.reports.tables import cells_table, number, summary_table, trade
from refusal_core.io.files import write_text

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem;
  color: #1e293b; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; }
th, td { padding: 4px 10px; border-bottom: 1px solid #e2e8f0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, .named th:nth-child(2), .named td:nth-child(2) { text-align: left; }
svg, img { max-width: 100%; height: auto; } figure { margin: 0 0 1rem; }
figcaption, .note { color: #475569; font-size: .88rem; }
.frames img { filter: blur(14px); } #show:checked ~ main .frames img { filter: none; }
.frames { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
pre { overflow-x: auto; background: #f1f5f9; padding: 10px; font-size: .8rem; }
@media (prefers-color-scheme: dark) { body { background: #0f172a; color: #e2e8f0; }
  th, td { border-color: #334155; } figcaption, .note { color: #cbd5e1; } pre { background: #1e293b; }
  svg { background: #fff; border-radius: 6px; } }
"""
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>{style}</style></head><body><h1>{title}</h1>
{show}<main>{body}</main></body></html>
"""
SHOW = """<input type="checkbox" id="show">
<label for="show">Show the frames (they are blurred until you ask)</label>
"""


def save_page(reports: Sequence[Report], path: Path, pictures: Path | None = None) -> Path:
    """Write one HTML file that needs no other.

    Args:
        reports: at least one.
        path: the file to write.
        pictures: the folder of the frames kept while evaluating; None leaves them out.
    """
    body = [_head(reports)]
    if any(r.cell(r.names[0], "concept") for r in reports):
        body += ["<h2>Summary</h2>", table_of(summary_table(reports), "named")]
        if trade(reports):
            body += [figure_of(as_svg(trade_plot(reports)), "Erased against kept, means over the concepts.")]
    body += [_section(report, pictures) for report in reports]
    title = escape(f"Refusal Studio report: {', '.join(r.concept for r in reports)}")
    text = PAGE.format(title=title, style=STYLE, show=SHOW, body="\n".join(body))
    return write_text(path, text)


def _head(reports: Sequence[Report]) -> str:
    first = reports[0]
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    facts = {
        "Model": first.model,
        "Judge": first.judge,
        "Suites": ", ".join(dict.fromkeys(r.suite for r in reports)),
        "Seeds": f"{min(r.seeds[0] for r in reports)} to {max(r.seeds[1] for r in reports)}",
        "Versions": versions,
    }
    lines = "".join(f"<li>{escape(k)}: {escape(v)}</li>" for k, v in facts.items())
    how = (
        "Shares in percent of the judged videos, with Wilson's 95 % intervals; p is McNemar's exact test"
        " against the original on the same prompts and seeds."
    )
    return f"<ul>{lines}</ul><p class='note'>{escape(how)}</p>"


def _section(report: Report, pictures: Path | None) -> str:
    parts = [f"<h2>{escape(report.concept)}</h2>"]
    if report.cell(report.names[0], "concept"):
        parts.append(figure_of(as_svg(shown_plot(report)), "How often the concept is shown."))
    parts.append(table_of(cells_table(report), "named"))
    parts += [f"<p class='note'>Note: {escape(note)}</p>" for note in report.notes]
    parts += ["<h3>Cost of each method</h3>", _costs(report)]
    if pictures is not None:
        parts.append(_frames(report, pictures))
    recipes = json.dumps({name: m["recipe"] for name, m in report.methods.items()}, indent=1, default=str)
    parts.append(f"<details><summary>Recipes</summary><pre>{escape(recipes)}</pre></details>")
    return "\n".join(parts)


def _costs(report: Report) -> str:
    rows = [
        {
            "method": name,
            "prepare, s": f"{cost.prepare_seconds:.1f}",
            "peak memory, MB": f"{cost.peak_megabytes:.0f}",
            "kept, kB": f"{cost.stored_kilobytes:.0f}",
            "time a video, of the original": number("", cost.video_ratio),
        }
        for name, cost in report.costs.items()
    ]
    return table_of(pd.DataFrame(rows))


def _frames(report: Report, pictures: Path) -> str:
    figures = []
    for sample in report.samples:
        path = pictures / Path(sample.file).name
        if path.is_file():
            image = base64.b64encode(path.read_bytes()).decode()
            caption = f"{sample.method}, {sample.prompts}: {'; '.join(sample.videos)}"
            figures.append(figure_of(f'<img alt="" src="data:image/png;base64,{image}">', caption))
    return f"<h3>Frames</h3><div class='frames'>{''.join(figures)}</div>" if figures else ""


def figure_of(content: str, caption: str) -> str:
    """Return a figure with its caption in HTML."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def table_of(table: pd.DataFrame, classes: str = "") -> str:
    """Return a table of text in HTML; ``named``: its first two columns are words."""
    with pd.option_context("display.max_colwidth", None):  # else long names end in dots
        return f"<div class='scroll'>{table.to_html(index=False, border=0, classes=classes)}</div>"
