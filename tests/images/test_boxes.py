import math

import pytest
import torch

from lavis_dynrefer.images.boxes import area, pairwise_iou


def test_inverted_box_has_no_area():
    inverted = torch.tensor([[4.0, 6.0, 1.0, 2.0]])  # the product of both sides is positive

    assert area(inverted).tolist() == [0.0]


def test_iou_of_boxes_that_share_a_third():
    # 4 x 4 and 4 x 4 share 2 x 4 = 8 of 24 square pixels
    iou = pairwise_iou(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[2.0, 0.0, 6.0, 4.0]]))

    assert iou.item() == pytest.approx(1 / 3)


def test_touching_boxes_do_not_overlap():
    iou = pairwise_iou(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[4.0, 0.0, 8.0, 4.0]]))

    assert iou.item() == 0.0


@pytest.mark.parametrize(
    "box",
    [[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 9.0, 3.0], [9.0, 9.0, 3.0, 3.0], [0.0, 0.0, math.nan, 4.0]],
)
def test_box_without_area_overlaps_nothing(box):
    iou = pairwise_iou(torch.tensor([box]), torch.tensor([box, [0.0, 0.0, 10.0, 10.0]]))

    assert iou.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (0, 0)])
def test_iou_of_no_boxes_keeps_its_shape(rows, columns):
    assert pairwise_iou(torch.zeros(rows, 4), torch.zeros(columns, 4)).shape == (rows, columns)


def test_iou_equals_torchvision():
    box_iou = pytest.importorskip("torchvision.ops").box_iou
    corners = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) * 50
    boxes = torch.cat([corners, corners + 30], dim=1)

    assert torch.equal(pairwise_iou(boxes, boxes[:7]), box_iou(boxes, boxes[:7]))
