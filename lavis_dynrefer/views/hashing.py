"""64-bit perceptual hashes of crops, which the image prior compares."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HashCrops = Callable[[Image.Image, Sequence[Sequence[int]]], list[imagehash.ImageHash]]
OFFICIAL_SIZE = 224  # pixels a crop is resized to before its transform, released code
HASH_SIDE = 8  # 64 bits
CACHED_BYTES = 32 << 20  # in each process; all sides to 1,447 pixels


def phash(image: Image.Image, boxes: Sequence[Sequence[int]]) -> list[imagehash.ImageHash]:
    """`imagehash.phash` of each crop.

    Args:
        image: RGB image.
        boxes: whole-pixel xyxy boxes inside it.
    """
    gray = image.convert("L")  # once: phash would convert every crop again
    return [imagehash.phash(gray.crop((x1, y1, x2, y2))) for x1, y1, x2, y2 in boxes]


def official_hash(image: Image.Image, boxes: Sequence[Sequence[int]]) -> list[imagehash.ImageHash]:
    """The bits of the released code: 224 px, lowest 8 x 8 of the DCT, threshold at their mean.

    Resizing and transform are both linear, so one small matrix per side does both at once; no
    crop is ever resized.

    Args:
        image: RGB image.
        boxes: whole-pixel xyxy boxes inside it.
    """
    gray = _gray(np.asarray(image)).astype(np.float32)
    hashes = []
    for left, top, right, bottom in boxes:
        crop = gray[top:bottom, left:right]
        low = _matrix(bottom - top) @ crop @ _matrix(right - left).T
        hashes.append(imagehash.ImageHash(low > low.mean()))
    return hashes


def _gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma in OpenCV's fixed-point arithmetic, uint8 (Pillow rounds differently)."""
    weights = np.array([4899, 9617, 1868])  # OpenCV's RGB2GRAY, 14 bits
    luma: NDArray[np.int64] = rgb.astype(np.int64) @ weights
    return ((luma + (1 << 13)) >> 14).astype(np.uint8)


def _resize_then_dct(length: int) -> NDArray[np.float32]:
    """(8, length): bilinear resize of `length` samples to 224, then the first 8 DCT-II rows."""
    centres = (np.arange(OFFICIAL_SIZE) + 0.5) * length / OFFICIAL_SIZE - 0.5
    low = np.floor(centres).astype(int)
    weight = centres - low
    resize = np.zeros((OFFICIAL_SIZE, length))
    rows = np.arange(OFFICIAL_SIZE)
    np.add.at(resize, (rows, np.clip(low, 0, length - 1)), 1 - weight)
    np.add.at(resize, (rows, np.clip(low + 1, 0, length - 1)), weight)
    frequency = np.arange(HASH_SIDE)[:, None]
    dct = np.cos(np.pi * (rows + 0.5) * frequency / OFFICIAL_SIZE) * np.sqrt(2 / OFFICIAL_SIZE)
    dct[0] /= np.sqrt(2)
    both: NDArray[np.float64] = dct @ resize
    return both.astype(np.float32)


class MatrixCache:
    """The matrices of `_resize_then_dct` used last, of at most so many bytes in all.

    Args:
        max_bytes: a longer matrix is made each time.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._kept: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()  # images are read by several threads

    def __call__(self, length: int) -> NDArray[np.float32]:
        """The matrix (8, length) of a side in pixels."""
        with self._lock:
            found = self._kept.get(length)
            if found is not None:
                self._kept.move_to_end(length)
                return found
        made = _resize_then_dct(length)
        with self._lock:
            if length not in self._kept:
                self._kept[length] = made
                self.bytes += made.nbytes
            while self.bytes > self.max_bytes:
                self.bytes -= self._kept.popitem(last=False)[1].nbytes
        return made


_matrix = MatrixCache(CACHED_BYTES)

HASHES: dict[str, HashCrops] = {"phash": phash, "official": official_hash}
