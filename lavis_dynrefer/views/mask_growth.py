"""Masks that are a little too large or too small, as a segmentation model gives them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def grow_masks(masks: Tensor, boxes: Tensor, pixels: Tensor) -> Tensor:
    """Let each mask grow by some pixels on all sides, or shrink where they are negative.

    Args:
        masks: (R, G, G) uint8, how much of each cell of a grid over its box is mask.
        boxes: (R, 4) xyxy in pixels of the image.
        pixels: (R,) whole numbers; rounded to the cells of the grid.

    Returns:
        (R, G, G) uint8. A mask of which nothing would be left stays as it is. Masks shrink from the
        sides of their boxes, too.

    >>> mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    >>> mask[0, 1, 1] = 255
    >>> grow_masks(mask, torch.tensor([[0., 0., 4., 4.]]), torch.tensor([1]))[0, :, 3].tolist()
    [0, 0, 0, 0]
    >>> grow_masks(mask, torch.tensor([[0., 0., 4., 4.]]), torch.tensor([1]))[0, :, 2].tolist()
    [255, 255, 255, 0]
    """
    grid = masks.shape[-1]
    grown = masks.clone()
    for row, (by, box) in enumerate(zip(pixels.tolist(), boxes.tolist())):
        across, down = (round(abs(by) * grid / side) for side in (box[2] - box[0], box[3] - box[1]))
        if not across and not down:
            continue
        sign = 1.0 if by > 0 else -1.0
        across, down = min(across, grid), min(down, grid)
        # The largest, or smallest, of the cells around; there is no mask outside of the box.
        field = F.pad(sign * masks[row].float(), (across, across, down, down))
        found = sign * F.max_pool2d(field[None], (2 * down + 1, 2 * across + 1), stride=1)[0]
        if found.any():
            grown[row] = found.to(torch.uint8)
    return grown
