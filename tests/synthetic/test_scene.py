from __future__ import annotations

import numpy as np
import pytest

from lavis_dynrefer.synthetic.scene import Look, gap, location, relation, tight_box

MIDDLE = (100.0, 100.0, 140.0, 140.0)


@pytest.mark.parametrize(
    ("box", "word"),
    [
        ((20.0, 100.0, 60.0, 140.0), "left of"),
        ((200.0, 100.0, 240.0, 140.0), "right of"),
        ((100.0, 20.0, 140.0, 60.0), "above"),
        ((100.0, 200.0, 140.0, 240.0), "below"),
        ((200.0, 150.0, 240.0, 190.0), "right of"),  # 100 across is 1.5 times 50 down and more
        ((200.0, 170.0, 240.0, 210.0), None),  # 100 across, 70 down: neither is clear
        ((110.0, 105.0, 140.0, 135.0), None),  # its centre lies inside the other box
    ],
)
def test_only_clear_relations_are_named(box, word):
    assert relation(box, MIDDLE) == word


def test_relations_are_antisymmetric():
    left = (20.0, 110.0, 60.0, 150.0)
    assert (relation(left, MIDDLE), relation(MIDDLE, left)) == ("left of", "right of")


@pytest.mark.parametrize(
    ("box", "word"),
    [
        ((0.0, 0.0, 20.0, 20.0), "top left"),
        ((230.0, 330.0, 250.0, 350.0), "bottom"),
        ((460.0, 170.0, 478.0, 190.0), "right"),
        ((230.0, 170.0, 250.0, 190.0), "middle"),
        ((150.0, 170.0, 170.0, 190.0), None),  # at a third of the width: neither left nor middle
    ],
)
def test_locations_are_thirds_of_the_image(box, word):
    assert location(box) == word


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((150.0, 100.0, 160.0, 110.0), 10.0),
        ((143.0, 144.0, 160.0, 160.0), 5.0),  # 3 across and 4 down
        ((120.0, 120.0, 160.0, 160.0), 0.0),
    ],
)
def test_gap_is_the_distance_of_the_nearest_points(box, pixels):
    assert gap(box, MIDDLE) == gap(MIDDLE, box) == pixels


def test_a_tight_box_ends_after_the_last_pixel():
    mask = np.zeros((6, 7), dtype=bool)
    mask[2, 3] = mask[4, 5] = True
    assert tight_box(mask) == (3.0, 2.0, 6.0, 5.0)
    assert tight_box(mask, left=10, top=20) == (13.0, 22.0, 16.0, 25.0)


@pytest.mark.parametrize(
    ("category", "angle", "pose"),
    [("mug", 0, "upright"), ("mug", -28, "tilted"), ("star", -28, None), ("ball", 42, None)],
)
def test_symmetric_shapes_have_no_pose(category, angle, pose):
    look = Look(category, "red", "solid", "medium", 40, "matte", "borderless", angle, False)
    assert look.pose == pose
