"""The shapes: a table from category to painted polygons.

Coordinates are in any unit, y downwards; `outline_of` centres every shape and scales its longest
side to 1. Parts are painted in order, later ones on top. The paint "body" has the colour and the
pattern of the object, "shade" a darker tone of the colour; the others are fixed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

Point = tuple[float, float]
Polygon = tuple[Point, ...]

PAINTS: Mapping[str, tuple[int, int, int] | None] = {  # fixed RGB; None: the object's own colour
    "body": None,
    "shade": None,
    "wood": (122, 82, 52),
    "cream": (240, 225, 196),
    "glass": (206, 231, 240),
    "white": (252, 252, 250),
    "ink": (38, 36, 44),
    "metal": (150, 154, 160),
    "leaf": (92, 140, 70),
}


@dataclass(frozen=True)
class Part:
    """One painted polygon of a shape."""

    paint: str
    points: Polygon


def _box(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    return ((x1, y1), (x2, y1), (x2, y2), (x1, y2))


def _arc(
    x: float, y: float, rx: float, ry: float, start: float, stop: float, steps: int = 32
) -> Polygon:
    """Points of an ellipse from `start` to `stop` degrees; 0 is right, 90 is down."""
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return tuple((x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles)


def _oval(x: float, y: float, rx: float, ry: float) -> Polygon:
    return _arc(x, y, rx, ry, 0, 360, 48)[:-1]


def _band(x: float, y: float, outer: Point, inner: Point, start: float, stop: float) -> Polygon:
    """A piece of a ring between an outer and an inner ellipse given by their radii."""
    return _arc(x, y, *outer, start, stop) + _arc(x, y, *inner, stop, start)


def _radial(points: int, outer: float, inner: float) -> Polygon:
    """A star: `points` tips, the first one up."""
    radii = [outer if i % 2 == 0 else inner for i in range(2 * points)]
    turns = [math.pi * i / points for i in range(2 * points)]
    return tuple((r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, turns))


def _heart() -> Polygon:
    turns = [2 * math.pi * i / 64 for i in range(64)]
    return tuple(
        (
            16 * math.sin(a) ** 3,
            -13 * math.cos(a) + 5 * math.cos(2 * a) + 2 * math.cos(3 * a) + math.cos(4 * a),
        )
        for a in turns
    )


def _moon() -> Polygon:
    """A crescent: the outer circle, then back along a circle shifted to the right."""
    return _arc(0, 0, 1, 1, 50, 310) + _arc(0.643, 0, 0.766, 0.766, 270, 90)


def _petals(count: int, distance: float, radius: float) -> tuple[Polygon, ...]:
    turns = [2 * math.pi * i / count for i in range(count)]
    return tuple(
        _oval(distance * math.sin(a), -distance * math.cos(a), radius, radius) for a in turns
    )


def _smooth(points: Polygon, rounds: int = 2) -> Polygon:
    """The polygon with its corners cut off `rounds` times, which rounds them."""
    for _ in range(rounds):
        pairs = zip(points, points[1:] + points[:1])
        points = tuple(
            (a * x1 + (1 - a) * x2, a * y1 + (1 - a) * y2)
            for (x1, y1), (x2, y2) in pairs
            for a in (0.75, 0.25)
        )
    return points


def _mirrored(points: Polygon) -> Polygon:
    return tuple((-x, y) for x, y in points)


_WING = _smooth(((0.0, -0.1), (0.2, -0.66), (0.6, -0.95), (1.0, -0.86), (1.0, -0.3), (0.6, 0.1)))
_HIND_WING = _smooth(((0.0, -0.1), (0.6, -0.06), (0.84, 0.3), (0.66, 0.82), (0.3, 0.74)))
_FEELER = ((0.0, -0.4), (0.2, -0.9), (0.27, -0.88), (0.05, -0.38))

# fmt: off
SHAPES: Mapping[str, tuple[Part, ...]] = {
    "house": (
        Part("shade", _box(0.38, -0.95, 0.62, -0.3)),
        Part("body", _box(-0.78, -0.1, 0.78, 0.95)),
        Part("shade", ((-1.0, 0.0), (0.0, -0.92), (1.0, 0.0))),
        Part("wood", _box(-0.2, 0.38, 0.2, 0.95)),
        Part("glass", _box(-0.6, 0.2, -0.34, 0.48)),
        Part("glass", _box(0.34, 0.2, 0.6, 0.48)),
    ),
    "tree": (
        Part("wood", _box(-0.13, 0.5, 0.13, 1.0)),
        Part("body", ((-0.78, 0.62), (0.0, -0.3), (0.78, 0.62))),
        Part("shade", ((-0.48, 0.13), (0.0, 0.3), (0.48, 0.13), (0.0, -0.4))),
        Part("body", ((-0.64, 0.1), (0.0, -0.72), (0.64, 0.1))),
        Part("shade", ((-0.34, -0.36), (0.0, -0.2), (0.34, -0.36), (0.0, -0.7))),
        Part("body", ((-0.48, -0.36), (0.0, -1.0), (0.48, -0.36))),
    ),
    "car": (
        Part("body", ((-0.62, -0.05), (-0.38, -0.48), (0.3, -0.48), (0.58, -0.05))),
        Part("body", ((-1.0, 0.02), (-0.94, -0.08), (0.72, -0.08), (0.96, 0.04), (1.0, 0.36),
                      (-1.0, 0.36))),
        Part("glass", ((-0.46, -0.08), (-0.3, -0.37), (-0.06, -0.37), (-0.06, -0.08))),
        Part("glass", ((0.06, -0.08), (0.06, -0.37), (0.24, -0.37), (0.42, -0.08))),
        Part("ink", _oval(-0.52, 0.36, 0.23, 0.23)),
        Part("ink", _oval(0.52, 0.36, 0.23, 0.23)),
        Part("metal", _oval(-0.52, 0.36, 0.11, 0.11)),
        Part("metal", _oval(0.52, 0.36, 0.11, 0.11)),
    ),
    "boat": (
        Part("wood", _box(-0.06, -1.0, 0.05, 0.5)),
        Part("body", ((0.1, -0.92), (0.86, 0.3), (0.1, 0.3))),
        Part("cream", ((-0.11, -0.72), (-0.11, 0.3), (-0.68, 0.3))),
        Part("body", ((-1.0, 0.42), (1.0, 0.42), (0.66, 0.92), (-0.66, 0.92))),
        Part("shade", _box(-1.0, 0.4, 1.0, 0.54)),
    ),
    "star": (Part("body", _radial(5, 1.0, 0.47)),),
    "heart": (Part("body", _heart()),),
    "mug": (
        Part("shade", _band(0.5, 0.1, (0.5, 0.46), (0.27, 0.24), -100, 100)),
        Part("body", ((-0.8, -0.68), (0.56, -0.68), *_arc(0.36, 0.62, 0.2, 0.24, 0, 90, 8),
                      *_arc(-0.6, 0.62, 0.2, 0.24, 90, 180, 8))),
        Part("cream", _oval(-0.12, -0.68, 0.68, 0.17)),
        Part("wood", _oval(-0.12, -0.66, 0.55, 0.1)),
    ),
    "fish": (
        Part("shade", ((-0.2, -0.36), (0.16, -0.66), (0.4, -0.36))),
        Part("body", ((0.38, 0.0), (1.0, -0.5), (0.86, 0.0), (1.0, 0.5))),
        Part("body", _oval(-0.2, 0.0, 0.8, 0.47)),
        Part("shade", ((-0.06, 0.06), (0.24, 0.0), (0.2, 0.26))),
        Part("white", _oval(-0.62, -0.1, 0.14, 0.14)),
        Part("ink", _oval(-0.65, -0.1, 0.075, 0.075)),
    ),
    "ball": (
        Part("body", _oval(0, 0, 1, 1)),
        Part("shade", _box(-0.98, -0.035, 0.98, 0.035)),
        Part("shade", _box(-0.035, -0.98, 0.035, 0.98)),
        Part("shade", _band(-1.3, 0, (0.83, 0.83), (0.76, 0.76), -47, 47)),
        Part("shade", _band(1.3, 0, (0.83, 0.83), (0.76, 0.76), 133, 227)),
    ),
    "umbrella": (
        Part("wood", _box(-0.05, -0.98, 0.05, 0.72)),
        Part("wood", _band(0.17, 0.72, (0.22, 0.26), (0.12, 0.15), 0, 180)),
        Part("body", (*_arc(0, 0.02, 1.0, 0.88, 180, 360),
                      *_arc(0.75, 0.02, 0.25, 0.16, 0, -180, 10),
                      *_arc(0.25, 0.02, 0.25, 0.16, 0, -180, 10),
                      *_arc(-0.25, 0.02, 0.25, 0.16, 0, -180, 10),
                      *_arc(-0.75, 0.02, 0.25, 0.16, 0, -180, 10))),
        Part("shade", ((0.0, -0.86), *_arc(0.0, 0.0, 0.5, 0.86, 180, 270, 12),
                       *_arc(0.0, 0.0, 0.44, 0.86, 270, 180, 12))),
        Part("shade", ((0.0, -0.86), *_arc(0.0, 0.0, 0.5, 0.86, 0, -90, 12),
                       *_arc(0.0, 0.0, 0.44, 0.86, -90, 0, 12))),
    ),
    "mushroom": (
        Part("cream", ((-0.26, -0.1), (0.26, -0.1), (0.34, 0.8), (0.2, 0.92), (-0.2, 0.92),
                       (-0.34, 0.8))),
        Part("metal", _oval(0.0, 0.0, 0.7, 0.16)),
        Part("body", _arc(0, 0.02, 1.0, 0.96, 180, 360)),
        Part("body", _arc(0, 0.0, 1.0, 0.14, 0, 180)),
    ),
    "flower": (
        *(Part("body", petal) for petal in _petals(6, 0.58, 0.4)),
        Part("wood", _oval(0, 0, 0.34, 0.34)),
        Part("cream", _oval(0, 0, 0.16, 0.16)),
    ),
    "balloon": (
        Part("ink", ((-0.06, 0.5), (0.06, 0.5), (0.16, 0.7), (-0.04, 0.85), (0.06, 1.05),
                       (-0.06, 1.05), (-0.16, 0.85), (0.04, 0.7))),
        Part("shade", ((0.0, 0.38), (0.15, 0.6), (-0.15, 0.6))),
        Part("body", (*_arc(0, -0.35, 0.68, 0.65, 180, 360), *_arc(0, -0.35, 0.68, 0.82, 0, 180))),
    ),
    "moon": (Part("body", _moon()),),
    "crown": (
        Part("body", ((-0.86, 0.7), (-1.0, -0.4), (-0.5, 0.12), (0.0, -0.7), (0.5, 0.12),
                      (1.0, -0.4), (0.86, 0.7))),
        Part("shade", _box(-0.86, 0.46, 0.86, 0.72)),
        Part("white", _oval(-1.0, -0.44, 0.11, 0.11)),
        Part("white", _oval(0.0, -0.74, 0.11, 0.11)),
        Part("white", _oval(1.0, -0.44, 0.11, 0.11)),
        Part("white", _oval(0.0, 0.59, 0.1, 0.1)),
        Part("white", _oval(-0.5, 0.59, 0.08, 0.08)),
        Part("white", _oval(0.5, 0.59, 0.08, 0.08)),
    ),
    "bell": (
        Part("shade", _band(0, -0.84, (0.17, 0.17), (0.08, 0.08), 90, 450)),
        Part("ink", _oval(0.0, 0.74, 0.2, 0.2)),
        Part("body", (*_arc(0.0, -0.22, 0.5, 0.54, 180, 360, 20), (0.56, 0.3), (0.9, 0.66),
                      (-0.9, 0.66), (-0.56, 0.3))),
        Part("shade", ((-0.74, 0.5), (0.74, 0.5), (0.94, 0.72), (-0.94, 0.72))),
    ),
    "butterfly": (
        Part("ink", _FEELER),
        Part("ink", _mirrored(_FEELER)),
        Part("body", _HIND_WING),
        Part("body", _mirrored(_HIND_WING)),
        Part("body", _WING),
        Part("body", _mirrored(_WING)),
        Part("ink", _oval(0.0, 0.05, 0.09, 0.5)),
        Part("ink", _oval(0.0, -0.44, 0.11, 0.11)),
    ),
    "apple": (
        Part("wood", ((-0.05, -0.5), (0.02, -0.98), (0.14, -0.95), (0.06, -0.5))),
        Part("leaf", ((0.1, -0.66), (0.3, -0.9), (0.62, -0.92), (0.46, -0.68), (0.24, -0.6))),
        Part("body", _oval(-0.36, 0.12, 0.54, 0.7)),
        Part("body", _oval(0.36, 0.12, 0.54, 0.7)),
        Part("body", _oval(0.0, 0.3, 0.55, 0.6)),
    ),
}
# Of the quickstart: what it teaches. No other scene shows them, and the embedded model has never
# seen them.
NEW_SHAPES: Mapping[str, tuple[Part, ...]] = {
    "rocket": (
        Part("cream", ((-0.2, 0.6), (-0.12, 0.84), (0.0, 1.02), (0.12, 0.84), (0.2, 0.6))),
        Part("metal", _box(-0.2, 0.5, 0.2, 0.66)),
        Part("shade", ((-0.26, -0.02), (-0.66, 0.42), (-0.66, 0.8), (-0.24, 0.52))),
        Part("shade", ((0.26, -0.02), (0.66, 0.42), (0.66, 0.8), (0.24, 0.52))),
        Part("body", _smooth(((-0.3, 0.56), (-0.42, -0.3), (0.0, -1.22), (0.42, -0.3),
                              (0.3, 0.56)))),
        Part("white", _oval(0.0, -0.2, 0.2, 0.2)),
        Part("glass", _oval(0.0, -0.2, 0.13, 0.13)),
    ),
    "cactus": (
        Part("body", (*_arc(-0.58, -0.2, 0.15, 0.15, 180, 360), (-0.43, 0.0), (0.0, 0.0),
                      (0.0, 0.3), *_arc(-0.48, 0.05, 0.25, 0.25, 90, 180))),
        Part("body", (*_arc(0.58, -0.42, 0.15, 0.15, 180, 360),
                      *_arc(0.48, -0.15, 0.25, 0.25, 0, 90), (0.0, 0.1), (0.0, -0.2),
                      (0.43, -0.2))),
        Part("body", (*_arc(0.0, -0.78, 0.26, 0.26, 180, 360), (0.26, 0.6), (-0.26, 0.6))),
        Part("shade", _box(-0.11, -0.78, -0.06, 0.5)),
        Part("shade", _box(0.06, -0.78, 0.11, 0.5)),
        Part("white", _oval(-0.02, -1.02, 0.12, 0.1)),
        Part("wood", ((-0.4, 0.56), (0.4, 0.56), (0.3, 1.02), (-0.3, 1.02))),
        Part("cream", _box(-0.46, 0.46, 0.46, 0.62)),
    ),
    "snail": (
        Part("ink", ((-0.78, -0.2), (-0.96, -0.72), (-0.9, -0.74), (-0.68, -0.2))),
        Part("ink", ((-0.66, -0.2), (-0.66, -0.76), (-0.6, -0.76), (-0.56, -0.2))),
        Part("ink", _oval(-0.94, -0.74, 0.08, 0.08)),
        Part("ink", _oval(-0.63, -0.78, 0.08, 0.08)),
        Part("cream", _smooth(((-1.02, -0.3), (-0.46, -0.34), (-0.4, 0.3), (0.6, 0.34),
                               (1.16, 0.74), (-0.9, 0.74)))),
        Part("ink", _oval(-0.82, -0.08, 0.05, 0.05)),
        Part("body", _oval(0.2, -0.08, 0.62, 0.6)),
        Part("shade", _band(0.2, -0.06, (0.46, 0.44), (0.37, 0.35), 60, 360)),
        Part("shade", _band(0.26, -0.06, (0.26, 0.25), (0.17, 0.16), 0, 300)),
    ),
}
# fmt: on


@functools.cache
def outline_of(category: str) -> tuple[Part, ...]:
    """The parts of a category, centred on (0, 0) with the longest side scaled to 1."""
    parts = SHAPES.get(category) or NEW_SHAPES[category]
    xs = [x for part in parts for x, _ in part.points]
    ys = [y for part in parts for _, y in part.points]
    side = max(max(xs) - min(xs), max(ys) - min(ys))
    x0, y0 = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return tuple(
        Part(part.paint, tuple(((x - x0) / side, (y - y0) / side) for x, y in part.points))
        for part in parts
    )
