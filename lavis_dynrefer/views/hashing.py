"""64-bit perceptual hashes of crops, which the image prior compares.

A hash is made for an image, once, and then called with boxes: `HASHES[name](image)(boxes)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Boxes = Union[Sequence[Sequence[int]], NDArray[np.int64]]
HashCrops = Callable[[Boxes], NDArray[np.bool_]]
HASH_SIDE = 8
BITS = HASH_SIDE**2
OFFICIAL_SIZE = 224  # pixels a crop is resized to before its transform, released code
_PHASH_SIZE = 32  # the same in imagehash

_LUMA = (9798 / 32768, 19235 / 32768, 3735 / 32768, 0.0)  # OpenCV's RGB2GRAY, 15 bits
# Resizing to 224 looks at two pixels of each side for each of its own: a longer side is read there
# only. Rows are copied whole and columns one by one, so that it pays for columns later.
_MAX_ROWS, _MAX_COLUMNS = 448, 640
# numbers: larger products would wake the threads of numpy's linear algebra, which readers share
_PART = 1 << 15


class PerceptualHash:
    """The bits of `imagehash.phash` of crops.

    Args:
        image: RGB image.
    """

    def __init__(self, image: Image.Image) -> None:
        self._gray = image.convert("L")

    def __call__(self, boxes: Boxes) -> NDArray[np.bool_]:
        """Bits (N, 64) of whole-pixel xyxy boxes (N, 4) inside the image."""
        # imagehash's transform, for all crops at once: another one rounds differently, and of an
        # evenly coloured crop the bits are nothing but rounding.
        from scipy.fft import dct

        crops = np.empty((len(boxes), _PHASH_SIZE, _PHASH_SIZE))
        for number, (left, top, right, bottom) in enumerate(np.asarray(boxes).tolist()):
            crop = self._gray.crop((left, top, right, bottom))
            small = crop.resize((_PHASH_SIZE, _PHASH_SIZE), Image.Resampling.LANCZOS)
            crops[number] = np.asarray(small)
        low = dct(dct(crops, axis=1)[:, :HASH_SIDE], axis=2)[:, :, :HASH_SIDE].reshape(-1, BITS)
        bits: NDArray[np.bool_] = low > np.median(low, axis=1, keepdims=True)
        return bits


class OfficialHash:
    """The bits of the released code: 224 px, lowest 8 x 8 of the DCT, threshold at their mean.

    Resizing and transform are both linear, so one small matrix per side does both at once; no
    crop is ever resized. Sums are float32, as in the released code, and their last digit depends
    on numpy's linear algebra: a coefficient as near to the mean as that may be on either side.

    Args:
        image: RGB image.
    """

    def __init__(self, image: Image.Image) -> None:
        # Exact: all sums are whole numbers below 2 ** 24. Pillow's own luma rounds differently.
        self._gray = np.asarray(image.convert("L", _LUMA))

    def __call__(self, boxes: Boxes) -> NDArray[np.bool_]:
        """Bits (N, 64) of whole-pixel xyxy boxes (N, 4) inside the image."""
        low = np.empty((len(boxes), BITS), dtype=np.float32)
        for number, (left, top, right, bottom) in enumerate(np.asarray(boxes).tolist()):
            low[number] = _lowest(self._gray[top:bottom, left:right]).ravel()
        bits: NDArray[np.bool_] = low > low.mean(axis=1, keepdims=True)
        return bits


def _lowest(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(8, 8): the lowest coefficients of a gray crop resized to 224."""
    rows, down = _side(crop.shape[0], _MAX_ROWS)
    columns, across = _side(crop.shape[1], _MAX_COLUMNS)
    done = np.empty((len(down), HASH_SIDE), dtype=np.float32)
    step = max(1, _PART // len(across))
    for start in range(0, len(down), step):
        some = slice(start, start + step)
        part = crop[some] if rows is None else crop[rows[some]]
        part = part if columns is None else part.take(columns, axis=1)
        np.matmul(part.astype(np.float32), across, out=done[some])
    low: NDArray[np.float32] = down.T @ done
    return low


def _side(length: int, most: int) -> tuple[NDArray[np.intp] | None, NDArray[np.float32]]:
    """Pixels of a side to read, None for all of them, and what each adds to the coefficients."""
    if length <= most:
        return None, _every_pixel(length)
    low, weight = _places(length)  # more than two pixels apart: no two share one
    pixels = np.stack([low, low + 1], axis=1).ravel()
    shares = np.stack([_dct() * (1 - weight)[:, None], _dct() * weight[:, None]], axis=1)
    return pixels, shares.reshape(-1, HASH_SIDE).astype(np.float32)


@lru_cache(maxsize=_MAX_COLUMNS)  # of all lengths 7 MB
def _every_pixel(length: int) -> NDArray[np.float32]:
    """(length, 8): what each pixel adds to the coefficients of the side resized to 224."""
    low, weight = _places(length)
    before, after = _dct() * (1 - weight)[:, None], _dct() * weight[:, None]
    shares = np.zeros((length, HASH_SIDE))
    if length > OFFICIAL_SIZE:  # no two places lie between the same two pixels
        shares[low] = before
        shares[low + 1] += after
    else:
        np.add.at(shares, low.clip(0, length - 1), before)
        np.add.at(shares, (low + 1).clip(0, length - 1), after)
    return shares.astype(np.float32)


def _places(length: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """(224,): the pixel before each place that resizing reads, and the weight of the next one."""
    places = (np.arange(OFFICIAL_SIZE) + 0.5) * length / OFFICIAL_SIZE - 0.5
    low = np.floor(places)
    return low.astype(np.intp), places - low


@lru_cache(maxsize=1)
def _dct() -> NDArray[np.float64]:
    """(224, 8): the first 8 rows of the orthonormal DCT-II, as columns."""
    rows = np.arange(OFFICIAL_SIZE)[:, None] + 0.5
    dct = np.cos(np.pi * rows * np.arange(HASH_SIDE) / OFFICIAL_SIZE) * np.sqrt(2 / OFFICIAL_SIZE)
    dct[:, 0] /= np.sqrt(2)
    return np.asarray(dct)


HASHES: dict[str, Callable[[Image.Image], HashCrops]] = {
    "phash": PerceptualHash,
    "official": OfficialHash,
}
