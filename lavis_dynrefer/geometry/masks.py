"""The box around a mask, which COCO stores as polygons or as a run-length encoding (RLE).

Two rules are offered. `exact` is the tight box in pixel-edge coordinates. `official` is what the
released DynRefer computes: RLE boxes are one pixel short on the right and at the bottom, and sides
of a polygon box of at most one pixel are stretched to the left or to the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from lavis_dynrefer.structures import Box

RULES = ("exact", "official")


def box_from_polygons(polygons: Sequence[Sequence[float]], rule: str = "exact") -> Box:
    """Box around all parts of a polygon mask.

    Args:
        polygons: parts, each a flat list x1, y1, x2, y2, ... in pixels.
        rule: "exact", or "official" for sides of at least one pixel.

    Returns:
        xyxy in pixels; may have no area under the exact rule.

    Raises:
        ValueError: no vertex, an odd number of coordinates, or an unknown rule.

    >>> box_from_polygons([[10, 20, 30, 20, 30, 45], [5, 22, 8, 22, 8, 30]])
    (5.0, 20.0, 30.0, 45.0)
    """
    _check_rule(rule)
    if not polygons or any(len(part) == 0 or len(part) % 2 for part in polygons):
        raise ValueError(
            "a polygon mask needs parts with x and y for every vertex, got parts of "
            f"{[len(part) for part in polygons]} numbers; reject this region"
        )
    x1, x2 = _extent([float(x) for part in polygons for x in part[0::2]], rule)
    y1, y2 = _extent([float(y) for part in polygons for y in part[1::2]], rule)
    return x1, y1, x2, y2


def box_from_rle(rle: Mapping[str, Any], rule: str = "exact") -> Box:
    """Box around the set pixels of a run-length encoded mask.

    Args:
        rle: {"size": [height, width], "counts": ...}, counts compressed (str or bytes) or a list.
        rule: "exact": right and bottom are the far edges of the last pixels; "official": they are
            the indices of the last pixels, so one less and possibly no area.

    Returns:
        xyxy in pixels.

    Raises:
        ValueError: no pixel is set, counts do not fit the size, or an unknown rule.

    >>> box_from_rle({"size": [4, 5], "counts": [5, 2, 2, 2, 9]})  # rows 1-2 of columns 1-2
    (1.0, 1.0, 3.0, 3.0)
    """
    _check_rule(rule)
    mask = decode_rle(rle)
    columns, rows = mask.any(axis=0).nonzero()[0], mask.any(axis=1).nonzero()[0]
    if not len(columns):
        raise ValueError(
            f"a mask of size {rle['size']} has no pixel set; no box fits it, reject this region"
        )
    edge = 1.0 if rule == "exact" else 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1]) + edge, float(rows[-1]) + edge


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Pixels of a run-length encoded mask.

    Args:
        rle: {"size": [height, width], "counts": str, bytes or list of run lengths}; not changed.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: counts are empty, are no RLE, or (lists) do not add up to the size.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    if not counts:
        raise ValueError(
            f"an RLE mask of size {height} x {width} has no counts; reject this region"
        )
    packed = {"size": [height, width], "counts": counts}
    if isinstance(counts, (list, tuple)):
        if sum(counts) != height * width:
            raise ValueError(
                f"RLE counts must add up to {height} x {width} = {height * width} pixels, "
                f"got {sum(counts)}; reject this region"
            )
        packed = coco_mask.frPyObjects({**packed, "counts": list(counts)}, height, width)
    decoded: NDArray[np.bool_] = coco_mask.decode(packed).astype(bool)
    return decoded


def _extent(values: Sequence[float], rule: str) -> tuple[float, float]:
    low, high = min(values), max(values)
    if rule == "official" and low >= high - 1:
        return (high - 1, high) if high > 0 else (high, high + 1)
    return low, high


def _check_rule(rule: str) -> None:
    if rule not in RULES:
        raise ValueError(f"box rule must be one of {RULES}, got {rule!r}")
