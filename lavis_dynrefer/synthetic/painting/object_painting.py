"""Colour, pattern, light and gloss of an object."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from lavis_dynrefer.synthetic.painting.shapes import PAINTS
from lavis_dynrefer.synthetic.painting.stencils import Stencil, turn

RGB = tuple[int, int, int]

# Name -> (colour, darker tone for shaded parts, second colour of patterns).
TONES: Mapping[str, tuple[RGB, RGB, RGB]] = {
    "red": ((214, 38, 42), (146, 20, 32), (255, 212, 204)),
    "blue": ((40, 88, 214), (24, 54, 148), (200, 222, 255)),
    "green": ((28, 150, 64), (14, 98, 44), (204, 244, 206)),
    "yellow": ((250, 200, 20), (204, 150, 6), (255, 251, 214)),
    "orange": ((246, 126, 18), (190, 86, 6), (255, 230, 198)),
    "black": ((40, 40, 46), (88, 88, 98), (212, 212, 220)),
    "purple": ((126, 54, 176), (82, 30, 124), (234, 210, 252)),
    "pink": ((244, 106, 170), (202, 66, 132), (255, 224, 240)),
}
_DARK_RIM, _LIGHT_RIM = (32, 30, 38), (250, 250, 250)  # a dark line would not show on black


@functools.lru_cache(maxsize=512)
def pattern_map(pattern: str, side: int, angle: int) -> np.ndarray:
    """(n, n) float32 share of the second colour in each pixel; n is even and covers any stencil.

    The pattern rotates and scales with the object, down to a smallest visible size.
    """
    size, fine = 2 * ((3 * side) // 4 + 4), 4
    steps = (np.arange(size * fine) + 0.5) / fine - size / 2
    cos, sin = turn(angle)
    x, y = steps[None, :], steps[:, None]
    u, v = cos * x + sin * y, cos * y - sin * x
    if pattern == "striped":
        second = np.floor((u + v) / max(3.1, 0.135 * side)) % 2 == 1
    elif pattern == "checkered":
        cell = max(3.1, 0.115 * side)
        second = (np.floor(u / cell) + np.floor(v / cell)) % 2 == 1
    else:  # dotted
        gap = max(5.0, 0.2 * side)
        row = np.floor(v / (0.87 * gap))
        du = (u / gap + 0.5 * (row % 2)) % 1.0 - 0.5
        dv = v / gap - 0.87 * (row + 0.5)
        second = du * du + dv * dv < 0.3 * 0.3
    counts = second.reshape(size, fine, size, fine).sum(axis=(1, 3), dtype=np.int64)
    return (counts / (fine * fine)).astype(np.float32)


def colourise(
    stencil: Stencil, *, colour: str, pattern: str, shiny: bool, side: int, angle: int
) -> np.ndarray:
    """Paint a stencil.

    Returns:
        (H, W, 3) float32 in [0, 255], already multiplied by the object's alpha.
    """
    main, shade, second = (np.asarray(tone, dtype=np.float32) for tone in TONES[colour])
    height, width = stencil.alpha.shape
    image = np.zeros((height, width, 3), dtype=np.float32)
    for paint, covered in stencil.coverage.items():
        share = covered.astype(np.float32)[..., None] / 255
        if paint == "body" and pattern != "solid":
            mixed = _centre(pattern_map(pattern, side, angle), height, width)[..., None]
            image += share * (main + mixed * (second - main))
        elif paint == "body":
            image += share * main
        else:
            image += share * (shade if paint == "shade" else np.float32(PAINTS[paint]))
    top, bottom = (1.16, 0.76) if shiny else (1.03, 0.93)  # light from above
    image *= np.linspace(top, bottom, height, dtype=np.float32)[:, None, None]
    if shiny:
        gloss = _gloss(stencil, side)[..., None]
        image += gloss * (255 * _share(stencil.alpha)[..., None] - image)
    rim = _LIGHT_RIM if colour == "black" else _DARK_RIM
    image += _share(stencil.rim)[..., None] * np.asarray(rim, dtype=np.float32)
    return np.minimum(image, 255 * _share(stencil.alpha)[..., None])


def _share(coverage: np.ndarray) -> np.ndarray:
    return coverage.astype(np.float32) / 255


def _centre(square: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle (height, width) of a larger even square."""
    top, left = (square.shape[0] - height) // 2, (square.shape[1] - width) // 2
    return square[top : top + height, left : left + width]


def _gloss(stencil: Stencil, side: int) -> np.ndarray:
    """(H, W) strength of a bright oval at the glint, inside the object's body only."""
    height, width = stencil.alpha.shape
    row, column = stencil.glint
    y = (np.arange(height, dtype=np.float32)[:, None] - row) / side
    x = (np.arange(width, dtype=np.float32)[None, :] - column) / side
    along, across = 0.8 * x - 0.6 * y, 0.6 * x + 0.8 * y  # the oval leans to the upper right
    distance = (along / 0.2) ** 2 + (across / 0.11) ** 2
    inside = sum(_share(stencil.coverage[p]) for p in ("body", "shade") if p in stencil.coverage)
    return np.clip(1.5 * (1 - distance), 0, 0.92) * inside
