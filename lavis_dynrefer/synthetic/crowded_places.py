"""Crowds: objects that hide each other, and pairs that nearly share a box.

What is hidden can still be answered: of every object so much is visible that its size, and mostly
its shape and pattern, can be seen, and it never has the colour of what hides it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from lavis_dynrefer.images.boxes import box_area
from lavis_dynrefer.structures import Box
from lavis_dynrefer.synthetic.object_places import (
    MAX_HIDDEN,
    TRIES,
    draw_look,
    find_place,
    is_new_pair,
    surface_under,
)
from lavis_dynrefer.synthetic.random_stream import RandomStream
from lavis_dynrefer.synthetic.scene import Look, Scene, SceneObject, owner_map, tight_box
from lavis_dynrefer.synthetic.scene_world import HEIGHT, LANDMARK_WORLD_LIMIT, SIDES, WIDTH

MIN_VISIBLE = 0.25  # share of an object that stays visible
OCCLUDED = 0.6  # largest visible share of an object that counts as occluded
SHARED_IOU = 0.6  # of the boxes of two objects that nearly share one
_LANDMARK = 0  # number of it; hidden as little as in other worlds, because captions refer to it
_MIN_PIXELS = 90  # that stay visible
_MIN_LENGTH = 0.8  # of an object's longest side that its visible box keeps, to tell its size
_SHARED_VISIBLE = 0.3  # share of the lower object of a pair that stays visible
_LOOKS = 10  # tried for one object before it is placed alone
_HIGHEST_PILE = 3  # objects that lie on each other
# Distance of the centres of two objects, in shares of the sum of their sides.
_REACH = {"over": 0.42, "same box": 0.12}
# How the next object is placed: over another, in nearly the same box as another, or by itself.
_PLANS: Mapping[str, float] = {"over": 0.5, "same box": 0.38, "alone": 0.12}


def draw_crowd(
    rng: RandomStream, scene: Scene, count: int, held_out: frozenset[tuple[str, str]]
) -> list[SceneObject]:
    """A landmark and `count` - 1 objects, in drawing order.

    Args:
        rng: of the scene.
        scene: its grounds.
        count: number of objects.
        held_out: pairs of colour and category that must not occur.
    """
    objects: list[SceneObject] = []
    piles: list[int] = []  # of each object, the number of the lowest one of its pile
    hidden: set[int] = set()  # every object is hidden on purpose at most once
    while len(objects) < count:
        free = [
            number
            for number in range(1, len(objects))
            if number not in hidden and piles.count(piles[number]) < _HIGHEST_PILE
        ]
        plan = rng.weighted(_PLANS) if free else "alone"
        below, placed = None, None
        for _ in range(_LOOKS if plan != "alone" else 0):
            below = rng.pick(free)
            look = draw_look(rng, scene.world, landmark=False)
            if plan == "same box":
                look = _as_large(rng, look, objects[below].look)
            if is_new_pair(look, objects, held_out):
                placed = _place_over(rng, scene, look, objects, below, plan)
            if placed is not None:
                break
        if placed is None:
            below = None
            look = draw_look(rng, scene.world, landmark=not objects)
            if is_new_pair(look, objects, held_out):
                placed = find_place(rng, scene, look, objects)
        if placed is not None:
            objects.append(placed)
            piles.append(len(piles) if below is None else piles[below])
            hidden.update(() if below is None else (below,))
    return objects


def _as_large(rng: RandomStream, look: Look, other: Look) -> Look:
    """The look in the size of another object, so that both can have nearly the same box."""
    sides = [side for side in SIDES[other.size] if side <= LANDMARK_WORLD_LIMIT]
    close = [side for side in sides if 0.85 <= side / other.side <= 1.18]
    return dataclasses.replace(look, size=other.size, side=rng.pick(close))


def _place_over(
    rng: RandomStream,
    scene: Scene,
    look: Look,
    objects: list[SceneObject],
    below: int,
    plan: str,
) -> SceneObject | None:
    """Find a place over the object number `below`; None after too many tries."""
    mask = look.mask()
    height, width = mask.shape
    owner = owner_map(objects)
    wholes = [item.look.mask() for item in objects]
    x1, y1, x2, y2 = objects[below].box
    before = np.bincount(owner.ravel() + 1, minlength=len(objects) + 1)[1:]  # visible pixels
    pixels = int(wholes[below].sum())
    low, high = (_SHARED_VISIBLE, 1.0) if plan == "same box" else (MIN_VISIBLE, OCCLUDED)
    reach = _REACH[plan]
    for _ in range(TRIES):
        x = (x1 + x2) / 2 + rng.uniform(-reach, reach) * (x2 - x1 + width)
        y = (y1 + y2) / 2 + rng.uniform(-reach, reach) * (y2 - y1 + height)
        left, top = round(x - width / 2), round(y - height / 2)
        if left < 1 or top < 1 or left + width > WIDTH - 1 or top + height > HEIGHT - 1:
            continue
        box = tight_box(mask, left, top)
        surface = surface_under(scene, box)
        covers = owner[top : top + height, left : left + width][mask]
        lost = np.bincount(covers + 1, minlength=len(objects) + 1)[1:]
        share = (int(before[below]) - int(lost[below])) / pixels
        if surface is None or not lost[below] or not low <= share < high:
            continue
        if lost[_LANDMARK] > MAX_HIDDEN * len(covers):
            continue
        if look.colour in _colours_near(objects, wholes, box):
            continue
        after = owner.copy()
        after[top : top + height, left : left + width][mask] = len(objects)
        rests = [_rest(objects, wholes, number, after) for number in (below, *lost.nonzero()[0])]
        if None in rests or (plan == "same box" and _iou(rests[0], box) < SHARED_IOU):
            continue
        return SceneObject(look, left, top, box, 1.0, surface)
    return None


def _rest(
    objects: list[SceneObject], wholes: list[np.ndarray], number: int, owner: np.ndarray
) -> Box | None:
    """Box of what is visible of an object; None if that is too little."""
    item, whole = objects[number], wholes[number]
    height, width = whole.shape
    visible = owner[item.top : item.top + height, item.left : item.left + width] == number
    pixels, all_pixels = int(visible.sum()), int(whole.sum())
    least = 1 - MAX_HIDDEN if number == _LANDMARK else MIN_VISIBLE
    if pixels < max(least * all_pixels, _MIN_PIXELS):
        return None
    box = tight_box(visible, item.left, item.top)
    if max(box[2] - box[0], box[3] - box[1]) < _MIN_LENGTH * max(height, width):
        return None
    return box


def _colours_near(objects: list[SceneObject], wholes: list[np.ndarray], box: Box) -> set[str]:
    """Colours of the objects whose extent, hidden parts included, meets a box."""
    x1, y1, x2, y2 = box
    return {
        item.look.colour
        for item, whole in zip(objects[1:], wholes[1:])
        if item.left < x2
        and item.top < y2
        and x1 < item.left + whole.shape[1]
        and y1 < item.top + whole.shape[0]
    }


def _iou(box: Box, other: Box) -> float:
    across = min(box[2], other[2]) - max(box[0], other[0])
    down = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(across, 0.0) * max(down, 0.0)
    return shared / (box_area(box) + box_area(other) - shared)
