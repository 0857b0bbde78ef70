"""Random scenes: which objects, and where they go."""

from __future__ import annotations

import dataclasses

import numpy as np

from lavis_dynrefer.structures import Box
from lavis_dynrefer.synthetic.random_stream import RandomStream
from lavis_dynrefer.synthetic.scene import (
    Look,
    Scene,
    SceneObject,
    Zone,
    gap,
    location,
    owner_map,
    relation,
    tight_box,
)
from lavis_dynrefer.synthetic.scene_world import (
    BORDERS,
    CATEGORIES,
    COLOURS,
    FINISHES,
    HEIGHT,
    LANDMARK_SIDES,
    LANDMARK_WORLD_LIMIT,
    PATTERNS,
    POSES,
    SIDES,
    SIZES,
    SURFACES,
    SYMMETRIC,
    TILTS,
    WIDTH,
    WORLDS,
    check_world,
    held_out_pairs,
    split_of,
)
from lavis_dynrefer.synthetic.textures import MARGIN

_TRIES = 24  # positions tried for one object before another object is drawn
_MAX_HIDDEN = 0.3  # largest share of an object that others may cover
_ONE_GROUND = 0.85  # share of a box from which it lies on one ground
_REACH = 110.0  # largest distance of related boxes in pixels
_NEARER = 4.0  # pixels by which the nearest neighbour must be nearer than the second


def make_scene(seed: int, index: int, world: str = "landmark") -> Scene:
    """Lay out one scene; the same arguments give the same scene on every machine.

    Args:
        seed: any non-negative integer.
        index: from 1; `SPLIT_START` gives its split. Training scenes never show a held-out
            pair of colour and category.
        world: "landmark": captions place the other objects relative to a large solid one;
            "neighbour": captions place each object relative to its nearest neighbour.

    Raises:
        InputError: unknown world, or an index below 1.
    """
    check_world(world)
    held_out = held_out_pairs() if split_of(index) == "train" else frozenset()
    rng = RandomStream(seed, index, WORLDS.index(world))
    zones, sideways, edge = _draw_ground(rng)
    scene = Scene(seed, index, world, zones, sideways, edge, objects=())
    count = rng.integer(6, 10)
    objects: list[SceneObject] = []
    while len(objects) < count:
        look = _draw_look(rng, world, landmark=world == "landmark" and not objects)
        pair = (look.colour, look.category)
        if pair in held_out or any(pair == (o.look.colour, o.look.category) for o in objects):
            continue
        placed = _place(rng, scene, look, objects)
        if placed:
            objects.append(placed)
    return dataclasses.replace(scene, objects=_with_facts(objects, world))


def _draw_ground(rng: RandomStream) -> tuple[tuple[Zone, ...], bool, int]:
    surfaces = [rng.pick(SURFACES)]
    if rng.chance(0.5):
        surfaces.append(rng.pick([s for s in SURFACES if s != surfaces[0]]))
    zones = tuple(
        Zone(s, rng.integer(0, MARGIN), rng.integer(0, MARGIN), rng.uniform(0.92, 1.06))
        for s in surfaces
    )
    sideways = rng.chance(0.5)
    edge = round((WIDTH if sideways else HEIGHT) * rng.uniform(0.35, 0.65))
    return zones, sideways, edge


def _draw_look(rng: RandomStream, world: str, *, landmark: bool) -> Look:
    category = rng.pick(CATEGORIES)
    size = "large" if landmark else rng.weighted(SIZES)
    limit = LANDMARK_WORLD_LIMIT if world == "landmark" else max(SIDES["large"])
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


def _place(
    rng: RandomStream, scene: Scene, look: Look, objects: list[SceneObject]
) -> SceneObject | None:
    """Find a place for an object; None after too many tries."""
    mask = look.mask()
    owner = owner_map(objects)
    may_overlap = bool(objects) and rng.chance(0.25)
    for _ in range(_TRIES):
        x, y = _propose(rng, scene.world, look, objects, close=may_overlap)
        left, top = x - mask.shape[1] // 2, y - mask.shape[0] // 2
        right, bottom = left + mask.shape[1], top + mask.shape[0]
        if left < 1 or top < 1 or right > WIDTH - 1 or bottom > HEIGHT - 1:
            continue
        box = tight_box(mask, left, top)
        surface = _surface_under(scene, box)
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
    if not objects and world == "landmark":
        x = rng.integer(WIDTH // 5, 4 * WIDTH // 5)
        return x, rng.integer(HEIGHT // 4, 3 * HEIGHT // 4)
    if not objects or not (close or rng.chance(0.75)):
        return rng.integer(0, WIDTH), rng.integer(0, HEIGHT)
    anchor = objects[0] if world == "landmark" else rng.pick(objects)
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


def _surface_under(scene: Scene, box: Box) -> str | None:
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
    if len(hidden) > _MAX_HIDDEN * len(below):
        return False
    lost = np.bincount(hidden, minlength=len(objects))
    shares = _visible_shares(objects, owner)
    return all(
        share - int(n) / int(item.look.mask().sum()) >= 1 - _MAX_HIDDEN
        for share, n, item in zip(shares, lost, objects)
        if n
    )


def _visible_shares(objects: list[SceneObject], owner: np.ndarray) -> list[float]:
    counts = np.bincount(owner.ravel() + 1, minlength=len(objects) + 1)[1:]
    return [int(n) / int(item.look.mask().sum()) for n, item in zip(counts, objects)]


def _with_facts(objects: list[SceneObject], world: str) -> tuple[SceneObject, ...]:
    """The objects with visible boxes, locations and relations filled in."""
    owner = owner_map(objects)
    shares = _visible_shares(objects, owner)
    boxes = [tight_box(owner == number) for number in range(len(objects))]
    done = []
    for number, item in enumerate(objects):
        reference = _reference(boxes, number, world)
        word = None if reference is None else relation(boxes[number], boxes[reference])
        done.append(
            dataclasses.replace(
                item,
                box=boxes[number],
                visible=shares[number],
                location=location(boxes[number]),
                relation=word,
                reference=reference if word else None,
            )
        )
    return tuple(done)


def _reference(boxes: list[Box], number: int, world: str) -> int | None:
    """The reference object of `number`: the landmark, or a clearly nearest neighbour."""
    others = [k for k in range(len(boxes)) if k != number]
    if world == "landmark":
        others = [0] if number else []
    ranked = sorted((gap(boxes[number], boxes[k]), k) for k in others)
    if not ranked or ranked[0][0] > _REACH:
        return None
    if len(ranked) > 1 and ranked[1][0] < ranked[0][0] + _NEARER:
        return None
    return ranked[0][1]
