"""From a shape to the share of each pixel that each paint covers.

Uses only whole numbers and exactly rounded operations, so that every machine gets the same pixels.
Anti-aliasing: polygons are filled on a finer grid and averaged.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from lavis_dynrefer.synthetic.painting.shapes import PAINTS, outline_of

_GRID = 4096  # corners are rounded to this fraction of a pixel, so that all machines agree


@dataclass(frozen=True)
class Stencil:
    """An uncoloured object of a given size and angle.

    Args:
        coverage: paint name -> (H, W) uint8, 255 where the paint covers the whole pixel.
        rim: (H, W) uint8 coverage of the outline, all 0 without one.
        alpha: (H, W) uint8 coverage of the object with its rim.
        shadow: (H + 2 p, W + 2 p) uint8, `alpha` blurred; p is `padding`.
        padding: pixels the shadow reaches beyond the object on each side.
        glint: (row, column) of the highlight, in a thick part of the body, up and left.
    """

    coverage: dict[str, np.ndarray]
    rim: np.ndarray
    alpha: np.ndarray
    shadow: np.ndarray
    padding: int
    glint: tuple[int, int]


def turn(angle: float) -> tuple[float, float]:
    """Cosine and sine of an angle in degrees, rounded so that all machines agree."""
    return round(math.cos(math.radians(angle)), 6), round(math.sin(math.radians(angle)), 6)


def fill_polygon(image: np.ndarray, points: np.ndarray, value: int) -> None:
    """Write `value` into the pixels whose centre lies inside the polygon by the even-odd rule.

    Args:
        image: (H, W) integers, changed in place; the polygon must lie inside it.
        points: (K, 2) corners (x, y) in pixels.
        value: what to write.
    """
    corners = np.round(points * _GRID) / _GRID
    left, top = np.floor(corners.min(axis=0)).astype(np.int64)
    right, bottom = np.ceil(corners.max(axis=0)).astype(np.int64) + 1
    ends = np.roll(corners, -1, axis=0)
    upper = np.where(corners[:, 1:] <= ends[:, 1:], corners, ends)
    lower = np.where(corners[:, 1:] <= ends[:, 1:], ends, corners)
    first = np.ceil(upper[:, 1] - 0.5).astype(np.int64)
    count = np.ceil(lower[:, 1] - 0.5).astype(np.int64) - first  # rows that the edge crosses
    edge = np.repeat(np.arange(len(corners)), count)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x1, y1), (x2, y2) = upper[edge].T, lower[edge].T
    crossings = x1 + (rows + 0.5 - y1) * ((x2 - x1) / (y2 - y1))
    columns = np.ceil(crossings - 0.5).astype(np.int64)
    height, width = int(bottom - top), int(right - left)
    places = (rows - top) * width + columns - left
    flips = np.bincount(places, minlength=height * width).astype(np.uint8).reshape(height, width)
    inside = np.bitwise_xor.accumulate(flips & 1, axis=1).astype(bool)
    image[top:bottom, left:right][inside[: image.shape[0] - top, : image.shape[1] - left]] = value


def box_blur(image: np.ndarray, radius: int) -> np.ndarray:
    """Mean over a (2 radius + 1) square, zeros beyond the edge; whole numbers in and out."""
    side = 2 * radius + 1
    sums = np.pad(image.astype(np.int64), ((radius + 1, radius), (radius + 1, radius)))
    sums = sums.cumsum(axis=0).cumsum(axis=1)
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return total // (side * side)


@functools.lru_cache(maxsize=8192)
def make_stencil(category: str, side: int, angle: int, outlined: bool) -> Stencil:
    """Draw a category without colour.

    Args:
        category: one of `scene_world.CATEGORIES`.
        side: longest side of the upright object in pixels.
        angle: degrees clockwise.
        outlined: whether it has an outline.
    """
    fine = 4 if side >= 48 else 8  # sub-pixels per pixel and axis
    line = max(1.0, 0.032 * side) if outlined else 0.0
    paints = list(PAINTS)
    index = _index_map(category, side * fine, angle, margin=line * fine + 1, multiple=fine)
    silhouette = index > 0
    rim = _grow(silhouette, line * fine) & ~silhouette
    used = np.flatnonzero(np.bincount(index.ravel(), minlength=len(paints) + 1))
    coverage = {paints[k - 1]: _shrink(index == k, fine) for k in used if k}
    alpha = _shrink(silhouette | rim, fine)
    padding = max(2, side // 8)
    shadow = np.pad(alpha, padding)
    for _ in range(2):
        shadow = box_blur(shadow, max(1, padding // 2))
    body = coverage["body"]
    return Stencil(
        coverage=coverage,
        rim=_shrink(rim, fine),
        alpha=alpha,
        shadow=shadow.astype(np.uint8),
        padding=padding,
        glint=_glint(body, side),
    )


def _index_map(category: str, side: int, angle: int, margin: float, multiple: int) -> np.ndarray:
    """(H, W) uint8: 1 + index of the topmost paint, 0 outside; H and W divide by `multiple`."""
    cos, sin = turn(angle)
    to_pixels = side * np.array([[cos, sin], [-sin, cos]])
    parts = []
    for part in outline_of(category):
        x, y = np.array(part.points).T[..., None]  # (K, 1) each
        parts.append((part.paint, x * to_pixels[0] + y * to_pixels[1]))
    reach_x, reach_y = np.max([np.abs(points).max(axis=0) for _, points in parts], axis=0) + margin
    width = 2 * multiple * math.ceil(reach_x / multiple)
    height = 2 * multiple * math.ceil(reach_y / multiple)
    index = np.zeros((height, width), dtype=np.uint8)
    paints = list(PAINTS)
    middle = np.array([width / 2, height / 2])
    for paint, points in parts:
        fill_polygon(index, points + middle, paints.index(paint) + 1)
    return index


def _grow(mask: np.ndarray, radius: float) -> np.ndarray:
    """The mask and everything within `radius` of it, by shifting it in 16 directions."""
    grown = mask.copy()
    for step in range(16 if radius else 0):
        cos, sin = turn(22.5 * step)
        grown |= np.roll(mask, (round(radius * sin), round(radius * cos)), axis=(0, 1))
    return grown


def _shrink(mask: np.ndarray, fine: int) -> np.ndarray:
    """(H, W) uint8 coverage of the pixels from a (H fine, W fine) mask."""
    bits = mask.view(np.uint8)
    counts = np.zeros((mask.shape[0] // fine, mask.shape[1] // fine), dtype=np.int64)
    for row in range(fine):
        for column in range(fine):
            counts += bits[row::fine, column::fine]
    return (counts * 255 // (fine * fine)).astype(np.uint8)


def _glint(body: np.ndarray, side: int) -> tuple[int, int]:
    """Row and column of a thick part of the body, preferably up and left."""
    thickness = box_blur(body, max(1, side // 9))
    rows, columns = np.indices(body.shape)
    best = int(np.argmax(thickness * side - 100 * (rows + columns)))
    return best // body.shape[1], best % body.shape[1]
