"""Masks in any of the usual forms; the model looks at boxes, so each counts as its tight box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.masks import box_from_polygons, box_from_rle
from lavis_dynrefer.structures import Box

_ARRAYS = (np.ndarray, Tensor)


def boxes_of_masks(masks: Sequence[Any], image_size: Sequence[int]) -> Tensor:
    """The tight box around every mask.

    Args:
        masks: R masks, each COCO's RLE {"size": [height, width], "counts": ...}, a list of
            polygons [[x1, y1, x2, y2, ...], ...], or an array (height, width) whose non-zero
            pixels are the region.
        image_size: width and height of the image in pixels.

    Returns:
        (R, 4) float32 xyxy in pixels.

    Raises:
        ValueError: a mask without pixels, of another size than the image, damaged, or of no
            known form.
    """
    boxes = []
    for row, mask in enumerate(masks):
        try:
            boxes.append(_box(mask, image_size))
        except (OverflowError, TypeError, ValueError) as error:
            raise InputError(f"masks: row {row}: {error}") from error
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def _box(mask: Any, image_size: Sequence[int]) -> Box:
    width, height = image_size
    if isinstance(mask, Mapping):
        box = box_from_rle(mask)
        _check_size(mask["size"], width, height)
        return box
    if isinstance(mask, (list, tuple)) and not any(isinstance(part, _ARRAYS) for part in mask):
        if not all(isinstance(part, (list, tuple)) for part in mask):
            raise InputError("expected a list of polygons; one polygon is a list of one")
        return box_from_polygons(mask)
    pixels = np.asarray(mask)
    if pixels.ndim != 2:
        raise InputError(f"expected RLE, polygons or an array (height, width), got {type(mask)}")
    _check_size(pixels.shape, width, height)
    rows, columns = pixels.any(axis=1).nonzero()[0], pixels.any(axis=0).nonzero()[0]
    if not len(rows):
        raise InputError("no pixel is set")
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def _check_size(size: Sequence[int], width: int, height: int) -> None:
    if list(size) != [height, width]:
        raise InputError(f"the mask is {size[1]} x {size[0]} pixels, the image {width} x {height}")
