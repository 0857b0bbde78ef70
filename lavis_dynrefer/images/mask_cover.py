"""Masks of regions, checked, and how much of any box each of them covers.

What counts as a mask is in `masks`; here it is used as one, not only for its box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.mask_encoding import pixel_runs, run_lengths
from lavis_dynrefer.images.masks import (
    box_from_array,
    box_from_pixel_polygons,
    box_from_rle,
    check_mask,
)
from lavis_dynrefer.structures import Box

GRID = 28  # cells a side of what a model gets of a mask
FULL = 255  # a cell that lies in the mask as a whole
# Points at which a polygon is read: along each side of a frame, and of the part of it in the frame.
_SAMPLES, _FEWEST, _MOST_EACH = 448, 64, 1 << 24
_RECTANGLES = 8192  # of a run-length encoding, and crossings of a polygon, in memory at once
_CROSSINGS = 1 << 20


@dataclass(frozen=True)
class RunMask:
    """COCO's run-length encoding.

    Args:
        rle: checked.
        box: tight xyxy in pixels.
    """

    rle: Mapping[str, Any]
    box: Box

    def cover(self, frame: Box, size: int) -> NDArray[np.float64]:
        """See `RegionMask`; exact."""
        return _shares(self.rectangles, frame, size)

    @cached_property
    def rectangles(self) -> NDArray[np.int64]:
        """(n, 4) xyxy of which the mask consists; found once for all frames."""
        height, width = self.rle["size"]
        return _rectangles(run_lengths(self.rle["counts"], height * width), height)


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
        """See `RegionMask`; exact."""
        return _shares(self.rectangles, frame, size)

    @cached_property
    def rectangles(self) -> NDArray[np.int64]:
        """(n, 4) xyxy of which the mask consists; found once for all frames."""
        left, top, right, bottom = map(int, self.box)
        runs = pixel_runs(self.pixels[top:bottom, left:right] != 0)
        found: NDArray[np.int64] = _rectangles(runs, bottom - top)
        return found + np.array([left, top, left, top], dtype=np.int64)


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
        """See `RegionMask`; at evenly spaced points, 16 x 16 or more of each cell of 28."""
        shares = np.zeros((size, size))
        across, down = (
            _Points.between(frame[side], frame[side + 2], self.box[side], self.box[side + 2], size)
            for side in (0, 1)
        )
        if not across.count or not down.count:
            return shares
        inside = np.zeros((down.count, across.count), dtype=bool)
        corner, step = (across.start, down.start), (across.step, down.step)
        for polygon in self.polygons:
            inside |= _points_inside((polygon - corner) / step, inside.shape)
        found = np.add.reduceat(inside, down.firsts, axis=0, dtype=np.int64)
        found = np.add.reduceat(found, across.firsts, axis=1)
        cells = np.ix_(down.cells[down.firsts], across.cells[across.firsts])
        shares[cells] = found / (across.each * down.each)
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
    box = box_from_pixel_polygons(found)
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


def _rectangles(runs: NDArray[np.int64], height: int) -> NDArray[np.int64]:
    """Runs down the columns as rectangles (n, 4), xyxy: at most three for each run in the mask."""
    ends = runs.cumsum()[1::2]
    starts = ends - runs[1::2]
    starts, last = starts[ends > starts], ends[ends > starts] - 1
    left, top = starts // height, starts % height
    right, bottom = last // height, last % height + 1
    one = left == right  # within a column
    parts = [
        (left, top, left + 1, np.where(one, bottom, height)),
        (left + 1, np.zeros_like(left), right, np.full_like(left, height)),  # whole columns
        (right, np.zeros_like(left), right + 1, bottom),
    ]
    kept = (np.ones_like(one), right > left + 1, ~one)
    rows = [np.stack(part, axis=1)[rows] for part, rows in zip(parts, kept)]
    return np.concatenate(rows)


def _shares(rectangles: NDArray[np.int64], frame: Box, size: int) -> NDArray[np.float64]:
    """Shares of cells (size, size) of a frame that rectangles (n, 4) cover, none of them twice."""
    x_edges, y_edges = (np.linspace(frame[side], frame[side + 2], size + 1) for side in (0, 1))
    areas = np.zeros((size, size))
    for start in range(0, len(rectangles), _RECTANGLES):
        left, top, right, bottom = rectangles[start : start + _RECTANGLES].T[..., None]
        across = np.diff(x_edges.clip(left, right), axis=1)  # of each rectangle in each column
        down = np.diff(y_edges.clip(top, bottom), axis=1)
        areas += down.T @ across
    cell = (frame[2] - frame[0]) / size * ((frame[3] - frame[1]) / size)
    return areas / cell


@dataclass(frozen=True)
class _Points:
    """Evenly spaced points along one side of a frame, those where a polygon may be.

    Args:
        start: where the stretch of the first point begins, in pixels.
        step: distance of the points.
        each: points of a cell.
        cells: (n,) cell of each point.
    """

    start: float
    step: float
    each: int
    cells: NDArray[np.int64]

    @classmethod
    def between(cls, start: float, end: float, low: float, high: float, size: int) -> _Points:
        """Points of `size` cells from `start` to `end` that lie from `low` to `high`."""
        low, high = (min(max(value, start), end) for value in (low, high))
        cell = (end - start) / size
        each = -(-_SAMPLES // size)
        if high > low:  # a small polygon in a wide frame needs points of its own
            each = max(each, min(math.ceil(_FEWEST * cell / (high - low)), _MOST_EACH))
        step = cell / each
        first = max(0, math.ceil((low - start) / step - 0.5))
        end_point = min(size * each, math.floor((high - start) / step - 0.5) + 1)
        numbers = np.arange(first, max(first, end_point))
        return cls(start + first * step, step, each, numbers // each)

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.cells)

    @property
    def firsts(self) -> NDArray[np.int64]:
        """(m,) the first point of each cell that has any."""
        return np.flatnonzero(np.diff(self.cells, prepend=-1))


def _points_inside(polygon: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(rows, columns): whether the middles of unit cells are in a polygon."""
    rows, columns = shape
    x1, y1 = polygon.T
    x2, y2 = np.roll(polygon, -1, axis=0).T
    # An edge crosses the middles from its upper end to its lower one, without that.
    first, end = (
        np.ceil(ends - 0.5).clip(0, rows).astype(np.int64)
        for ends in (np.minimum(y1, y2), np.maximum(y1, y2))
    )
    until = (end - first).cumsum()  # crossings of all edges up to each
    changes = np.zeros((rows, columns + 1), dtype=np.int64)
    begin = 0
    while begin < len(polygon):
        done = until[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(until, done + _CROSSINGS, side="right")))
        edge = np.repeat(np.arange(begin, stop), (end - first)[begin:stop])
        row = first[edge] + np.arange(done, until[stop - 1]) - (until - end + first)[edge]
        along = (row + 0.5 - y1[edge]) / (y2[edge] - y1[edge])
        x = x1[edge] + along * (x2[edge] - x1[edge])
        # A crossing changes the side of all points to its right.
        column = np.ceil(x - 0.5).clip(0, columns).astype(np.int64)
        np.add.at(changes, (row, column), 1)
        begin = stop
    inside: NDArray[np.bool_] = changes[:, :-1].cumsum(axis=1) % 2 == 1
    return inside
