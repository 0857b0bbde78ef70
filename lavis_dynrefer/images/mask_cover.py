"""Masks of regions, checked, and how much of any box each of them covers.

What counts as a mask is in `masks`; here it is used as one, not only for its box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.mask_encoding import decode_mask
from lavis_dynrefer.images.masks import (
    box_from_array,
    box_from_polygons,
    box_from_rle,
    check_mask,
)
from lavis_dynrefer.structures import Box

GRID = 28  # cells a side of what a model gets of a mask
FULL = 255  # a cell that lies in the mask as a whole
_SAMPLES = 448  # a side, at least: points at which a polygon is read


@dataclass(frozen=True)
class RunMask:
    """COCO's run-length encoding, decoded only when it is used.

    Args:
        rle: checked.
        box: tight xyxy in pixels.
    """

    rle: Mapping[str, Any]
    box: Box

    def cover(self, frame: Box, size: int) -> NDArray[np.float64]:
        """See `RegionMask`."""
        return ArrayMask(decode_mask(self.rle), self.box).cover(frame, size)


@dataclass(frozen=True)
class ArrayMask:
    """The pixels of an array that are not zero.

    Args:
        pixels: (height, width) of the whole image.
        box: tight xyxy in pixels.
    """

    pixels: NDArray[Any]
    box: Box

    def cover(self, frame: Box, size: int) -> NDArray[np.float64]:
        """See `RegionMask`."""
        left, top, right, bottom = map(int, self.box)
        return _shares(self.pixels[top:bottom, left:right] != 0, (left, top), frame, size)


@dataclass(frozen=True)
class PolygonMask:
    """All points within any of several polygons; where one crosses itself, by the even-odd rule.

    Args:
        polygons: (n, 2) x and y of the corners of each.
        box: tight xyxy in pixels.
    """

    polygons: tuple[NDArray[np.float64], ...]
    box: Box

    def cover(self, frame: Box, size: int) -> NDArray[np.float64]:
        """See `RegionMask`; at evenly spaced points, 16 x 16 of each cell of 28."""
        each = -(-_SAMPLES // size)
        side = each * size
        inside = np.zeros((side, side), dtype=bool)
        corner, step = np.asarray(frame[:2]), np.subtract(frame[2:], frame[:2]) / side
        for polygon in self.polygons:
            inside |= _points_inside((polygon - corner) / step, side)
        shares: NDArray[np.float64] = inside.reshape(size, each, size, each).mean(axis=(1, 3))
        return shares

    @property
    def is_line(self) -> bool:
        """Whether it is too thin to hold any of the points."""
        left, top = np.floor(self.box[:2])
        right, bottom = np.maximum(np.ceil(self.box[2:]), (left + 1, top + 1))
        return not self.cover((left, top, right, bottom), GRID).any()


RegionMask = Union[RunMask, ArrayMask, PolygonMask]
"""A checked mask: `box`, and `cover(frame, size)`, the share of each cell of a frame that is mask.

