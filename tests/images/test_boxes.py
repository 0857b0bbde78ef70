import math

import pytest
import torch

from lavis_dynrefer.images import boxes


def test_area_is_width_times_height():
    assert boxes.area(torch.tensor([[1.0, 2.0, 4.0, 6.0]])).tolist() == [12.0]


def test_box_with_corners_the_wrong_way_round_has_no_area():
    turned = torch.tensor([[4.0, 6.0, 1.0, 2.0]])  # both sides negative: their product is not

    assert boxes.area(turned).tolist() == [0.0]


def test_clip_moves_outer_corners_to_the_edge_of_the_image():
    clipped = boxes.clip(torch.tensor([[-3.0, 5.0, 90.0, 70.0]]), width=80, height=60)

    assert clipped.tolist() == [[0.0, 5.0, 80.0, 60.0]]


def test_clip_leaves_nothing_of_a_box_outside():
    clipped = boxes.clip(torch.tensor([[100.0, 5.0, 120.0, 9.0]]), width=80, height=60)

    assert boxes.area(clipped).tolist() == [0.0]


def test_clip_leaves_its_argument_alone():
    given = torch.tensor([[-3.0, 5.0, 90.0, 70.0]])

    boxes.clip(given, width=80, height=60)

    assert given.tolist() == [[-3.0, 5.0, 90.0, 70.0]]


def test_iou_of_boxes_sharing_a_third():
    # 4 x 4 and 4 x 4 share 2 x 4 = 8 of 24 square pixels
    iou = boxes.pairwise_iou(
        torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[2.0, 0.0, 6.0, 4.0]])
    )

    assert iou.item() == pytest.approx(1 / 3)


def test_iou_adds_no_pixel_to_touching_boxes():
    iou = boxes.pairwise_iou(
        torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[4.0, 0.0, 8.0, 4.0]])
    )

    assert iou.item() == 0.0


@pytest.mark.parametrize(
    "flat",
    [[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 9.0, 3.0], [9.0, 9.0, 3.0, 3.0], [0.0, 0.0, math.nan, 4.0]],
)
def test_box_without_area_overlaps_nothing(flat):
    iou = boxes.pairwise_iou(torch.tensor([flat]), torch.tensor([flat, [0.0, 0.0, 10.0, 10.0]]))

    assert iou.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (0, 0)])
def test_iou_without_boxes_keeps_its_shape(rows, columns):
    iou = boxes.pairwise_iou(torch.zeros(rows, 4), torch.zeros(columns, 4))

    assert iou.shape == (rows, columns)


def test_iou_is_symmetric():
    corners = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) * 50
    given = torch.cat([corners, corners + 30], dim=1)
    iou = boxes.pairwise_iou(given, given)

    torch.testing.assert_close(iou, iou.T)


def test_xywh_and_back():
    given = torch.tensor([[10.0, 20.0, 4.0, 3.0]])

    corners = boxes.xywh_to_xyxy(given)

    assert corners.tolist() == [[10.0, 20.0, 14.0, 23.0]]
    assert boxes.xyxy_to_xywh(corners).tolist() == given.tolist()
