"""Functions of boxes: xyxy in absolute pixels unless a name says otherwise; nothing is in place."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou


def area(boxes: Tensor) -> Tensor:
    """Width times height; a box with a side of zero or less has no area.

    Args:
        boxes: (R, 4) xyxy boxes in pixels.

    Returns:
        (R,) square pixels.

    >>> area(torch.tensor([[10., 20., 14., 23.], [5., 5., 4., 9.]]))
    tensor([12.,  0.])
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)  # (R, 2)
    return sides.prod(dim=1)


def clip(boxes: Tensor, width: float, height: float) -> Tensor:
    """Move every corner that lies outside an image onto its edge.

    Args:
        boxes: (R, 4) xyxy boxes in pixels.
        width: pixels of the image.
        height: pixels of the image.

    Returns:
        (R, 4) xyxy boxes in pixels; a box wholly outside comes back with a side of zero.

    >>> clip(torch.tensor([[-5., 10., 700., 490.]]), 640, 480)
    tensor([[  0.,  10., 640., 480.]])
    """
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every box with every other one.

    Args:
        boxes: (R, 4) xyxy boxes in pixels.
        others: (K, 4) xyxy boxes in pixels.

    Returns:
        (R, K) in [0, 1]; a box without area overlaps nothing, itself included.

    >>> pairwise_iou(torch.tensor([[0., 0., 4., 4.]]), torch.tensor([[2., 0., 4., 4.]]))
    tensor([[0.5000]])
    """
    if not len(boxes) or not len(others):
        return boxes.new_zeros(len(boxes), len(others))
    usable = (area(boxes) > 0)[:, None] & (area(others) > 0)[None, :]
    overlap: Tensor = box_iou(boxes, others)
    return overlap.masked_fill(~usable, 0.0)  # box_iou gives nan for two boxes without area


def carry(boxes: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Move boxes by the stretch and shift that takes `source` to `target`.

    Args:
        boxes: (..., 4) xyxy in the pixels of `source`.
        source: (..., 4) xyxy boxes with area.
        target: (..., 4) the same boxes elsewhere, such as in a resized crop.

    Returns:
        (..., 4) xyxy in the pixels of `target`.

    >>> carry(torch.tensor([[30., 20., 50., 30.]]), torch.tensor([[10., 10., 30., 20.]]),
    ...       torch.tensor([[0., 0., 40., 40.]]))
    tensor([[40., 40., 80., 80.]])
    """
    corner, anchor = source[..., :2], target[..., :2]
    stretch = (target[..., 2:] - anchor) / (source[..., 2:] - corner)
    return torch.cat(
        [
            (boxes[..., :2] - corner) * stretch + anchor,
            (boxes[..., 2:] - corner) * stretch + anchor,
        ],
        dim=-1,
    )


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Corner and size to two corners; (R, 4) in and out, pixels.

    >>> xywh_to_xyxy(torch.tensor([[10., 20., 4., 3.]]))
    tensor([[10., 20., 14., 23.]])
    """
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Two corners to corner and size; (R, 4) in and out, pixels.

    >>> xyxy_to_xywh(torch.tensor([[10., 20., 14., 23.]]))
    tensor([[10., 20.,  4.,  3.]])
    """
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
