"""Every sentence of the app: those in ``strings`` in English and, as proof that it can be, in German."""

from __future__ import annotations

import html
import json
from pathlib import Path

import gradio as gr

TITLE = "Refusal Studio"

_FOLDER = Path(__file__).parent / "strings"


def _read(language: str) -> dict[str, str]:
    return json.loads((_FOLDER / f"{language}.json").read_text(encoding="utf-8"))


EN, DE = _read("en"), _read("de")
TRANSLATIONS = gr.I18n(en=EN, de=DE)

# Sentences with numbers in them are made on the server, in English.
PAIRS_GOOD = "{count} pairs, all usable."
ROW = "Row {row}: {sentence}"
UNEXPECTED = (
    "Something unexpected happened (report number {number}). The model is unchanged; please try again."
)
BY_UPLOAD = "Files are taken by upload only, not from an address."
NOT_READABLE = "The inputs are not of the kind that is asked for here; nothing was run."
QUALITY = "SSIM {ssim:.3f}, PSNR {psnr:.1f} dB against the original"
SPECTRUM_AT = "{site}: k {used} of {available} available hold {share:.0%} of r"
MAP_CELL = "{kind}, layer {layer}: d' {value:.2f}"
MODEL_NEEDS = "{title}: about {gigabytes:.1f} GB of weights in {dtype}; {free:.1f} GB are free."
MODEL_READY = "{title} is ready: layers 0-{last}."
TALLY = (
    "{voters} voter(s). Concept shown: original {before}, unlearned {after}. "
    "Unlearned looks better in {better} of the votes that found a difference; {same} found none."
)
VOTE_PLACE = "Pair {place} of {count}: {prompt}"
SENT = "Sent to {address}"
FIGURES_HEAD = ["Site", "AUC", "d'", "Kept share", "Rank used"]
PAIRS_HEAD = ["Unsafe prompt", "Safe prompt"]


def t(key: str) -> str:
    """Return a text that the browser shows in its own language; raises KeyError for an unknown key."""
    if key not in EN:
        raise KeyError(key)
    return str(TRANSLATIONS(key))


def h(key: str) -> str:
    """Return a text for use inside HTML; a script puts it into the browser's language (see SCRIPT).

    Gradio itself translates one text a string only, which is enough for labels.
    """
    return f"<span data-t='{key}'>{html.escape(EN[key], quote=False)}</span>"


# Runs in the browser: puts texts made by ``h`` into its language, also those that come or change later.
SCRIPT = (
    "() => {\n"
    f"  const words = {{de: {json.dumps(DE, ensure_ascii=True)}}}[navigator.language.slice(0, 2)];\n"
    """  if (!words) return;
  const put = e => { const w = words[e?.dataset?.t]; if (w && e.textContent !== w) e.textContent = w; };
  const all = root => root.querySelectorAll?.('[data-t]').forEach(put);
  new MutationObserver(changes => changes.forEach(c => {
    put((c.target.closest ? c.target : c.target.parentElement)?.closest('[data-t]'));
    c.addedNodes.forEach(n => { put(n); all(n); });
  })).observe(document.body, {
    childList: true, subtree: true, characterData: true, attributeFilter: ['data-t'],
  });
  all(document);
}"""
)


def escaped(text: str) -> str:
    """Return text of a user or the core, safe inside HTML."""
    return html.escape(text, quote=True)
