from __future__ import annotations

import numpy as np
import pytest

from lavis_dynrefer.synthetic.scene import tight_box
from lavis_dynrefer.synthetic.stencils import box_blur, fill_polygon, make_stencil
from lavis_dynrefer.synthetic.world import CATEGORIES


def filled(points, height=4, width=5):
    image = np.zeros((height, width), dtype=np.uint8)
    fill_polygon(image, np.array(points, dtype=float), 1)
    return image.tolist()


def test_a_rectangle_fills_the_pixels_whose_centre_it_holds():
    # x from 1 to 3 holds the centres 1.5 and 2.5; y from 0.4 to 2.6 holds 0.5, 1.5 and 2.5
    expected = [[0, 1, 1, 0, 0]] * 3 + [[0, 0, 0, 0, 0]]
    assert filled([(1, 0.4), (3, 0.4), (3, 2.6), (1, 2.6)]) == expected


def test_a_triangle_grows_by_its_slope():
    assert filled([(0.1, 0), (4.1, 4), (0.1, 4)]) == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
    ]


def test_the_direction_of_the_corners_does_not_matter():
    corners = [(0.3, 0.2), (4.1, 1.7), (2.2, 3.6)]
    assert filled(corners) == filled(corners[::-1])


def test_a_polygon_that_reaches_the_far_corner_is_filled_to_it():
    assert filled([(0, 0), (5, 0), (5, 4), (0, 4)]) == [[1] * 5] * 4


def test_blur_is_the_mean_of_the_square():
    spot = np.zeros((5, 5), dtype=np.uint8)
    spot[2, 2] = 90
    blurred = box_blur(spot, 1)
    assert blurred[1:4, 1:4].tolist() == [[10] * 3] * 3
    assert blurred.sum() == 90


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("side", [12, 46, 104])
def test_the_longest_side_is_as_requested(category, side):
    x1, y1, x2, y2 = tight_box(make_stencil(category, side, 0, False).alpha >= 128)
    assert max(x2 - x1, y2 - y1) == pytest.approx(side, abs=2)  # a pixel at each end


@pytest.mark.parametrize("category", CATEGORIES)
def test_paints_and_rim_add_up_to_the_object(category):
    stencil = make_stencil(category, 46, 28, True)
    total = stencil.rim.astype(int) + sum(c.astype(int) for c in stencil.coverage.values())
    # each share is rounded down to 1/255, so their sum may fall short by one each
    assert (stencil.alpha - total).min() >= 0
    assert (stencil.alpha - total).max() <= len(stencil.coverage) + 1


def test_a_rim_makes_an_object_larger():
    plain, rimmed = (make_stencil("star", 64, 0, flag) for flag in (False, True))
    assert rimmed.rim.any()
    assert not plain.rim.any()
    assert (rimmed.alpha >= 128).sum() > (plain.alpha >= 128).sum()


def test_the_glint_lies_on_the_body():
    stencil = make_stencil("moon", 64, 0, False)
    assert stencil.coverage["body"][stencil.glint] == 255
