"""Box geometry: xyxy in absolute pixels unless a name says otherwise; nothing works in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lavis_dynrefer.structures import Box

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 0.05  # fraction of a side by which a valid box may leave its image


def area(boxes: Tensor) -> Tensor:
    """Width times height; 0 if a side is 0 or negative.

    Args:
        boxes: (R, 4) xyxy in pixels.

    Returns:
        (R,) square pixels.

    >>> import torch
    >>> area(torch.tensor([[10., 20., 14., 23.], [5., 5., 4., 9.]]))
    tensor([12.,  0.])
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)  # (R, 2)
    return sides.prod(dim=1)


def box_area(box: Box) -> float:
    """Width times height of one box, in square pixels.

    >>> box_area((10.0, 20.0, 14.0, 23.0))
    12.0
    """
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every pair.

    Args:
        boxes: (R, 4) xyxy in pixels.
        others: (K, 4) xyxy in pixels.

    Returns:
        (R, K) in [0, 1]; a box without area overlaps nothing, not even itself.

    >>> import torch
    >>> pairwise_iou(torch.tensor([[0., 0., 4., 4.]]), torch.tensor([[2., 0., 4., 4.]]))
    tensor([[0.5000]])
    """
    start = boxes[:, None, :2].maximum(others[:, :2])  # (R, K, 2)
    end = boxes[:, None, 2:].minimum(others[:, 2:])
    shared = (end - start).clamp(min=0).prod(dim=2)
    union = area(boxes)[:, None] + area(others) - shared
    return (shared / union).masked_fill(~(shared > 0), 0.0)  # without area or nan: 0


def xyxy_to_xywh(box: Box) -> Box:
    """Convert two corners to the upper left corner, width and height.

    >>> xyxy_to_xywh((10.0, 20.0, 14.0, 23.0))
    (10.0, 20.0, 4.0, 3.0)
    """
    x1, y1, x2, y2 = box
    return x1, y1, x2 - x1, y2 - y1


def xywh_to_xyxy(box: Box) -> Box:
    """Convert the upper left corner, width and height, as COCO writes them, to two corners.

    >>> xywh_to_xyxy((10.0, 20.0, 4.0, 3.0))
    (10.0, 20.0, 14.0, 23.0)
    """
    x, y, width, height = box
    return x, y, x + width, y + height
