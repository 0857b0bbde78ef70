"""Masks of regions as COCO writes them, checked: polygons, or run lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Union

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.mask_encoding import compress_counts, run_lengths
from lavis_dynrefer.images.masks import box_from_rle

# Polygons [[x1, y1, x2, y2, ...], ...], or {"size": [height, width], "counts": compressed text}:
# a list of runs would take twenty times the memory.
Mask = Union[Sequence[Sequence[float]], Mapping[str, Any]]

_CORNERS = 3  # of a polygon with an area


def read_mask(segmentation: Any) -> Mask | None:
    """Check the value of `segmentation`; an empty one is no mask.

    Returns:
        Polygons as floats, or run lengths as COCO's text, so that each kind has one type.

    Raises:
        InputError: neither polygons nor run lengths, or damaged.

    >>> read_mask({"size": [4, 4], "counts": [5, 2, 2, 2, 5]})
    {'size': [4, 4], 'counts': '52203'}
    >>> read_mask([])
    """
    if not segmentation:
        return None
    if isinstance(segmentation, Mapping):
        box_from_rle(segmentation)  # checks it
        height, width = segmentation["size"]
        counts = segmentation["counts"]
        if isinstance(counts, bytes):
            counts = counts.decode("ascii")
        elif not isinstance(counts, str):
            counts = compress_counts(run_lengths(counts, height * width).tolist())
        return {"size": [height, width], "counts": counts}
    if not isinstance(segmentation, (list, tuple)):
        raise InputError(f"segmentation: expected polygons or RLE, got {segmentation!r:.60}")
    return [_polygon(part) for part in segmentation]


def fits_image(mask: Mask, size: Sequence[int]) -> bool:
    """Whether a mask may belong to an image of this width and height; polygons always may."""
    return not isinstance(mask, Mapping) or mask["size"] == [size[1], size[0]]


def mask_area(mask: Mask) -> float:
    """Area in pixels; of polygons the sum of their areas.

    >>> mask_area([[0, 0, 4, 0, 4, 3]]), mask_area({"size": [4, 4], "counts": "52203"})
    (6.0, 4.0)
    """
    if isinstance(mask, Mapping):
        height, width = mask["size"]
        return float(run_lengths(mask["counts"], height * width)[1::2].sum())
    return sum(_polygon_area(part) for part in mask)


def box_polygon(x: float, y: float, width: float, height: float) -> Mask:
    """The outline of a box, clockwise from its upper left corner."""
    right, bottom = x + width, y + height
    return [[x, y, right, y, right, bottom, x, bottom]]


def _polygon(part: Any) -> list[float]:
    try:
        numbers = [float(number) for number in part]
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"segmentation: expected lists of numbers, got {part!r:.60}") from error
    if len(numbers) < 2 * _CORNERS or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
        raise InputError(
            f"segmentation: expected x and y of at least {_CORNERS} corners, got {part!r:.60}"
        )
    return numbers


def _polygon_area(numbers: Sequence[float]) -> float:
    corners = list(zip(numbers[0::2], numbers[1::2]))
    pairs = zip(corners, [*corners[1:], corners[0]])
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2
