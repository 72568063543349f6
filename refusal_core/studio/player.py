"""One transport for both videos: its markup, script and style. Runs in the browser, knows no model."""

from __future__ import annotations

from importlib.resources import files

KEYS = {
    "k": "Play or pause",
    ", .": "One frame back or forward",
    "[ ]": "Slower or faster",
    "w": "Wipe or side by side",
    "d": "Difference or side by side",
    "b": "Blur or show the original",
    "?": "Show or hide this list",
}
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


def _button(part: str, label: str, inner: str, more: str = "") -> str:
    """Return a button named by its label, which an icon also shows as a tooltip."""
    tooltip = f" title='{label}'" if "<svg" in inner else ""
    return f"<button type='button' data-rs='{part}' aria-label='{label}'{tooltip}{more}>{inner}</button>"


def _keys() -> str:
    rows = "".join(
        f"<dt>{''.join(f'<kbd>{key}</kbd>' for key in keys.split())}</dt><dd>{does}</dd>"
        for keys, does in KEYS.items()
    )
    return (
        "<div class='rs-keys' data-rs='keys' id='rs-keys' role='group' hidden aria-label='Keyboard'>"
        f"<b>Keyboard</b><dl>{rows}</dl></div>"
    )


def views() -> str:
    """Return the switch of views, the blur and the list of keys.

    Above the panes it stays where it is when the view, and with it the height below, changes.
    """
    switch = "".join(
        f"<button type='button' data-rs='view' value='{name}' {more}>{label}</button>"
        for name, label, more in (
            ("side", "Side by side", "aria-pressed='true'"),
            ("wipe", "Wipe", "aria-pressed='false' disabled"),
            ("difference", "Difference", "aria-pressed='false' disabled"),
        )
    )
    blur = _button("blur", "Blur the original", f"{_icon('blur')}<span>Blur</span>", " aria-pressed='true'")
    hint = _button("help", "Keys", "?", " aria-expanded='false' aria-controls='rs-keys'")
    return (
        "<div class='rs-player rs-views'><div class='rs-switch' role='group' aria-label='View'>"
        f"{switch}</div><div class='rs-tools'>{blur}{hint}</div>{_keys()}</div>"
    )


def _stage() -> str:
    """Return the frame in which both videos meet; hidden until a view asks for it."""
    return (
        "<div class='rs-stage' data-rs='stage'><div class='rs-frame' data-rs='frame'>"
        "<div class='rs-wipe' role='img' aria-label='Original left of the divider, unlearned right of it'>"
        "<canvas data-rs='unlearned'></canvas><em class='unlearned'>Unlearned</em>"
        "<div class='rs-clip'><canvas class='rs-blurred' data-rs='original'></canvas>"
        f"<em class='original'>Original</em></div><i class='rs-line'>{_icon('grip')}</i></div>"
        "<div class='rs-difference' role='img' aria-label='Map of where the two videos differ'>"
        "<canvas class='rs-blurred' data-rs='difference'></canvas></div></div>"
        "<label class='rs-under rs-wipe-under'><span class='original'>Original</span>"
        "<input type='range' data-rs='divider' min='0' max='100' value='50'"
        " aria-label='Divider between original and unlearned'>"
        "<span class='unlearned'>Unlearned</span></label>"
        "<div class='rs-under rs-difference-under'><span>0</span><canvas data-rs='legend' role='img'"
        " aria-label='Colours of the map: from no difference to 255'></canvas><span>255</span>"
        "<b data-rs='mean'></b></div></div>"
    )


def bar() -> str:
    """Return the stage and the transport; they belong below the panes, and ``views`` above.

    How long a frame is, stands in ``data-frame`` in the original's verdict.
    """
    speeds = "".join(
        _button(
            "speed", f"Speed {sign}", sign,
            f" value='{speed:g}' disabled aria-pressed='{str(speed == 1).lower()}'",
        )
        for speed, sign in SPEEDS.items()
    )  # fmt: skip
    labels = {"back": "One frame back", "play": "Play", "forward": "One frame forward"}
    moves = "".join(_button(part, label, _icon(part), " disabled") for part, label in labels.items())
    return (
        "<div class='rs-player rs-transport' role='group' aria-label='Player of both videos' tabindex='-1'>"
        f"{_stage()}<input type='range' data-rs='scrub' min='0' max='1' value='0' step='any' disabled"
        f" aria-label='Position in both videos'><div class='rs-controls'><div class='rs-moves'>{moves}</div>"
        "<p class='rs-time'><b data-rs='time'>0:00.00 / 0:00.00</b>"
        "<span data-rs='frame-number'>frame 0 of 0</span></p>"
        f"<div class='rs-switch' role='group' aria-label='Speed'>{speeds}</div></div></div>"
    )


ONCE = "if (window.rsPlayer) return;\nwindow.rsPlayer = true;"
SCRIPT = "\n".join(["() => {", ONCE, _asset("stage.js"), _asset("player.js"), _asset("controls.js"), "}"])
STYLE = _asset("player.css")
