from __future__ import annotations

import numpy as np
import pytest
import torch

from lavis_dynrefer.images import pixel_boxes

SIZE = (40, 20)  # width, height
BOX = [10.0, 5.0, 30.0, 15.0]


@pytest.mark.parametrize(
    "boxes",
    [
        [BOX],
        (tuple(BOX),),
        np.array([BOX]),
        torch.tensor([BOX]),
        [[10, 5, 30, 15]],
        [np.array(BOX)],
    ],
)
def test_lists_arrays_and_tensors_mean_the_same(boxes):
    assert pixel_boxes(boxes, SIZE).tolist() == [BOX]


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), torch.zeros(0, 4)])
def test_no_boxes_are_no_boxes(boxes):
    assert pixel_boxes(boxes, SIZE).shape == (0, 4)


def test_corner_and_size_become_two_corners():
    assert pixel_boxes([[10, 5, 20, 10]], SIZE, format="xywh").tolist() == [BOX]


@pytest.mark.parametrize(
    ("format", "box"),
    [("xyxy", [0.25, 0.25, 0.75, 0.75]), ("xywh", [0.25, 0.25, 0.5, 0.5])],
)
def test_shares_are_multiplied_by_the_sides(format, box):
    assert pixel_boxes([box], SIZE, format=format, normalised=True).tolist() == [BOX]


def test_shares_that_nobody_announced_are_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"pass normalised=True .* normalised=False if"):
        pixel_boxes([[0.25, 0.25, 0.75, 0.75]], SIZE)


def test_boxes_below_one_pixel_are_taken_when_said_to_be_pixels():
    found = pixel_boxes([[0.25, 0.25, 0.75, 0.75]], SIZE, normalised=False)

    assert found.tolist() == [[0.25, 0.25, 0.75, 0.75]]


def test_a_box_of_one_pixel_in_whole_numbers_is_no_share():
    assert pixel_boxes([[0, 0, 1, 1]], SIZE).tolist() == [[0, 0, 1, 1]]


def test_pixels_announced_as_shares_are_refused():
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got up to 30; leave out normalised"):
        pixel_boxes([BOX], SIZE, normalised=True)


def test_sizes_given_as_corners_are_refused_with_the_cure():
    with pytest.raises(ValueError, match=r'row 0 .*wrong order.*pass format="xywh"'):
        pixel_boxes([[30, 5, 8, 10]], SIZE)


def test_corners_given_as_sizes_are_refused_with_the_cure():
    corners = [[20, 10, 39, 19], [25, 5, 38, 18], [1, 1, 9, 9]]

    with pytest.raises(ValueError, match=r'two corners\? Then pass format="xyxy"'):
        pixel_boxes(corners, SIZE, format="xywh")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (BOX, r"expected shape \(R, 4\), got \(4,\); one box is a list of one row"),
        ([[1, 2, 3]], r"expected shape \(R, 4\), got \(1, 3\)"),
        ([[1, 2, 3, "x"]], "expected rows of four numbers"),
        ([[1, 2, 3], [1, 2, 3, 4]], "expected rows of four numbers"),
        (None, "expected"),
        ([[1, 2, float("nan"), 4]], "row 0 .* not finite"),
        ([[1, 2, float("inf"), 4]], "row 0 .* not finite"),
        ([BOX, [50, 5, 60, 10]], "row 1 .* no part inside the 40 x 20 image"),
    ],
)
def test_what_is_no_box_is_named(boxes, message):
    with pytest.raises(ValueError, match=message):
        pixel_boxes(boxes, SIZE)


def test_a_negative_size_is_named():
    with pytest.raises(ValueError, match=r"row 0 .* negative width or height"):
        pixel_boxes([[10, 5, -20, 10]], SIZE, format="xywh")


def test_an_unknown_format_lists_those_there_are():
    with pytest.raises(ValueError, match=r"expected one of \['xyxy', 'xywh'\], got 'cxcywh'"):
        pixel_boxes([BOX], SIZE, format="cxcywh")
