"""The grounds that objects lie on: eight large images, from which scenes are cropped."""

from __future__ import annotations

import functools

import numpy as np

from lavis_dynrefer.synthetic.random_stream import RandomStream
from lavis_dynrefer.synthetic.scene_world import HEIGHT, SURFACES, WIDTH

MARGIN = 160  # pixels by which a ground is larger than an image
_ROWS, _COLUMNS = HEIGHT + MARGIN, WIDTH + MARGIN
_SEED = 7_301  # fixed: grounds do not depend on the dataset


@functools.cache
def ground(surface: str) -> np.ndarray:
    """(HEIGHT + MARGIN, WIDTH + MARGIN, 3) float32 in [0, 255], the same on every machine."""
    rng = RandomStream(_SEED, SURFACES.index(surface))
    image = _RECIPES[surface](rng)
    image.setflags(write=False)  # shared by all callers through the cache
    return image


def smooth_noise(rng: RandomStream, cell_rows: int, cell_columns: int) -> np.ndarray:
    """(_ROWS, _COLUMNS) float64 in [-1, 1]: random heights per cell, smoothly interpolated."""

    def steps(length: int, cell: int) -> tuple[np.ndarray, np.ndarray]:
        position = (np.arange(length) + 0.5) / cell
        whole = position.astype(np.int64)
        part = position - whole
        return whole, part * part * (3 - 2 * part)

    heights = 2 * rng.field(_ROWS // cell_rows + 2, _COLUMNS // cell_columns + 2) - 1
    row, down = steps(_ROWS, cell_rows)
    column, right = steps(_COLUMNS, cell_columns)
    left_edge, right_edge = heights[:, column], heights[:, column + 1]
    across = left_edge + right[None, :] * (right_edge - left_edge)
    return across[row] + down[:, None] * (across[row + 1] - across[row])


def _tinted(low: tuple[int, int, int], high: tuple[int, int, int], level: np.ndarray) -> np.ndarray:
    """Colours between `low` (level 0) and `high` (level 1)."""
    start, stop = np.asarray(low, np.float64), np.asarray(high, np.float64)
    mixed = start + np.clip(level, 0, 1)[..., None] * (stop - start)
    return mixed.astype(np.float32)


def _triangle(phase: np.ndarray) -> np.ndarray:
    """A wave of period 1 between -1 and 1, smooth at its peaks, without a sine."""
    ramp = 2 * np.abs(2 * (phase % 1.0) - 1) - 1
    return ramp * (1.5 - 0.5 * ramp * ramp)


def _grass(rng: RandomStream) -> np.ndarray:
    level = 0.5 + 0.22 * smooth_noise(rng, 60, 80) + 0.3 * smooth_noise(rng, 9, 3)
    return _tinted((84, 122, 58), (148, 184, 98), level + 0.1 * smooth_noise(rng, 4, 2))


def _sand(rng: RandomStream) -> np.ndarray:
    rows = np.arange(_ROWS)[:, None] / 15 + 0.9 * smooth_noise(rng, 40, 110)
    level = 0.5 + 0.16 * _triangle(rows) + 0.2 * smooth_noise(rng, 50, 70)
    return _tinted((204, 178, 130), (238, 218, 176), level + 0.14 * smooth_noise(rng, 2, 2))


def _water(rng: RandomStream) -> np.ndarray:
    rows = np.arange(_ROWS)[:, None] / 19 + 1.3 * smooth_noise(rng, 24, 48)
    crest = np.clip(_triangle(rows) - 0.45, 0, 1) * (1 + 0.6 * smooth_noise(rng, 16, 40))
    level = 0.35 + 0.2 * smooth_noise(rng, 60, 100) + 0.85 * crest
    return _tinted((92, 156, 184), (192, 226, 236), level)


def _snow(rng: RandomStream) -> np.ndarray:
    level = 0.62 + 0.45 * smooth_noise(rng, 48, 84) + 0.1 * smooth_noise(rng, 3, 3)
    image = _tinted((204, 216, 232), (250, 252, 254), level)
    image[rng.field(_ROWS, _COLUMNS) > 0.9985] = 255  # sparkles
    return image


def _wood(rng: RandomStream) -> np.ndarray:
    plank = 52  # pixels
    rows, columns = np.arange(_ROWS)[:, None], np.arange(_COLUMNS)[None, :]
    board = rows // plank
    shift = (rng.field(1, _ROWS // plank + 1)[0] * 170).astype(np.int64)[board]
    joint = (columns + shift) // 210  # boards end at different places
    tone = rng.field(_ROWS // plank + 1, (_COLUMNS + 170) // 210 + 1)[board, joint]
    grain = _triangle(rows / 11 + 1.6 * smooth_noise(rng, 22, 150))
    level = 0.3 + 0.36 * tone + 0.13 * grain + 0.08 * smooth_noise(rng, 2, 24)
    image = _tinted((146, 106, 70), (206, 164, 118), level)
    gap = (rows % plank < 2) | ((columns + shift) % 210 < 2)
    image[gap] *= 0.72
    return image


def _brick(rng: RandomStream) -> np.ndarray:
    tall, wide = 24, 56  # pixels, mortar included
    rows, columns = np.arange(_ROWS)[:, None], np.arange(_COLUMNS)[None, :]
    course = rows // tall
    moved = columns + (course % 2) * (wide // 2)
    tone = rng.field(_ROWS // tall + 1, (_COLUMNS + wide) // wide + 1)[course, moved // wide]
    level = 0.2 + 0.6 * tone + 0.16 * smooth_noise(rng, 3, 4)
    image = _tinted((150, 94, 80), (190, 130, 108), level)
    y, x = rows % tall, moved % wide
    image[np.broadcast_to((y == 3) | (x == 3), tone.shape)] *= 1.08  # lit upper and left edges
    mortar = np.broadcast_to((y < 3) | (x < 3), tone.shape)
    image[mortar] = _tinted((188, 178, 166), (214, 204, 192), level)[mortar]
    return image


def _stone(rng: RandomStream) -> np.ndarray:
    cell = 46  # pixels between the middles of two stones
    rows, columns = np.arange(_ROWS)[:, None], np.arange(_COLUMNS)[None, :]
    size = (_ROWS // cell + 3, _COLUMNS // cell + 3)
    down, right, tone = (rng.field(*size) for _ in range(3))
    nearest = np.full((_ROWS, _COLUMNS), 1e9)
    second, shade = nearest.copy(), np.zeros_like(nearest)
    for i in range(3):
        for j in range(3):
            a, b = rows // cell + i, columns // cell + j
            y = (a - 1 + 0.2 + 0.6 * down[a, b]) * cell - rows
            x = (b - 1 + 0.2 + 0.6 * right[a, b]) * cell - columns
            distance = np.sqrt(x * x + y * y)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            shade = np.where(closer, tone[a, b], shade)
            nearest = np.minimum(nearest, distance)
    level = 0.2 + 0.5 * shade + 0.14 * smooth_noise(rng, 4, 4) - 0.1 * nearest / cell
    image = _tinted((136, 138, 140), (196, 196, 192), level)
    seam = np.clip((second - nearest - 1.5) / 4, 0, 1)[..., None]
    return (image * (0.62 + 0.38 * seam)).astype(np.float32)


def _carpet(rng: RandomStream) -> np.ndarray:
    rows, columns = np.arange(_ROWS)[:, None], np.arange(_COLUMNS)[None, :]
    over = (rows // 4 + columns // 4) % 2 == 0  # threads go over and under
    diamonds = _triangle((rows + columns) / 64) * _triangle((rows - columns) / 64) > 0.1
    level = 0.35 + 0.1 * over + 0.28 * diamonds + 0.16 * smooth_noise(rng, 50, 60)
    return _tinted((138, 124, 140), (198, 184, 188), level + 0.08 * smooth_noise(rng, 2, 2))


_RECIPES = {
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "snow": _snow,
    "wood": _wood,
    "brick": _brick,
    "stone": _stone,
    "carpet": _carpet,
}
