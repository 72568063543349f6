"""The map of separation (kinds of sites by layers) and the spectrum of a site, as plain HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence

from refusal_core.studio import texts
from refusal_core.studio.layout import message
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench.values import Cosines, Estimate, SiteRow, SpectrumView

# Cells are buttons: reachable by keyboard, and named. With Shift the layers are stretched, not replaced.
PICK = """
element.addEventListener('click', e => {
  const cell = e.target.closest('button[data-kind]');
  if (cell) trigger('pick', {kind: cell.dataset.kind, layer: +cell.dataset.layer, more: e.shiftKey});
});
"""
MAX_BARS = 24


def heat_map(estimate: Estimate) -> str:
    """Return a table of buttons, darker where unsafe and safe are told apart better."""
    rows = [r for r in estimate.rows if r.d_prime is not None]
    if not rows:
        return message("map_none")
    kinds = list(dict.fromkeys(r.kind for r in rows))
    layers = sorted({r.layer for r in rows})
    means = {(k, n): _mean(rows, k, n) for k in kinds for n in layers}
    top = max([v for v in means.values() if v is not None] or [1.0]) or 1.0
    head = "".join(f"<th scope='col'>{n}</th>" for n in layers)
    body = "".join(
        f"<tr><th scope='row'>{escaped(kind)}</th>"
        + "".join(_cell(kind, n, means[kind, n], top) for n in layers)
        + "</tr>"
        for kind in kinds
    )
    return f"<p>{TEXT['map_lead']}</p>{_table(head, body)}"


def _mean(rows: Sequence[SiteRow], kind: str, layer: int) -> float | None:
    """Return the mean d' of the sites of one kind at one layer, such as key and value projections."""
    values = [r.d_prime for r in rows if (r.kind, r.layer) == (kind, layer) and r.d_prime is not None]
    return sum(values) / len(values) if values else None


def _cell(kind: str, layer: int, value: float | None, top: float) -> str:
    if value is None:
        return "<td></td>"
    share = max(0.0, min(1.0, value / top))
    name = escaped(texts.MAP_CELL.format(kind=kind, layer=layer, value=value))
    return (
        f"<td><button type='button' data-kind='{escaped(kind)}' data-layer='{layer}'"
        f" title='{name}' aria-label='{name}' style='--heat:{share:.2f}'>{value:.1f}</button></td>"
    )


def spectrum(view: SpectrumView | None) -> str:
    """Return the eigenvalues as bars, those that are removed filled, with the share of r that they hold."""
    if view is None:
        return message("spectrum_wait")
    if not view.values:
        return message("spectrum_none")
    values, shares = view.values[:MAX_BARS], view.shares[:MAX_BARS]
    top = max(values) or 1.0
    pairs = enumerate(zip(values, shares, strict=True))
    bars = "".join(_bar(i, v / top, s, i < view.rank_used) for i, (v, s) in pairs)
    share = shares[min(view.rank_used, len(shares)) - 1] if view.rank_used else 0.0
    line = texts.SPECTRUM_AT.format(
        site=view.site, used=view.rank_used, available=view.rank_available, share=share
    )
    return (
        f"<p>{TEXT['spectrum_lead']}</p>"
        f"<div role='img' aria-label='{escaped(line)}'><ol class='rs-spectrum'>{bars}</ol></div>"
        f"<p class='rs-said'>{escaped(line)}</p>"
    )


def _bar(index: int, value: float, share: float, used: bool) -> str:
    """Return one bar; heights are logarithmic, so that small eigenvalues can be seen beside large ones."""
    title = f"{index + 1}: {value:.3g} of the largest, {share:.0%} of r"
    return (
        f"<li class='{'used' if used else 'free'}' title='{title}'>"
        f"<b style='height:{100 * math.log1p(99 * max(0.0, value)) / math.log(100):.1f}%'></b>"
        f"<u style='bottom:{100 * min(1.0, share):.1f}%'></u></li>"
    )


def cosine_table(cosines: Cosines) -> str:
    """Return how alike the concepts' directions are."""
    head = "".join(f"<th scope='col'>{escaped(name)}</th>" for name in cosines.names)
    body = "".join(
        f"<tr><th scope='row'>{escaped(name)}</th>{''.join(map(_cosine, row))}</tr>"
        for name, row in zip(cosines.names, cosines.rows, strict=True)
    )
    return _table(head, body)


def _cosine(value: float) -> str:
    return f"<td><span style='--heat:{value:.2f}'>{value:.2f}</span></td>"


def _table(head: str, body: str) -> str:
    rows = f"<tr><td></td>{head}</tr>{body}"
    return f"<div class='rs-scroll'><table class='rs-map'>{rows}</table></div>"
