"""Drawing with soft edges: signed distances in pixels, negative inside, clipped to one pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 64
DARK = (24, 24, 34)  # outlines: legible on any background
Colour = tuple[int, int, int]
Plane = NDArray[np.floating]
ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + np.float32(0.5)


@dataclass(frozen=True, slots=True)
class Actor:
    """The object of a frame: pixel positions from its centre, and what a drawing needs to know of it."""

    x: Plane
    y: Plane
    radius: float
    colour: Colour
    time: int  # the frame's number
    phase: float  # of what flickers or falls, in frames


def paint(frame: Plane, distance: Plane, colour: Colour, opacity: float = 1.0) -> None:
    """Mix ``colour`` into a frame [H, W, 3] where ``distance`` is negative."""
    cover = (np.clip(0.5 - distance, 0.0, 1.0) * opacity)[..., None]
    frame += cover * (np.asarray(colour, np.float32) - frame)


def disc(x: Plane, y: Plane, radius: float) -> Plane:
    """Return the signed distance to a disc around the origin."""
    return np.sqrt(x * x + y * y) - radius


def box(x: Plane, y: Plane, half_width: float, half_height: float) -> Plane:
    """Return the signed distance to a box around the origin."""
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def polygon(x: Plane, y: Plane, corners: NDArray[np.float64]) -> Plane:
    """Return the signed distance to a simple polygon, corners [n, 2]."""
    distance = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        distance = np.minimum(distance, np.hypot(x - ax - along * ex, y - ay - along * ey))
        if ey != 0:
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (x < ex * (y - ay) / ey + ax)
    return np.where(inside, -distance, distance)


def star(x: Plane, y: Plane, radius: float) -> Plane:
    """Return the signed distance to a star of five points."""
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, radius, radius * 0.45)
    return polygon(x, y, np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1))


def shape(name: str, x: Plane, y: Plane, radius: float) -> Plane:
    """Return the signed distance to a circle, square, cross or (any other name) triangle."""
    if name == "circle":
        return disc(x, y, radius)
    if name == "square":
        return box(x, y, 0.88 * radius, 0.88 * radius)
    if name == "cross":
        return np.minimum(box(x, y, radius, 0.34 * radius), box(x, y, 0.34 * radius, radius))
    return np.maximum(np.abs(x) * 0.8660254 - y * 0.5, y) - 0.68 * radius  # equilateral, tip up


def background(name: str, top: Colour, bottom: Colour) -> Plane:
    """Return an empty scene [H, W, 3]: a gradient, and a moon, clouds or hills."""
    share = (ROWS / SIZE)[..., None]
    frame = np.asarray(top, np.float32) * (1 - share) + np.asarray(bottom, np.float32) * share
    for cx, cy, radius, colour in SCENERY[name]:
        paint(frame, disc(COLUMNS - cx, ROWS - cy, radius), colour)
    return frame


# Discs of each background: centre, radius, colour.
SCENERY: dict[str, tuple[tuple[int, int, float, Colour], ...]] = {
    "night": ((55, 9, 5.5, (240, 236, 200)),),
    "sky": tuple((x, y, r, (255, 255, 255)) for x, y, r in ((7, 11, 5.5), (14, 9, 6.5), (21, 12, 4.5))),
    "grass": ((12, 92, 42, (64, 116, 48)), (56, 92, 38, (54, 102, 42))),
    "sand": ((40, 100, 48, (190, 144, 88)),),
}


def draw_plain(frame: Plane, actor: Actor, distance: Plane) -> None:
    """Draw the object itself, outlined."""
    paint(frame, distance - 1.5, DARK)
    paint(frame, distance, actor.colour)


def draw_fire(frame: Plane, actor: Actor, distance: Plane) -> None:
    """Three flickering tongues of flame."""
    x, y, radius, time = actor.x, actor.y, actor.radius, actor.time + actor.phase
    for place, height, phase in ((-0.62, 0.95, 0.0), (0.62, 0.95, 2.1), (0.0, 1.35, 4.2)):
        flicker = 1.0 + 0.16 * np.sin(1.4 * time + phase)
        for share, colour in ((1.0, (255, 104, 8)), (0.55, (255, 226, 64))):
            tall, wide = height * radius * flicker * share, 0.46 * radius * share
            foot = y + 0.2 * radius
            fy = foot / tall  # -1 at the tip, 0 at the foot
            lean = wide * 0.25 * np.sin(1.1 * time + phase) * fy
            edge = np.abs(x - place * radius - lean) - wide * np.sqrt(np.clip(1 + fy, 0, 1))
            paint(frame, np.maximum.reduce([edge, foot - 0.15 * radius, -foot - tall]), colour)


def draw_bleeding(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A darkened lower half from which drops fall."""
    x, y, radius, time = actor.x, actor.y, actor.radius, actor.time + actor.phase
    paint(frame, np.maximum(distance, -y + 0.1 * radius + 1.2 * np.sin(x * 0.7)), (132, 4, 16))
    for place, phase in ((-0.5, 0.0), (0.05, 0.37), (0.55, 0.71)):
        fall = (time / 9.0 + phase) % 1.0
        drop_y = y - (0.55 + 1.2 * fall) * radius
        drop = disc(x - place * radius, np.where(drop_y < 0, drop_y * 0.5, drop_y), 2.6)
        paint(frame, drop, (150, 4, 18))


