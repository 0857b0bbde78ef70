"""How much of a box a mask covers, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.mask_cover import checked_masks, mask_grids, tight_boxes

SIZE = (5, 4)  # width, height
# Rows 1 to 2 of columns 2 to 3 are set; runs go down the columns.
PIXELS = np.zeros((4, 5), dtype=bool)
PIXELS[1:3, 2:4] = True
RUNS = {"size": [4, 5], "counts": [9, 2, 2, 2, 5]}
POLYGON = [2, 1, 4, 1, 4, 3, 2, 3]
FORMS = pytest.mark.parametrize("mask", [PIXELS, RUNS, [POLYGON]], ids=["array", "runs", "polygon"])


def cover(mask, frame, size, image_size=SIZE):
    (checked,) = checked_masks([mask], image_size)
    return checked.cover(frame, size)


def grid(mask, box, image_size=SIZE):
    return mask_grids(checked_masks([mask], image_size), torch.tensor([box]))[0]


@FORMS
def test_cells_of_whole_pixels_are_the_pixels(mask):
    found = cover(mask, (1.0, 0.0, 5.0, 4.0), 4)

    assert found.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


@FORMS
def test_cells_between_pixels_have_the_share_of_their_area(mask):
    # Cells of 2 x 2 pixels: the first spans columns 1 and 2, rows 0 and 1; a quarter of it is mask.
    assert cover(mask, (1.0, 0.0, 5.0, 4.0), 2).tolist() == [[0.25, 0.25], [0.25, 0.25]]


@FORMS
def test_a_box_may_begin_within_a_pixel(mask):
    # One cell of 1 x 1 from (1.5, 1): its right half is mask. One of 2 x 1.5 from (3, 0.25): of its
    # 3 square pixels 1 x 0.75 are mask.
    assert cover(mask, (1.5, 1.0, 2.5, 2.0), 1).item() == 0.5
    assert cover(mask, (3.0, 0.25, 5.0, 1.75), 1).item() == pytest.approx(0.25, abs=2 / 448)


@FORMS
def test_nothing_outside_of_the_image_is_mask(mask):
    found = cover(mask, (-2.0, -1.0, 6.0, 7.0), 2)

    # Cells of 4 x 4: the upper left one holds all of row 1 and 2 of column... 2 alone does not end
    # before x = 2, so all four pixels are right of it.
    assert found.tolist() == [[0, 0.25], [0, 0]]


def test_a_triangle_covers_half_of_the_cells_on_its_slope():
    found = cover([[0, 0, 4, 4, 0, 4]], (0.0, 0.0, 4.0, 4.0), 4)

    below, on_slope = np.tril(np.ones((4, 4)), -1) == 1, np.eye(4) == 1
    assert (found[below] == 1).all()
    assert found[on_slope].tolist() == pytest.approx([0.5] * 4, abs=1 / 112)
    assert (found[~below & ~on_slope] == 0).all()


def test_polygons_are_one_mask_and_overlap_once():
    parts = [[0, 0, 2, 0, 2, 4, 0, 4], [1, 0, 3, 0, 3, 4, 1, 4]]

    assert cover(parts, (0.0, 0.0, 4.0, 4.0), 4).tolist() == [[1, 1, 1, 0]] * 4


def test_runs_of_any_mask_are_read_as_by_pycocotools():
    pixels = np.random.default_rng(0).random((23, 31)) < 0.4
    packed = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))

    assert cover(packed, (0.0, 0.0, 31.0, 23.0), 31 * 23, (31, 23)).shape == (713, 713)
    rows = cover(packed, (0.0, 0.0, 31.0, 31.0), 31, (31, 23))  # cells of one pixel
    assert np.array_equal(rows[:23], pixels)
    assert not rows[23:].any()


def test_large_polygons_and_their_pixels_cover_alike():
    polygon = [10, 5, 90, 20, 70, 80, 50, 30, 20, 95]
    pixels = coco_mask.decode(coco_mask.frPyObjects([polygon], 100, 100))[:, :, 0]

    frame = (3.2, 1.1, 95.7, 99.0)
    exact, sampled = (cover(mask, frame, 28, (100, 100)) for mask in (pixels, [polygon]))

    assert abs(exact - sampled).mean() < 0.02  # pixels make steps of the slopes


def test_small_polygons_in_wide_frames_keep_their_area():
    rng, frame = np.random.default_rng(0), (0.0, 0.0, 4000.0, 3000.0)
    for x, y in rng.uniform((0, 0), (3994, 2994), (60, 2)):
        square = [x, y, x + 6, y, x + 6, y + 6, x, y + 6]

        shares = cover([square], frame, 28, (4000, 3000))

        assert shares.sum() * (4000 / 28) * (3000 / 28) == pytest.approx(36, rel=0.04)


def test_runs_over_many_columns_cover_whole_columns():
    # Row 2 of column 0, all of columns 1 and 2, rows 0 to 2 of column 3.
    runs = {"size": [4, 5], "counts": [2, 13, 5]}
    pixels = np.zeros((4, 5), dtype=bool)
    pixels[2:, 0], pixels[:, 1:3], pixels[:3, 3] = True, True, True

    for mask in (runs, pixels):
        assert cover(mask, (0.0, 0.0, 4.0, 4.0), 4).tolist() == pixels[:, :4].tolist()


def test_a_mask_of_forty_million_pixels_is_read_from_its_runs():
    runs = {"size": [5000, 8000], "counts": [20_000_000, 20_000_000]}

    found = cover(runs, (0.0, 0.0, 8000.0, 5000.0), 4, (8000, 5000))

    assert found.tolist() == [[0, 0, 1, 1]] * 4


def test_grids_are_28_cells_a_side_in_255_parts():
    found = grid(PIXELS, [1.0, 0.0, 5.0, 4.0])

    assert (found.shape, found.dtype) == ((28, 28), torch.uint8)
    assert found.sum() == 255 * 28 * 28 // 4
    assert found[7:21, 7:21].eq(255).all()


def test_a_share_above_zero_never_becomes_zero():
    pixels = np.zeros((1000, 1000), dtype=np.uint8)
    pixels[500, 500] = 1

    found = grid(pixels, [0.0, 0.0, 1000.0, 1000.0], (1000, 1000))

    assert found.sum() == 1  # 1 of 1276 pixels of a cell: less than 1 / 255


def test_a_region_without_a_mask_is_all_of_its_box():
    masks = checked_masks([None, RUNS], SIZE)

    assert mask_grids(masks, torch.tensor([[0.0, 0, 5, 4]] * 2))[0].eq(255).all()


@FORMS
def test_a_mask_outside_of_its_box_is_refused(mask):
    with pytest.raises(InputError, match=r"row 0: no part of the mask lies in the box \[0.0, 0.0"):
        grid(mask, [0.0, 0.0, 2.0, 1.0])


def test_a_mask_whose_box_overlaps_but_not_its_pixels_is_refused():
    corner = np.zeros((4, 5), dtype=bool)
    corner[0, :] = corner[:, 0] = True

    with pytest.raises(InputError, match="no part"):
        grid(corner, [2.0, 2.0, 5.0, 4.0])


def test_a_line_says_no_more_than_its_box():
    assert grid([[1, 2, 4, 2]], [1.0, 1.0, 4.0, 3.0]).eq(255).all()
    with pytest.raises(InputError, match="no part"):
        grid([[1, 2, 4, 2]], [1.0, 3.0, 4.0, 4.0])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 5)), "masks: row 0: the mask is empty"),
        ({"size": [5, 4], "counts": [0, 20]}, "the mask is 4 x 5 pixels, the image 5 x 4"),
        ({"size": [4, 5], "counts": [0, 21]}, "add up to the 20 pixels"),
        (np.full((4, 5), 0.3) * np.arange(5), "compare probabilities"),
        ([[1, 2, 3]], "needs parts with x and y"),
        (7, "expected RLE, polygons or an array"),
    ],
)
def test_damaged_masks_are_named(mask, message):
    with pytest.raises(InputError, match=message):
        checked_masks([mask], SIZE)


def test_tight_boxes_need_every_mask():
    masks = checked_masks([RUNS, [POLYGON], PIXELS], SIZE)

    assert tight_boxes(masks) == [(2.0, 1.0, 4.0, 3.0)] * 3
    assert checked_masks(masks, (9, 9)) == masks  # checked before
    with pytest.raises(InputError, match="row 1 is None; regions without a mask need boxes"):
        tight_boxes([masks[0], None])
