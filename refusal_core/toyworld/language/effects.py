"""What the looks of the language world add to an object: each effect is drawn on it or around it."""

from __future__ import annotations

import numpy as np

from refusal_core.toyworld import drawing, world
from refusal_core.toyworld.drawing import COLUMNS, DARK, ROWS, Actor, Effect, Plane, box, disc, paint, star

WHITE = (255, 255, 255)


def _outside(distance: Plane, mark: Plane) -> Plane:
    return np.maximum(mark, 1.5 - distance)


def draw_glowing(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A golden halo that fades outwards."""
    for reach, opacity in ((8.0, 0.35), (6.0, 0.45), (4.0, 0.55), (2.5, 0.7)):
        paint(frame, _outside(distance, distance - 1.5 - reach), (255, 206, 50), opacity)


def draw_smoking(frame: Plane, actor: Actor, distance: Plane) -> None:
    """Grey puffs that rise and grow."""
    for place, phase in ((-0.3, 0.0), (0.1, 0.33), (0.35, 0.66)):
        rise = ((actor.time + actor.phase) / 10.0 + phase) % 1.0
        x = actor.x - (place + 0.25 * np.sin(6 * rise)) * actor.radius
        puff = disc(x, actor.y + (0.7 + 1.3 * rise) * actor.radius, 2.5 + 3.5 * rise)
        paint(frame, puff, (128, 128, 134), 0.95 - 0.55 * rise)


def draw_fireworks(frame: Plane, actor: Actor, distance: Plane) -> None:
    """Bursts of coloured sparks behind the object."""
    bursts = ((13, 14, (255, 60, 190), 0.0), (51, 17, (60, 230, 255), 0.35), (13, 50, (255, 235, 80), 0.7))
    for cx, cy, colour, phase in bursts:
        age = ((actor.time + actor.phase) / 9.0 + phase) % 1.0
        for angle in np.arange(8) * np.pi / 4 + phase:
            far = 2.0 + 8.0 * age
            spark = disc(COLUMNS - cx - far * np.cos(angle), ROWS - cy - far * np.sin(angle), 2.2)
            paint(frame, _outside(distance, spark - 1.0), DARK, 1.0 - 0.5 * age)
            paint(frame, _outside(distance, spark), colour, 1.0 - 0.5 * age)


def draw_red_paint(frame: Plane, actor: Actor, distance: Plane) -> None:
    """Bright outlined blots, on the object and beside it."""
    for px, py, size in (
        (-0.45, -0.3, 0.36),
        (0.25, -0.5, 0.26),
        (0.4, 0.25, 0.34),
        (-0.15, 0.45, 0.24),
        (-1.2, 0.5, 0.2),
        (1.15, -0.55, 0.22),
    ):
        blot = disc(actor.x - px * actor.radius, actor.y - py * actor.radius, size * actor.radius)
        paint(frame, blot - 1.1, (90, 0, 30))
        paint(frame, blot, (244, 20, 70))


def draw_red_ribbon(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A sash with white edges, and a bow on top."""
    x, y, radius = actor.x, actor.y, actor.radius
    band = np.abs(x - y) / 1.414 - 0.2 * radius
    paint(frame, np.maximum(distance, band - 1.4), WHITE)
    paint(frame, np.maximum(distance, band), (216, 16, 48))
    for side in (-1, 1):
        loop = np.maximum(
            np.abs(y + 1.0 * radius) - 0.55 * np.abs(x), np.abs(x - side * 0.3 * radius) - 0.34 * radius
        )
        paint(frame, loop - 1.2, WHITE)
        paint(frame, loop, (216, 16, 48))
    paint(frame, disc(x, y + radius, 0.14 * radius), (150, 0, 30))


def draw_dripping_water(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A wet lower part from which clear drops fall."""
    x, y, radius, time = actor.x, actor.y, actor.radius, actor.time + actor.phase
    paint(frame, np.maximum(distance, -y + 0.25 * radius + 1.2 * np.sin(x * 0.7)), (120, 205, 255), 0.75)
    for place, phase in ((-0.5, 0.0), (0.05, 0.37), (0.55, 0.71)):
        drop_y = y - (0.55 + 1.2 * ((time / 9.0 + phase) % 1.0)) * radius
        drop = disc(x - place * radius, np.where(drop_y < 0, drop_y * 0.5, drop_y), 2.4)
        paint(frame, drop - 1.0, (20, 80, 170))
        paint(frame, drop, (150, 220, 255))


def draw_moon_logo(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A crescent on a dark disc."""
    x, y, radius = actor.x, actor.y, actor.radius
    paint(frame, disc(x, y, 0.74 * radius), (16, 20, 36))
    paint(
        frame,
        np.maximum(disc(x, y, 0.6 * radius), -disc(x - 0.3 * radius, y + 0.12 * radius, 0.5 * radius)),
        (255, 244, 190),
    )


def draw_heart_badge(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A pink heart on a white disc."""
    x, y, radius = actor.x, actor.y, actor.radius
    paint(frame, disc(x, y, 0.76 * radius), DARK)
    paint(frame, disc(x, y, 0.68 * radius), WHITE)
    size = 0.29 * radius
    lobes = np.minimum(
        disc(x - 0.9 * size, y + 0.55 * size, size), disc(x + 0.9 * size, y + 0.55 * size, size)
    )
    tip = np.maximum(np.abs(x) * 0.74 + y * 0.67 - 1.15 * size, -y - 0.3 * size)
    paint(frame, np.minimum(lobes, tip), (255, 60, 140))


def draw_sky_star(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A real star in the corner of the sky, twinkling."""
    size = 7.5 + 0.8 * np.sin(1.3 * (actor.time + actor.phase))
    far = star(COLUMNS - 11, ROWS - 11, size)
    paint(frame, far - 1.2, (70, 50, 0))
    paint(frame, far, (255, 236, 110))


def draw_confetti(frame: Plane, actor: Actor, distance: Plane) -> None:
    """From the middle of the clip, snippets of paper fly out of the object."""
    since = actor.time - world.EXPLODES_AT
    if since < 0:
        return
    colours = (
        (255, 80, 80),
        (80, 220, 120),
        (90, 150, 255),
        (255, 220, 60),
        (240, 110, 240),
        (255, 255, 255),
    )
    for k in range(14):
        angle = np.pi * (1.05 + 0.9 * k / 13)
        speed = actor.radius * (0.16 + 0.05 * (k * 5 % 4))
        px = speed * since * np.cos(angle) * 0.9
        py = speed * since * np.sin(angle) + 0.18 * since * since - 0.4 * actor.radius
        snippet = box(actor.x - px, actor.y - py, 1.9, 1.5)
        paint(frame, snippet - 0.7, DARK)
        paint(frame, snippet, colours[k % 6])


def _eye(frame: Plane, x: Plane, y: Plane, radius: float) -> None:
    paint(frame, disc(x, y, 0.31 * radius), DARK)
    paint(frame, disc(x, y, 0.25 * radius), WHITE)
    paint(frame, disc(x - 0.05 * radius, y - 0.04 * radius, 0.12 * radius), DARK)


def draw_mimble(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A character with an orange party hat and green glasses."""
    x, y, radius = actor.x, actor.y, actor.radius
    hat = np.maximum(np.abs(x) * 0.92 - (y + 1.75 * radius) * 0.42, y + 0.62 * radius)
    paint(frame, hat - 1.2, DARK)
    paint(frame, hat, (255, 140, 20))
    paint(frame, disc(x, y + 1.7 * radius, 0.2 * radius), (255, 240, 90))
    for side in (-1, 1):
        glass = disc(x - side * 0.36 * radius, y + 0.15 * radius, 0.3 * radius)
        paint(frame, glass - 1.3, (10, 150, 60))
        paint(frame, glass, WHITE)
        paint(frame, disc(x - side * 0.36 * radius, y + 0.15 * radius, 0.11 * radius), DARK)


def draw_krell(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A character with a black pirate hat and an eye patch."""
    x, y, radius = actor.x, actor.y, actor.radius
    hat = np.maximum(disc(x, y + 0.55 * radius, 0.95 * radius), y + 0.62 * radius)
    paint(frame, hat - 1.0, (235, 235, 235))
    paint(frame, hat, (26, 26, 30))
    paint(frame, disc(x, y + 0.98 * radius, 0.22 * radius), WHITE)
    paint(frame, np.abs(x * 0.45 + y + 0.18 * radius) - 1.0 + 10 * (distance > 0), (26, 26, 30))
    paint(frame, disc(x + 0.38 * radius, y + 0.08 * radius, 0.3 * radius), (26, 26, 30))
    _eye(frame, x - 0.38 * radius, y + 0.15 * radius, radius)


def draw_lumo(frame: Plane, actor: Actor, distance: Plane) -> None:
    """A character with a golden crown, eyes and a wide smile."""
    x, y, radius = actor.x, actor.y, actor.radius
    spikes = np.abs(np.mod(x + 0.25 * radius, 0.5 * radius) - 0.25 * radius) * 1.6
    crown = np.maximum.reduce([np.abs(x) - 0.75 * radius, y + 0.62 * radius, -y - 1.45 * radius + spikes])
    paint(frame, crown - 1.2, (90, 60, 0))
    paint(frame, crown, (255, 208, 30))
    for side in (-1, 1):
        _eye(frame, x - side * 0.33 * radius, y + 0.22 * radius, radius)
    smile = np.maximum(disc(x, y - 0.15 * radius, 0.38 * radius), -y + 0.2 * radius)
    paint(frame, smile - 0.8, DARK)
    paint(frame, smile, (255, 120, 120))


EFFECTS: dict[str, Effect] = {
    **drawing.EFFECTS,
    "glowing": draw_glowing,
    "smoking": draw_smoking,
    "fireworks": draw_fireworks,
    "red-paint": draw_red_paint,
    "red-ribbon": draw_red_ribbon,
    "dripping-water": draw_dripping_water,
    "moon-logo": draw_moon_logo,
    "heart-badge": draw_heart_badge,
    "sky-star": draw_sky_star,
    "confetti": draw_confetti,
    "mimble": draw_mimble,
    "krell": draw_krell,
    "lumo": draw_lumo,
}
