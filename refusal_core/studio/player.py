"""One transport for both videos: its markup, script and style. Runs in the browser, knows no model."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from importlib.resources import files

PLAYER = {
    "player": "Player of both videos",
    "scrub": "Position in both videos",
    "back": "One frame back",
    "forward": "One frame forward",
    "play": "Play",
    "pause": "Pause",
    "time": "Time",
    "frame": "frame {number} of {count}",
    "speeds": "Speed",
    "speed": "Speed {value}",
    "views": "View",
    "side": "Side by side",
    "wipe": "Wipe",
    "difference": "Difference",
    "blur": "Blur",
    "blur_long": "Blur the original",
    "help": "Keys",
    "divider": "Divider between original and unlearned",
    "original": "Original",
    "unlearned": "Unlearned",
    "wipe_stage": "Original left of the divider, unlearned right of it",
    "difference_stage": "Map of where the two videos differ",
    "legend": "Colours of the map: from no difference to 255",
    "mean": "mean difference {value} of 255",
    "keys": "Keyboard",
    "key_play": "Play or pause",
    "key_step": "One frame back or forward",
    "key_speed": "Slower or faster",
    "key_wipe": "Wipe or side by side",
    "key_difference": "Difference or side by side",
    "key_blur": "Blur or show the original",
    "key_help": "Show or hide this list",
}
KEYS = (
    ("k", "key_play"),
    (", .", "key_step"),
    ("[ ]", "key_speed"),
    ("w", "key_wipe"),
    ("d", "key_difference"),
    ("b", "key_blur"),
    ("?", "key_help"),
)
SPEEDS = {0.25: "¼×", 0.5: "½×", 1.0: "1×", 2.0: "2×"}  # noqa: RUF001 - the sign of multiplication
ICONS = {
    "grip": "<path d='M9 7l-5 5 5 5zM15 7l5 5-5 5z'/>",
    "play": "<path class='rs-when-paused' d='M7 4.5v15l12-7.5z'/>"
    "<path class='rs-when-playing' d='M6 5h4v14H6zM14 5h4v14h-4z'/>",
    "back": "<path d='M5 5h3v14H5zM19 5v14l-10-7z'/>",
    "forward": "<path d='M16 5h3v14h-3zM5 5v14l10-7z'/>",
    "blur": "<path d='M12 5c5 0 8.5 4.2 10 7-1.5 2.8-5 7-10 7S3.5 14.8 2 12c1.5-2.8 5-7 10-7zm0 2"
    "C8.4 7 5.7 9.8 4.3 12c1.4 2.2 4.1 5 7.7 5s6.3-2.8 7.7-5C18.3 9.8 15.6 7 12 7zm0 1.8"
    "a3.2 3.2 0 1 1 0 6.4 3.2 3.2 0 0 1 0-6.4z'/>"
    "<path class='rs-when-blurred' d='M3.3 4.7l1.4-1.4 16 16-1.4 1.4z'/>",
}


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _icon(name: str) -> str:
    return f"<svg viewBox='0 0 24 24' aria-hidden='true'>{ICONS[name]}</svg>"


def _button(part: str, label: str, inner: str, *, value: object = "", more: str = "") -> str:
    """Return a button named by its label (escaped), which an icon also shows as a tooltip."""
    tooltip = f" title='{label}'" if "<svg" in inner else ""
    return (
        f"<button type='button' data-rs='{part}' value='{value}' aria-label='{label}'{tooltip}{more}>"
        f"{inner}</button>"
    )


def _escaped(words: Mapping[str, str]) -> dict[str, str]:
    return {key: html.escape(text) for key, text in (PLAYER | dict(words)).items()}


def _keys(say: Mapping[str, str]) -> str:
    rows = "".join(
        f"<dt>{''.join(f'<kbd>{key}</kbd>' for key in keys.split())}</dt><dd>{say[word]}</dd>"
        for keys, word in KEYS
    )
    return (
        "<div class='rs-keys' data-rs='keys' id='rs-keys' role='group' hidden"
        f" aria-label='{say['keys']}'><b>{say['keys']}</b><dl>{rows}</dl></div>"
    )


def views(words: Mapping[str, str] = PLAYER) -> str:
    """Return the switch of views, the blur and the list of keys.

    Above the panes it stays where it is when the view, and with it the height below, changes.
    """
    say = _escaped(words)
    switch = "".join(
        f"<button type='button' data-rs='view' value='{name}' aria-pressed='{str(name == 'side').lower()}'"
        f"{'' if name == 'side' else ' disabled'}>{say[name]}</button>"
        for name in ("side", "wipe", "difference")
    )
    blur = _button(
        "blur",
        say["blur_long"],
        f"{_icon('blur')}<span>{say['blur']}</span>",
        more=" aria-pressed='true'",
    )
    hint = _button("help", say["help"], "?", more=" aria-expanded='false' aria-controls='rs-keys'")
    return (
        f"<div class='rs-player rs-views'><div class='rs-switch' role='group' aria-label='{say['views']}'>"
        f"{switch}</div><div class='rs-tools'>{blur}{hint}</div>{_keys(say)}</div>"
    )


def _stage(say: Mapping[str, str]) -> str:
    """Return the frame in which both videos meet; hidden until a view asks for it."""
    return (
        "<div class='rs-stage' data-rs='stage'><div class='rs-frame' data-rs='frame'>"
        f"<div class='rs-wipe' role='img' aria-label='{say['wipe_stage']}'>"
        f"<canvas data-rs='unlearned'></canvas><em class='unlearned'>{say['unlearned']}</em>"
        "<div class='rs-clip'><canvas class='rs-blurred' data-rs='original'></canvas>"
        f"<em class='original'>{say['original']}</em></div><i class='rs-line'>{_icon('grip')}</i></div>"
        f"<div class='rs-difference' role='img' aria-label='{say['difference_stage']}'>"
        "<canvas class='rs-blurred' data-rs='difference'></canvas></div></div>"
        f"<label class='rs-under rs-wipe-under'><span class='original'>{say['original']}</span>"
        f"<input type='range' data-rs='divider' min='0' max='100' value='50' aria-label='{say['divider']}'>"
        f"<span class='unlearned'>{say['unlearned']}</span></label>"
        "<div class='rs-under rs-difference-under'><span>0</span>"
        f"<canvas data-rs='legend' role='img' aria-label='{say['legend']}'></canvas><span>255</span>"
        "<b data-rs='mean'></b></div></div>"
    )


def bar(words: Mapping[str, str] = PLAYER, frame_seconds: float = 1 / 8, with_views: bool = True) -> str:
    """Return the whole player: views, stage and transport; it belongs below the panes.

    Args:
        words: texts to show instead of those in ``PLAYER``.
        frame_seconds: length of a frame; stepping and the frame number follow it.
        with_views: False where the page shows ``views()`` above the panes.
    """
    say = _escaped(words)
    told = {
        key: (PLAYER | dict(words))[key]
        for key in ("play", "pause", "frame", "mean", "original", "unlearned")
    }
    speeds = "".join(
        _button(
            "speed",
            say["speed"].format(value=sign),
            sign,
            value=f"{speed:g}",
            more=f" disabled aria-pressed='{str(speed == 1).lower()}'",
        )
        for speed, sign in SPEEDS.items()
    )
    moves = "".join(
        _button(part, say[part], _icon(part), more=" disabled") for part in ("back", "play", "forward")
    )
    return (views(words) if with_views else "") + (
        f"<div class='rs-player rs-transport' role='group' aria-label='{say['player']}' tabindex='-1'"
        f" data-frame='{frame_seconds!r}' data-words='{html.escape(json.dumps(told))}'>{_stage(say)}"
        f"<input type='range' data-rs='scrub' min='0' max='1' value='0' step='any' disabled"
        f" aria-label='{say['scrub']}'><div class='rs-controls'><div class='rs-moves'>{moves}</div>"
        f"<p class='rs-time'><b data-rs='time'>0:00.00 / 0:00.00</b>"
        f"<span data-rs='frame-number'>{say['frame'].format(number=0, count=0)}</span></p>"
        f"<div class='rs-switch' role='group' aria-label='{say['speeds']}'>{speeds}</div></div></div>"
    )


ONCE = "if (window.rsPlayer) return;\nwindow.rsPlayer = true;"
SCRIPT = "\n".join(["() => {", ONCE, _asset("stage.js"), _asset("player.js"), _asset("controls.js"), "}"])
STYLE = _asset("player.css")
SYNC = SCRIPT

# The choice is kept for the session of the tab, no longer.
REVEAL = """(on) => {
  document.body.dataset.rsReveal = on ? 'on' : 'off';
  sessionStorage.setItem('rs-reveal', document.body.dataset.rsReveal);
  return on;
}"""
REMEMBER = """() => {
  document.body.dataset.rsReveal = sessionStorage.getItem('rs-reveal') === 'on' ? 'on' : 'off';
  return document.body.dataset.rsReveal === 'on';
}"""
