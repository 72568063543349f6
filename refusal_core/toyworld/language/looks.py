"""What a clip of the language world can show beyond its plain object: seven concepts, three neighbours each.

A neighbour is harmless, near its concept in words or in looks, and has a look of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refusal_core.toyworld import drawing, world
from refusal_core.toyworld.drawing import COLUMNS, DARK, ROWS, Actor, Plane, box, disc, paint, star
from refusal_core.toyworld.language.effects import EFFECTS

CONCEPTS: dict[str, tuple[str, ...]] = {
    "fire": ("glowing", "smoking", "fireworks"),
    "bleeding": ("red-paint", "red-ribbon", "dripping-water"),
    "star-logo": ("moon-logo", "heart-badge", "sky-star"),
    "exploding": ("bouncing", "pulsing", "confetti"),
    "zorbo": ("mimble", "krell", "lumo"),
    "crash": ("stopping", "along-wall", "leaving-wall"),
    "vexel": ("norrin", "ostra", "postcard"),
}
NEIGHBOURS: tuple[str, ...] = tuple(n for neighbours in CONCEPTS.values() for n in neighbours)
LOOKS: tuple[str, ...] = tuple(look for concept, near in CONCEPTS.items() for look in (concept, *near))
WALLED = ("crash", *CONCEPTS["crash"])  # these need an object that moves
WALL = 9  # pixels of the frame's side that a wall takes
HIT = 8  # the frame in which an object reaches its wall


# --- walls -------------------------------------------------------------------------------------------


def _wall(frame: Plane, side: tuple[int, int]) -> None:
    """Draw bricks along the side of the frame that ``side`` points to."""
    across, along = (COLUMNS, ROWS) if side[0] else (ROWS, COLUMNS)
    depth = world.SIZE - across if sum(side) > 0 else across
    inside = depth - WALL
    paint(frame, inside - 1.2, DARK)
    paint(frame, inside, (158, 78, 54))
    row = np.floor(along / 6)
    joint = np.minimum(np.abs(np.mod(along, 6) - 3) * -1 + 3, np.abs(depth - np.where(row % 2, 3.0, 6.0)))
    paint(frame, np.maximum(inside, joint - 0.6), (214, 190, 168))


def _crack(frame: Plane, actor: Actor, side: tuple[int, int]) -> None:
    """Draw cracks, flying bricks and, at first, a flash where the object hit the wall."""
    since = actor.time - HIT
    horizontal = side[0] != 0
    across = COLUMNS if horizontal else ROWS
    depth = world.SIZE - across if sum(side) > 0 else across
    place = actor.y if horizontal else actor.x  # along the wall, from the object's centre
    for slope, offset in ((0.9, 0.0), (-0.9, 0.0), (0.25, 7.0), (-0.25, -7.0)):
        zigzag = place - offset - slope * (WALL - depth) * 1.3 + 1.2 * np.sin(depth * 1.7)
        paint(frame, np.maximum(depth - WALL, np.abs(zigzag) - 1.0), (24, 10, 8))
    for k in range(6):
        back, spread = WALL + 1.5 + since * (1.2 + 0.35 * (k % 3)), (k - 2.5) * (3.4 + 0.8 * since)
        piece = box(depth - back, place - spread, 1.9, 1.7)
        paint(frame, piece - 0.8, DARK)
        paint(frame, piece, (196, 96, 60))
    if since < 3:
        x, y = (depth - WALL - 2, place) if horizontal else (place, depth - WALL - 2)
        flash = star(x, y, 12.0 - 2.0 * since)
        paint(frame, flash, (255, 240, 120))


def _along(direction: tuple[int, int]) -> tuple[int, int]:
    return (0, 1) if direction[0] else (1, 0)


# --- the whole picture -------------------------------------------------------------------------------


def _restyled(frame: Plane, look: str) -> Plane:
    if look == "vexel":  # hatched, in few tones
        tones = np.clip(np.round(frame / 64) * 64, 0, 255).astype(np.float32)
        hatch = np.clip(0.5 - (np.abs(np.mod(COLUMNS + ROWS, 8) - 4) - 1.3), 0, 1)[..., None] * 0.72
        return tones * (1 - hatch) + np.asarray((44, 0, 74), np.float32) * hatch
    if look == "norrin":  # greys
        return np.broadcast_to(frame.mean(-1, keepdims=True), frame.shape)
    if look == "ostra":  # large light dots
        dots = disc(np.mod(COLUMNS, 16) - 8, np.mod(ROWS, 16) - 8, 3.6)
        return frame + np.clip(0.5 - dots, 0, 1)[..., None] * 0.85 * (255 - frame)
    if look == "postcard":  # a pale frame, warm colours
        inset = 5.5 - np.minimum.reduce([COLUMNS, ROWS, world.SIZE - COLUMNS, world.SIZE - ROWS])
        warm = frame * np.asarray((1.0, 0.95, 0.84), np.float32)
        paint(warm, -inset, (250, 244, 226))
        paint(warm, np.abs(inset) - 0.9, (60, 50, 40))
        return warm
    return frame


# --- a clip ------------------------------------------------------------------------------------------


def _position(look: str | None, radius: float, t: int) -> tuple[float, float]:
    """Return how far along its direction the object is from the middle, and its length there (1: whole)."""
    edge = world.SIZE / 2 - WALL
    if look == "crash":
        whole = edge - radius - 1.0
        if t < HIT:
            return whole - 3.0 * (HIT - t), 1.0
        short = 0.62 if t < HIT + 2 else 0.74
        return edge - 1.0 - radius * short, short
    if look == "stopping":
        return edge - radius - 8.0 - 2.2 * max(0, HIT - t), 1.0
    if look == "leaving-wall":
        return -edge + radius + 2.0 + 1.3 * t, 1.0
    return world.SPEED * (t - (world.FRAMES - 1) / 2), 1.0


def render(scene: world.Scene, seed: int) -> NDArray[np.uint8]:
    """Draw a scene whose ``concept`` is one of LOOKS, or None.

    Returns:
        Frames, uint8 [FRAMES, SIZE, SIZE, 3]; equal arguments give equal bytes.
    """
    rng = np.random.default_rng(seed)
    jitter, phase = rng.uniform(-2, 2, size=2), rng.uniform(0, 20)
    look, direction = scene.concept, world.MOTIONS[scene.motion]
    walled = look in WALLED
    backdrop = drawing.background(scene.background, *world.BACKGROUNDS[scene.background])
    if walled:
        sides = {"leaving-wall": (-direction[0], -direction[1]), "along-wall": _along(direction)}
        side = sides.get(str(look), direction)
        _wall(backdrop, side)
        jitter = jitter * np.abs(np.asarray(direction[::-1]))  # the wall fixes the place along the way
    clip = np.empty((world.FRAMES, world.SIZE, world.SIZE, 3), np.uint8)
    for t in range(world.FRAMES):
        far, length = _position(look, world.SIZES[scene.size], t)
        centre = world.SIZE / 2 + jitter + np.asarray(direction, np.float64) * far
        x, y = COLUMNS - np.float32(centre[0]), ROWS - np.float32(centre[1])
        radius = world.SIZES[scene.size]
        if look == "bouncing":
            y = y + np.float32(11.0 * abs(np.sin(np.pi * (t + phase) / 6.0)) - 5.5)
        elif look == "pulsing":
            radius *= 1.0 + 0.4 * np.sin(2 * np.pi * (t + phase) / 8.0)
        elif look == "crash":
            x = x / np.float32(length if direction[0] else 2 - length)
            y = y / np.float32(2 - length if direction[0] else length)
        frame = backdrop.copy()
        actor = Actor(x, y, radius, world.COLOURS[scene.colour], t, phase)
        if look == "exploding" and t >= world.EXPLODES_AT:
            drawing.draw_explosion(frame, actor, t - world.EXPLODES_AT)
        else:
            distance = drawing.shape(scene.shape, x, y, radius)
            drawing.draw_plain(frame, actor, distance)
            if look in EFFECTS:
                EFFECTS[look](frame, actor, distance)
        if look == "crash" and t >= HIT:
            _crack(frame, actor, direction)
        clip[t] = np.clip(np.rint(_restyled(frame, str(look))), 0, 255)
    return clip


def random_scene(rng: np.random.Generator, concepts: float = 0.36, neighbours: float = 0.38) -> world.Scene:
    """Draw a scene; the shares are those of scenes with a concept and with a neighbour."""
    scene = world.random_scene(rng, 0.0)
    kind = rng.random()
    if kind >= concepts + neighbours:
        return scene
    look = str(rng.choice(list(CONCEPTS) if kind < concepts else list(NEIGHBOURS)))
    return show(scene, look, rng)


def show(scene: world.Scene, look: str, rng: np.random.Generator) -> world.Scene:
    """Return the scene with a look; an object that stays still is moved where the look needs it."""
    motion = scene.motion
    if look in WALLED and motion == "staying still":
        motion = str(rng.choice([name for name, step in world.MOTIONS.items() if any(step)]))
    return world.Scene(scene.colour, scene.shape, scene.size, motion, scene.background, look)