A frame is an xyxy box with area in pixels, cut into size x size equal cells; the shares are (size,
size) in [0, 1], row by row. Outside of the image nothing is mask.
"""


def checked_masks(masks: Sequence[Any], image_size: Sequence[int]) -> list[RegionMask | None]:
    """Check masks of any form.

    Args:
        masks: as for `boxes_of_masks`; None for a region that has none. What this function has
            returned stays as it is.
        image_size: width and height of the image in pixels.

    Raises:
        InputError: see `boxes_of_masks`.
    """
    checked: list[RegionMask | None] = []
    for row, mask in enumerate(masks):
        if mask is None or isinstance(mask, (RunMask, ArrayMask, PolygonMask)):
            checked.append(mask)
            continue
        try:
            checked.append(_checked(mask, image_size))
        except (OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"masks: row {row}: {error}") from error
    return checked


def tight_boxes(masks: Sequence[RegionMask | None]) -> list[Box]:
    """The boxes of checked masks.

    Raises:
        InputError: a region has no mask.
    """
    missing = [row for row, mask in enumerate(masks) if mask is None]
    if missing:
        raise InputError(f"masks: row {missing[0]} is None; regions without a mask need boxes")
    return [mask.box for mask in masks if mask is not None]


def check_inside(masks: Sequence[RegionMask | None], boxes: Tensor) -> None:
    """Refuse masks that are not where their boxes (R, 4) are.

    Raises:
        InputError: names the first.
    """
    for row, (mask, box) in enumerate(zip(masks, boxes.tolist())):
        if mask is not None and _apart(mask.box, box):
            raise _outside(row, mask, box)


def mask_grids(masks: Sequence[RegionMask | None], boxes: Tensor) -> Tensor:
    """How much of each cell of its box each mask covers.

    Args:
        masks: R checked ones; None for a region without a mask, which all of its box is.
        boxes: (R, 4) xyxy in pixels, with area.

    Returns:
        (R, 28, 28) uint8, 255 for a cell that is all mask. A share that is not 0 is at least 1.

    Raises:
        InputError: a mask has no part in its box.
    """
    grids = np.full((len(masks), GRID, GRID), FULL, dtype=np.uint8)
    for row, (mask, box) in enumerate(zip(masks, boxes.tolist())):
        if mask is None:
            continue
        shares = mask.cover((box[0], box[1], box[2], box[3]), GRID)
        if shares.any():
            grids[row] = np.ceil(shares * FULL - 1e-6)
        elif not isinstance(mask, PolygonMask) or not mask.is_line or _apart(mask.box, box):
            raise _outside(row, mask, box)
        # else a line, which says no more than the box
    return torch.from_numpy(grids)


def _checked(mask: Any, image_size: Sequence[int]) -> RegionMask:
    found = check_mask(mask, image_size)
    if isinstance(found, Mapping):
        return RunMask(found, box_from_rle(found))
    if isinstance(found, np.ndarray):
        return ArrayMask(found, box_from_array(found))
    box = box_from_polygons(found)
    corners = (np.asarray(part, dtype=np.float64).reshape(-1, 2) for part in found)
    return PolygonMask(tuple(corners), box)


def _outside(row: int, mask: RegionMask, box: Sequence[float]) -> InputError:
    return InputError(
        f"masks: row {row}: no part of the mask lies in the box {list(box)}; the mask is in "
        f"{list(mask.box)}"
    )


def _apart(box: Box, other: Sequence[float]) -> bool:
    """Whether two boxes share no point, not even of their sides."""
    return any(box[i] > other[i + 2] or other[i] > box[i + 2] for i in (0, 1))


def _shares(
    pixels: NDArray[Any], corner: tuple[int, int], frame: Box, size: int
) -> NDArray[np.float64]:
    """Shares of cells (size, size) of a frame that the set pixels cover, exactly.

    Args:
        pixels: (h, w) of 0 and 1.
        corner: x and y of the first one.
        frame: see `RegionMask`.
        size: cells a side.
    """
    sums = _sums_between(pixels, np.linspace(frame[1], frame[3], size + 1) - corner[1])
    sums = _sums_between(sums.T, np.linspace(frame[0], frame[2], size + 1) - corner[0]).T
    shares: NDArray[np.float64] = sums * (size / (frame[2] - frame[0]) * size)
    return shares / (frame[3] - frame[1])


def _sums_between(rows: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, w) sums of the rows (h, w) between each two neighbours of n + 1 edges.

    A row fills the place from its number to the next one; an edge within it takes a part of it.
    """
    # From sums that begin at the top, a column of pixels costs one addition each, whatever n is.
    total = np.zeros((len(rows) + 1, rows.shape[1]))
    np.cumsum(rows, axis=0, out=total[1:])
    edges = edges.clip(0, len(rows))
    before = np.minimum(edges.astype(np.int64), len(rows) - 1)
    part = (edges - before)[:, None]
    until = total[before] * (1 - part) + total[before + 1] * part
    sums: NDArray[np.float64] = np.diff(until, axis=0)
    return sums


def _points_inside(polygon: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    """(side, side): whether the middles of the cells of a grid of unit cells are in a polygon."""
    x1, y1 = polygon.T
    x2, y2 = np.roll(polygon, -1, axis=0).T
    middles = np.arange(side) + 0.5
    crossed, row = np.nonzero((y1[:, None] <= middles) != (y2[:, None] <= middles))
    along = (middles[row] - y1[crossed]) / (y2[crossed] - y1[crossed])
    x = x1[crossed] + along * (x2[crossed] - x1[crossed])
    # A crossing changes the side of all points to its right.
    first = np.ceil(x - 0.5).clip(0, side).astype(np.int64)
    changes = np.zeros((side, side + 1), dtype=np.int64)
    np.add.at(changes, (row, first), 1)
    inside: NDArray[np.bool_] = changes[:, :-1].cumsum(axis=1) % 2 == 1
    return inside
