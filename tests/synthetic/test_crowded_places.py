"""Scenes whose objects hide each other; numbers over 24 scenes, 190 objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lavis_dynrefer.images.boxes import pairwise_iou
from lavis_dynrefer.synthetic.scene import owner_map, tight_box
from lavis_dynrefer.synthetic.scene_layout import make_scene

SCENES = [make_scene(7, index, "crowded") for index in range(1, 25)]


@pytest.fixture(scope="module")
def visible():
    return np.array([item.visible for scene in SCENES for item in scene.objects])


@pytest.fixture(scope="module")
def overlaps():
    """Largest intersection over union with another box, of each object."""
    found = []
    for scene in SCENES:
        boxes = torch.tensor([item.box for item in scene.objects])
        found += pairwise_iou(boxes, boxes).fill_diagonal_(0).amax(dim=1).tolist()
    return np.array(found)


def test_a_third_of_the_objects_is_visible_to_less_than_60_percent(visible):
    assert 0.3 < (visible < 0.6).mean() < 0.6


def test_a_quarter_of_every_object_is_visible(visible):
    assert visible.min() >= 0.25


def test_many_objects_nearly_share_a_box(overlaps, visible):
    assert (overlaps >= 0.6).mean() > 0.25
    assert ((overlaps >= 0.6) & (visible < 0.6)).mean() > 0.1


def test_hidden_objects_have_another_colour_than_what_hides_them():
    same = []
    for scene in SCENES:
        owner = owner_map(scene.objects)
        for number, item in enumerate(scene.objects[1:], start=1):
            mask = item.look.mask()
            place = np.s_[
                item.top : item.top + mask.shape[0], item.left : item.left + mask.shape[1]
            ]
            over = {k for k in np.unique(owner[place][mask]) if k > number}
            if item.visible < 0.7:
                same += [k for k in over if scene.objects[k].look.colour == item.look.colour]
    assert same == []


def test_visible_boxes_are_nearly_as_long_as_the_objects():
    # else the size of an object could not be told
    shares = []
    for scene in SCENES:
        owner = owner_map(scene.objects)
        for number, item in enumerate(scene.objects):
            x1, y1, x2, y2 = tight_box(owner == number)
            assert (x1, y1, x2, y2) == item.box
            shares.append(max(x2 - x1, y2 - y1) / max(item.look.mask().shape))
    assert min(shares) >= 0.7  # 0.8, but for objects hidden by one that was placed by itself
