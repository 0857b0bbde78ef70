"""Random scenes: which objects, and where they go."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lavis_dynrefer.structures import Box
from lavis_dynrefer.synthetic.crowded_places import draw_crowd
from lavis_dynrefer.synthetic.object_places import (
    draw_look,
    find_place,
    is_new_pair,
    visible_shares,
)
from lavis_dynrefer.synthetic.painting.textures import MARGIN
from lavis_dynrefer.synthetic.random_stream import RandomStream
from lavis_dynrefer.synthetic.scene import (
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
    CATEGORIES,
    HEIGHT,
    LANDMARK_WORLDS,
    SURFACES,
    WIDTH,
    WORLDS,
    check_world,
    held_out_pairs,
    split_of,
)

_REACH = 110.0  # largest distance of related boxes in pixels
_NEARER = 4.0  # pixels by which the nearest neighbour must be nearer than the second


def make_scene(
    seed: int,
    index: int,
    world: str = "landmark",
    *,
    categories: Sequence[str] = CATEGORIES,
) -> Scene:
    """Lay out one scene; the same arguments give the same scene on every machine.

    Args:
        seed: any non-negative integer.
        index: from 1; `SPLIT_START` gives its split. Training scenes never show a held-out
            pair of colour and category.
        world: "landmark": captions place the other objects relative to a large solid one;
            "neighbour": captions place each object relative to its nearest neighbour;
            "crowded": as "landmark", but objects hide each other: many are visible to 25 to 60 %,
            and pairs of objects have nearly the same box.
        categories: what the objects besides a landmark may be, also those of `NEW_SHAPES`; one that
            is named twice is twice as likely. A crowd shows the known ones only.

    Raises:
        InputError: unknown world, or an index below 1.
    """
    check_world(world)
    held_out = held_out_pairs() if split_of(index) == "train" else frozenset()
    rng = RandomStream(seed, index, WORLDS.index(world))
    zones, sideways, edge = _draw_ground(rng)
    scene = Scene(seed, index, world, zones, sideways, edge, objects=())
    count = rng.integer(6, 10)
    if world == "crowded":
        objects = draw_crowd(rng, scene, count, held_out)
    else:
        objects = _draw_objects(rng, scene, count, held_out, categories)
    return dataclasses.replace(scene, objects=_with_facts(objects, world))


def _draw_objects(
    rng: RandomStream,
    scene: Scene,
    count: int,
    held_out: frozenset[tuple[str, str]],
    categories: Sequence[str],
) -> list[SceneObject]:
    objects: list[SceneObject] = []
    while len(objects) < count:
        is_landmark = scene.world in LANDMARK_WORLDS and not objects
        look = draw_look(rng, scene.world, landmark=is_landmark, categories=categories)
        placed = None
        if is_new_pair(look, objects, held_out):
            placed = find_place(rng, scene, look, objects)
        if placed:
            objects.append(placed)
    return objects


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


def _with_facts(objects: list[SceneObject], world: str) -> tuple[SceneObject, ...]:
    """The objects with visible boxes, locations and relations filled in."""
    owner = owner_map(objects)
    shares = visible_shares(objects, owner)
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
    if world in LANDMARK_WORLDS:
        others = [0] if number else []
    ranked = sorted((gap(boxes[number], boxes[k]), k) for k in others)
    if not ranked or ranked[0][0] > _REACH:
        return None
    if len(ranked) > 1 and ranked[1][0] < ranked[0][0] + _NEARER:
        return None
    return ranked[0][1]
