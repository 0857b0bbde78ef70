from __future__ import annotations

import numpy as np
import pytest

from lavis_dynrefer.images import boxes_of_masks

SIZE = (5, 4)  # width, height
PIXELS = np.zeros((4, 5), dtype=np.uint8)
PIXELS[1:3, 1:3] = 7
RLE = {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}
POLYGON = [[1, 1, 3, 1, 3, 3, 1, 3]]


@pytest.mark.parametrize("mask", [PIXELS, PIXELS.astype(bool), RLE, POLYGON])
def test_every_form_of_a_mask_gives_its_tight_box(mask):
    assert boxes_of_masks([mask], SIZE).tolist() == [[1, 1, 3, 3]]


def test_several_masks_keep_their_order():
    other = np.ones((4, 5), dtype=bool)

    assert boxes_of_masks([other, RLE], SIZE).tolist() == [[0, 0, 5, 4], [1, 1, 3, 3]]


def test_no_masks_are_no_boxes():
    assert boxes_of_masks([], SIZE).shape == (0, 4)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 5)), "row 1: no pixel is set"),
        (np.ones((5, 4)), "the mask is 4 x 5 pixels, the image 5 x 4"),
        ({"size": [9, 9], "counts": [0, 81]}, "the mask is 9 x 9 pixels"),
        ({"counts": [0, 81]}, "row 1: RLE mask: expected size and counts"),
        ({"size": [4, 5], "counts": "5P"}, "row 1: RLE counts end within a number"),
        ([], "needs parts with x and y"),
        ([POLYGON[0], 7], "a list of polygons"),
        ([[1, 1, 10**400, 2]], "row 1: int too large"),
        ([1, 1, 3, 1, 3, 3], "a list of polygons; one polygon is a list of one"),
        ([[1, 1, 3]], "needs parts with x and y"),
        (np.ones((4, 5, 3)), r"RLE, polygons or an array \(height, width\)"),
        ("mask.png", "expected"),
    ],
)
def test_what_is_no_mask_of_the_image_is_named(mask, message):
    with pytest.raises(ValueError, match=message):
        boxes_of_masks([RLE, mask], SIZE)
