"""The bar plot of separation by layer, as plain HTML: it follows theme and width, and needs no script."""

from __future__ import annotations

from html import escape

from refusal_core.studio import texts
from refusal_core.workbench import Estimate, SiteRow

HEIGHT = 72  # pixels of the longest bar


def bars(found: Estimate | None) -> str:
    """Return a row of bars for each kind of site, one bar a layer, in units of d'."""
    rows = [r for r in (found.rows if found else ()) if r.d_prime is not None]
    if not rows:
        return f'<div class="rs-bars"><p>{escape(texts.PLOT_EMPTY)}</p></div>'
    top = max(max(_mean(rows, kind, layer) for kind, layer in _places(rows)), 1e-9)
    kinds = dict.fromkeys(r.kind for r in rows)
    groups = "".join(_group(rows, kind, top) for kind in kinds)
    return f'<div class="rs-bars"><p>{escape(texts.PLOT)}</p>{groups}</div>'


def _places(rows: list[SiteRow]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((r.kind, r.layer) for r in rows))


def _mean(rows: list[SiteRow], kind: str, layer: int) -> float:
    """Return the mean d' of the sites of one kind at one layer, such as key and value projections."""
    values = [r.d_prime for r in rows if (r.kind, r.layer) == (kind, layer) and r.d_prime is not None]
    return sum(values) / len(values)


def _group(rows: list[SiteRow], kind: str, top: float) -> str:
    items = []
    for place, layer in _places(rows):
        if place != kind:
            continue
        value = _mean(rows, kind, layer)
        height = max(2, round(HEIGHT * max(value, 0.0) / top))
        title = escape(texts.PLOT_BAR.format(kind=kind, layer=layer, value=value))
        items.append(
            f'<li title="{title}">{value:.1f}<i style="height:{height}px"></i><small>{layer}</small></li>'
        )
    return f"<section><h4>{escape(kind)}</h4><ol>{''.join(items)}</ol></section>"
