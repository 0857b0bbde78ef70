from __future__ import annotations

import numpy as np
import pytest

from lavis_dynrefer.synthetic import scene_drawing
from lavis_dynrefer.synthetic.scene import Scene, gap, owner_map
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_world import (
    HEIGHT,
    LANDMARK_WORLDS,
    SIDES,
    SPLIT_START,
    WIDTH,
    WORLDS,
    held_out_pairs,
)

INDICES = [start + i for start in SPLIT_START.values() for i in range(8)]
SCENES = {world: [make_scene(3, index, world) for index in INDICES] for world in WORLDS}


def objects_of(world):
    return [(scene, item) for scene in SCENES[world] for item in scene.objects]


@pytest.mark.parametrize("world", WORLDS)
def test_a_scene_depends_only_on_its_arguments(world):
    assert make_scene(3, INDICES[1], world) == SCENES[world][1]


def test_seed_index_and_world_all_change_the_scene():
    looks = {
        tuple(item.look for item in make_scene(*arguments).objects)
        for arguments in [
            (0, 1, "landmark"),
            (1, 1, "landmark"),
            (0, 2, "landmark"),
            (0, 1, "neighbour"),
        ]
    }
    assert len(looks) == 4


@pytest.mark.parametrize("world", WORLDS)
def test_scenes_hold_six_to_ten_objects(world):
    assert {6 <= len(scene.objects) <= 10 for scene in SCENES[world]} == {True}


@pytest.mark.parametrize("world", WORLDS)
def test_boxes_lie_inside_the_image(world):
    boxes = np.array([item.box for _, item in objects_of(world)])
    assert boxes.min() >= 1
    assert boxes[:, 2].max() <= WIDTH - 1
    assert boxes[:, 3].max() <= HEIGHT - 1


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("number", [0, 3, 5])
def test_boxes_are_tight_around_the_drawn_pixels(world, number, monkeypatch):
    monkeypatch.setattr(scene_drawing, "_SHADOW", 0.0)  # shadows belong to no object
    scene = SCENES[world][2]
    objects = list(scene.objects)
    with_it = np.asarray(scene_drawing.render(scene), dtype=int)
    del objects[number]
    without = np.asarray(scene_drawing.render(_with_objects(scene, objects)), dtype=int)
    rows, columns = np.nonzero(np.abs(with_it - without).sum(axis=-1))
    drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    outside = (drawn - np.array(scene.objects[number].box)) * [-1, -1, 1, 1]
    # pixels at the rim are covered less than half: drawn, but not counted as the object's
    assert outside.min() >= 0
    assert outside.max() <= 1


def _with_objects(scene, objects):
    return Scene(**{**vars(scene), "objects": tuple(objects)})


@pytest.mark.parametrize("world", ["landmark", "neighbour"])
def test_some_objects_are_hidden_by_at_most_30_percent(world):
    shares = [item.visible for _, item in objects_of(world)]
    assert min(shares) >= 0.7
    assert min(shares) < 1


@pytest.mark.parametrize("world", WORLDS)
def test_later_objects_lie_on_top(world):
    scene = SCENES[world][4]
    owner = owner_map(scene.objects)
    last = scene.objects[-1]
    mask = last.look.mask()
    patch = owner[last.top : last.top + mask.shape[0], last.left : last.left + mask.shape[1]]
    assert last.visible == 1
    assert (patch[mask] == len(scene.objects) - 1).all()


@pytest.mark.parametrize("world", WORLDS)
def test_training_shows_no_held_out_pair(world):
    pairs = {
        (item.look.colour, item.look.category)
        for index in range(1, 40)
        for item in make_scene(0, index, world).objects
    }
    assert not pairs & held_out_pairs()


@pytest.mark.parametrize("split", ["val", "test", "val2017"])
def test_the_other_splits_show_held_out_pairs(split):
    pairs = {
        (item.look.colour, item.look.category)
        for index in range(SPLIT_START[split], SPLIT_START[split] + 12)
        for item in make_scene(0, index).objects
    }
    assert pairs & held_out_pairs()


@pytest.mark.parametrize("world", WORLDS)
def test_relations_hold_between_the_boxes(world):
    related = [(s, o) for s, o in objects_of(world) if o.relation]
    assert related
    assert [o for s, o in related if not holds(o.relation, o.box, s.objects[o.reference].box)] == []


def holds(word, box, other):
    """Whether the middle of `box` lies beyond `other`, and mainly in that direction."""
    right = (box[0] + box[2] - other[0] - other[2]) / 2
    down = (box[1] + box[3] - other[1] - other[3]) / 2
    main, cross, half = {
        "left of": (-right, down, (other[2] - other[0]) / 2),
        "right of": (right, down, (other[2] - other[0]) / 2),
        "above": (-down, right, (other[3] - other[1]) / 2),
        "below": (down, right, (other[3] - other[1]) / 2),
    }[word]
    return main > half and main >= 1.5 * abs(cross)


@pytest.mark.parametrize("world", LANDMARK_WORLDS)
def test_the_landmark_is_first_solid_and_largest(world):
    landmarks = [scene.objects[0] for scene in SCENES[world]]
    assert {mark.look.pattern for mark in landmarks} == {"solid"}
    assert min(mark.look.side for mark in landmarks) >= 95
    assert min(mark.visible for mark in landmarks) >= 0.7
    assert max(o.look.side for s in SCENES[world] for o in s.objects[1:]) <= 70


@pytest.mark.parametrize("world", LANDMARK_WORLDS)
def test_landmark_relations_point_at_the_landmark(world):
    assert {o.reference for _, o in objects_of(world)} == {None, 0}


def test_neighbour_relations_point_at_the_clearly_nearest_object():
    lead = []
    for scene, item in objects_of("neighbour"):
        if item.relation:
            reference = scene.objects[item.reference]
            others = [o for o in scene.objects if o is not item and o is not reference]
            nearest = min(gap(item.box, other.box) for other in others)
            lead.append(nearest - gap(item.box, reference.box))
    assert min(lead) >= 4  # pixels


@pytest.mark.parametrize("world", WORLDS)
def test_objects_of_a_scene_differ_in_colour_or_category(world):
    counts = [
        len(scene.objects) - len({(o.look.colour, o.look.category) for o in scene.objects})
        for scene in SCENES[world]
    ]
    assert set(counts) == {0}


def test_no_object_is_between_two_sizes():
    # tilting and the rim add at most a quarter to the longest side
    assert 1.25 * max(SIDES["small"]) < min(SIDES["medium"])
    assert 1.25 * max(SIDES["medium"]) < min(SIDES["large"])


def test_rejects_an_unknown_world():
    with pytest.raises(ValueError, match="world: unknown 'moon'"):
        make_scene(0, 1, "moon")


def test_scene_indices_start_at_one():
    with pytest.raises(ValueError, match="start at 1"):
        make_scene(0, 0)
