"""Which object comes next, and where it goes so that it can be told from the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lavis_dynrefer.structures import Box
from lavis_dynrefer.synthetic.random_stream import RandomStream
from lavis_dynrefer.synthetic.scene import Look, Scene, SceneObject, owner_map, tight_box
from lavis_dynrefer.synthetic.scene_world import (
    BORDERS,
    CATEGORIES,
    COLOURS,
    FINISHES,
    HEIGHT,
    LANDMARK_SIDES,
    LANDMARK_WORLD_LIMIT,
    LANDMARK_WORLDS,
    PATTERNS,
    POSES,
    SIDES,
    SIZES,
    SYMMETRIC,
    TILTS,
    WIDTH,
)

TRIES = 24  # positions tried for one object before another object is drawn
MAX_HIDDEN = 0.3  # largest share of an object that others may cover, but for crowds
_ONE_GROUND = 0.85  # share of a box from which it lies on one ground


def draw_look(
    rng: RandomStream, world: str, *, landmark: bool, categories: Sequence[str] = CATEGORIES
) -> Look:
    """A random appearance; that of a landmark is large, solid, and of a known category."""
    category = rng.pick(CATEGORIES if landmark else categories)
    size = "large" if landmark else rng.weighted(SIZES)
    limit = LANDMARK_WORLD_LIMIT if world in LANDMARK_WORLDS else max(SIDES["large"])
    sides = LANDMARK_SIDES if landmark else [side for side in SIDES[size] if side <= limit]
    tilted = category in SYMMETRIC or rng.weighted(POSES) == "tilted"
    return Look(
        category=category,
        colour=rng.weighted(COLOURS),
        pattern="solid" if landmark else rng.weighted(PATTERNS),
        size=size,
        side=rng.pick(sides),
        finish=rng.weighted(FINISHES),
        border=rng.weighted(BORDERS),
        angle=rng.pick(TILTS) if tilted else 0,
        mirrored=rng.chance(0.5),
    )


def find_place(
    rng: RandomStream, scene: Scene, look: Look, objects: list[SceneObject]
) -> SceneObject | None:
    """Find a place for an object; None after too many tries."""
    mask = look.mask()
    owner = owner_map(objects)
    may_overlap = bool(objects) and rng.chance(0.25)
    for _ in range(TRIES):
        x, y = _propose(rng, scene.world, look, objects, close=may_overlap)
        left, top = x - mask.shape[1] // 2, y - mask.shape[0] // 2
        right, bottom = left + mask.shape[1], top + mask.shape[0]
        if left < 1 or top < 1 or right > WIDTH - 1 or bottom > HEIGHT - 1:
            continue
        box = tight_box(mask, left, top)
        surface = surface_under(scene, box)
        if surface is None:
            continue
        around = owner[max(0, top - 3) : bottom + 3, max(0, left - 3) : right + 3]
        if (around < 0).all() or (may_overlap and _little_hidden(objects, owner, left, top, mask)):
            return SceneObject(look, left, top, box, 1.0, surface)
    return None


def _propose(
    rng: RandomStream, world: str, look: Look, objects: list[SceneObject], *, close: bool
) -> tuple[int, int]:
    """A centre in pixels: often near another object, so that they are related."""
    if not objects and world in LANDMARK_WORLDS:
        x = rng.integer(WIDTH // 5, 4 * WIDTH // 5)
        return x, rng.integer(HEIGHT // 4, 3 * HEIGHT // 4)
    if not objects or not (close or rng.chance(0.75)):
        return rng.integer(0, WIDTH), rng.integer(0, HEIGHT)
    anchor = objects[0] if world in LANDMARK_WORLDS else rng.pick(objects)
    if close:
        anchor = rng.pick(objects)
    x1, y1, x2, y2 = anchor.box
    distance = -rng.uniform(0.1, 0.4) * look.side if close else rng.uniform(6, 90)
    reach = distance + look.side / 2
    along = rng.uniform(0.0, 1.0)
    sideways, before = rng.chance(0.5), rng.chance(0.5)
    if sideways:
        return round(x1 - reach if before else x2 + reach), round(y1 + along * (y2 - y1))
    return round(x1 + along * (x2 - x1)), round(y1 - reach if before else y2 + reach)


def surface_under(scene: Scene, box: Box) -> str | None:
    """The ground under most of the box; None if there are two."""
    if len(scene.zones) == 1:
        return scene.zones[0].surface
    low, high = (box[0], box[2]) if scene.sideways else (box[1], box[3])
    before = (min(max(scene.edge, low), high) - low) / (high - low)
    if _ONE_GROUND > before > 1 - _ONE_GROUND:
        return None
    return scene.zones[0 if before >= _ONE_GROUND else 1].surface


def _little_hidden(
    objects: list[SceneObject], owner: np.ndarray, left: int, top: int, mask: np.ndarray
) -> bool:
    """Whether a new object would lie mostly on the ground and hide little of the others."""
    below = owner[top : top + mask.shape[0], left : left + mask.shape[1]][mask]
    hidden = below[below >= 0]
    if len(hidden) > MAX_HIDDEN * len(below):
        return False
    lost = np.bincount(hidden, minlength=len(objects))
    shares = visible_shares(objects, owner)
    return all(
        share - int(n) / int(item.look.mask().sum()) >= 1 - MAX_HIDDEN
        for share, n, item in zip(shares, lost, objects)
        if n
    )


def visible_shares(objects: list[SceneObject], owner: np.ndarray) -> list[float]:
    """Share of each object that no other covers."""
    counts = np.bincount(owner.ravel() + 1, minlength=len(objects) + 1)[1:]
    return [int(n) / int(item.look.mask().sum()) for n, item in zip(counts, objects)]


def is_new_pair(
    look: Look, objects: Sequence[SceneObject], held_out: frozenset[tuple[str, str]]
) -> bool:
    """Whether colour and category are allowed, and no other object of the scene has both."""
    pair = (look.colour, look.category)
    return pair not in held_out and all(
        pair != (item.look.colour, item.look.category) for item in objects
    )
