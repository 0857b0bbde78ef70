from __future__ import annotations

import numpy as np
import pytest
import torch

from lavis_dynrefer.images import as_boxes, pixel_boxes

SIZE = (40, 20)  # width, height
BOX = [10.0, 5.0, 30.0, 15.0]


@pytest.mark.parametrize(
    "boxes",
    [
        [BOX],
        (tuple(BOX),),
        np.array([BOX]),
        torch.tensor([BOX]),
        torch.tensor([BOX], dtype=torch.bfloat16),
        torch.tensor([BOX], requires_grad=True),
        [[10, 5, 30, 15]],
        [np.array(BOX)],
        torch.tensor([BOX]).half(),
        torch.tensor([BOX]).to_sparse(),
        np.array([BOX], np.float16),
        [[np.float32(value) for value in BOX]],
        [torch.tensor(BOX, requires_grad=True)],
        [torch.tensor(BOX).bfloat16()],
        [[torch.tensor(value, requires_grad=True) for value in BOX]],
    ],
)
def test_lists_arrays_and_tensors_are_equivalent(boxes):
    found = pixel_boxes(boxes, SIZE)

    assert found.tolist() == [BOX]
    assert (found.dtype, found.requires_grad) == (torch.float32, False)


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), torch.zeros(0, 4)])
def test_no_boxes_have_four_columns(boxes):
    assert pixel_boxes(boxes, SIZE).shape == (0, 4)


def test_xywh_becomes_xyxy():
    assert pixel_boxes([[10, 5, 20, 10]], SIZE, format="xywh").tolist() == [BOX]


def test_boxes_of_eight_bits_do_not_overflow():
    boxes = np.array([[200, 2, 100, 3]], np.uint8)  # the right edge is beyond 255
    for given in (boxes, [list(boxes[0])]):
        found = pixel_boxes(given, (320, 20), format="xywh")
        assert found.tolist() == [[200, 2, 300, 5]]


@pytest.mark.parametrize(
    ("format", "box"),
    [("xyxy", [0.25, 0.25, 0.75, 0.75]), ("xywh", [0.25, 0.25, 0.5, 0.5])],
)
def test_normalised_boxes_are_multiplied_by_the_sides(format, box):
    assert pixel_boxes([box], SIZE, format=format, normalised=True).tolist() == [BOX]


def test_boxes_that_look_normalised_are_rejected():
    with pytest.raises(ValueError, match=r"pass normalised=True .* normalised=False if"):
        pixel_boxes([[0.25, 0.25, 0.75, 0.75]], SIZE)


def test_boxes_below_one_pixel_are_valid_with_normalised_false():
    found = pixel_boxes([[0.25, 0.25, 0.75, 0.75]], SIZE, normalised=False)

    assert found.tolist() == [[0.25, 0.25, 0.75, 0.75]]


def test_one_pixel_in_whole_numbers_does_not_look_normalised():
    assert pixel_boxes([[0, 0, 1, 1]], SIZE).tolist() == [[0, 0, 1, 1]]


def test_pixels_are_rejected_as_normalised_boxes():
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got up to 30; leave out normalised"):
        pixel_boxes([BOX], SIZE, normalised=True)


def test_xywh_is_rejected_as_xyxy():
    with pytest.raises(ValueError, match=r'row 0 .*wrong order.*pass format="xywh"'):
        pixel_boxes([[30, 5, 8, 10]], SIZE)


def test_xyxy_is_rejected_as_xywh():
    corners = [[20, 10, 39, 19], [25, 5, 38, 18], [1, 1, 9, 9]]

    with pytest.raises(ValueError, match=r'two corners\? Then pass format="xyxy"'):
        pixel_boxes(corners, SIZE, format="xywh")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (BOX, r"expected shape \(R, 4\), got \(4,\); a single one is a list of one row"),
        ([[1, 2, 3]], r"expected shape \(R, 4\), got \(1, 3\)"),
        ([[]], r"expected shape \(R, 4\), got \(1, 0\)"),
        ([[], []], r"expected shape \(R, 4\), got \(2, 0\)"),
        ([[1, 2, 3, "x"]], "expected rows of 4 numbers"),
        ([[1, 2, 3], [1, 2, 3, 4]], "expected rows of 4 numbers"),
        (None, "expected"),
        (torch.empty(1, 4, device="meta"), "expected rows of 4 numbers"),
        (torch.ones(1, 4, dtype=torch.bool), "expected rows of 4 numbers"),
        (torch.ones(1, 4, dtype=torch.complex64), "expected rows of 4 numbers"),
        ([[1, 2, float("nan"), 4]], "row 0 .* not finite"),
        ([[1, 2, float("inf"), 4]], "row 0 .* not finite"),
        ([BOX, [50, 5, 60, 10]], "row 1 .* no part inside the 40 x 20 image"),
    ],
)
def test_invalid_boxes_are_refused(boxes, message):
    with pytest.raises(ValueError, match=message):
        pixel_boxes(boxes, SIZE)


def test_a_negative_width_is_refused():
    with pytest.raises(ValueError, match=r"row 0 .* negative width or height"):
        pixel_boxes([[10, 5, -20, 10]], SIZE, format="xywh")


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match=r"expected one of \['xyxy', 'xywh'\], got 'cxcywh'"):
        pixel_boxes([BOX], SIZE, format="cxcywh")


def test_as_boxes_takes_only_xyxy_and_names_no_other_format():
    assert as_boxes([[0.25, 0.25, 0.75, 0.75]], image_size=SIZE).tolist() == [
        [0.25, 0.25, 0.75, 0.75]
    ]
    with pytest.raises(ValueError, match=r"row 0 .*; expected x1, y1, x2, y2 in pixels$"):
        as_boxes([[30, 5, 8, 10]], image_size=SIZE)
