"""What users give, checked before anything is cut: boxes, and how many pixels there may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lavis_dynrefer.errors import InputError

# Of an image or a mask: a file of few bytes can claim any size. Pillow's own limit is 178,956,970.
MAX_PIXELS = 178_000_000


def as_boxes(
    boxes: Tensor | Sequence[Sequence[float]] | Any, *, image_size: Sequence[int]
) -> Tensor:
    """Boxes as a float32 tensor, after checking that each can be looked at.

    Args:
        boxes: (R, 4) xyxy in pixels; R may be 0.
        image_size: width and height in pixels.

    Returns:
        (R, 4) float32, values unchanged.

    Raises:
        ValueError: another shape, a value that is not finite, corners in the wrong order, or a box
            without any part in the image; names the box.

    >>> as_boxes([[1, 2, 3, 4]], image_size=(10, 10))
    tensor([[1., 2., 3., 4.]])
    """
    regions = torch.as_tensor(boxes, dtype=torch.float32).detach().cpu()
    if regions.numel() == 0:
        return regions.reshape(0, 4)
    if regions.ndim != 2 or regions.shape[1] != 4:
        raise InputError(f"boxes: expected shape (R, 4), got {tuple(regions.shape)}")
    width, height = image_size
    x1, y1, x2, y2 = regions.unbind(dim=1)
    problems = {
        "a value that is not finite": ~regions.isfinite().all(dim=1),
        "corners in the wrong order (is it x, y, width, height?)": (x2 < x1) | (y2 < y1),
        f"no part inside the {width} x {height} image": (x1 >= width)
        | (y1 >= height)
        | (x2 <= 0)
        | (y2 <= 0),
    }
    for problem, bad in problems.items():
        if bad.any():
            row = int(bad.nonzero()[0])
            raise InputError(
                f"boxes: row {row} {regions[row].tolist()} has {problem}; "
                "expected x1, y1, x2, y2 in pixels"
            )
    return regions