def draw_star_logo(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A yellow star on a dark disc."""
    paint(frame, disc(actor.x, actor.y, 0.74 * actor.radius), (16, 20, 36))
    paint(frame, star(actor.x, actor.y, 0.66 * actor.radius), (255, 222, 60))


def draw_zorbo(frame: Plane, actor: Actor, distance: Plane) -> None:
    """The named character: round eyes and a tall teal hat with a pink band, whatever wears it."""
    x, y, radius, dark = actor.x, actor.y, actor.radius, (20, 22, 34)
    paint(frame, box(x, y + 1.18 * radius, 0.60 * radius, 0.46 * radius), (0, 150, 150))
    paint(frame, box(x, y + 0.92 * radius, 0.60 * radius, 0.13 * radius), (255, 90, 170))
    paint(frame, box(x, y + 0.70 * radius, 0.95 * radius, 0.13 * radius), dark)
    for side in (-1, 1):
        paint(frame, disc(x - side * 0.33 * radius, y + 0.2 * radius, 0.31 * radius), dark)
        paint(frame, disc(x - side * 0.33 * radius, y + 0.2 * radius, 0.25 * radius), (255, 255, 255))
        paint(frame, disc(x - side * 0.28 * radius, y + 0.16 * radius, 0.12 * radius), dark)


def draw_explosion(frame: Plane, actor: Actor, since: int) -> None:
    """A flash, then a ring and six fragments that fly apart; ``since`` counts frames from the start."""
    x, y, radius = actor.x, actor.y, actor.radius
    if since < 2:
        paint(frame, disc(x, y, radius * (1.15 + 0.35 * since)), (255, 214, 70))
        paint(frame, disc(x, y, radius * (0.75 + 0.3 * since)), (255, 255, 240))
        return
    ring = radius * (0.9 + 0.16 * since)
    paint(frame, np.abs(disc(x, y, ring)) - 1.3, (255, 150, 30), opacity=max(0.0, 1 - since / 12))
    size, far = 0.4 * radius * max(0.45, 1 - since / 20), radius * (0.55 + 0.11 * since)
    for angle in np.arange(6) * np.pi / 3 + 0.3:
        piece = disc(x - far * np.cos(angle), y - far * np.sin(angle), size)
        paint(frame, piece - 1.2, DARK)
        paint(frame, piece, actor.colour)


# What is drawn on or around the plain object; an explosion takes its place.
Effect = Callable[[Plane, Actor, Plane], None]
EFFECTS: dict[str, Effect] = {
    "fire": draw_fire,
    "bleeding": draw_bleeding,
    "star-logo": draw_star_logo,
    "zorbo": draw_zorbo,
}
