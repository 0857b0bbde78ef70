"""Image files as RGB: a whole file, or an error."""

from __future__ import annotations

import os
import struct
import threading
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile

# What Pillow raises at files that are no images, damaged, or larger than it wants to open.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

ROTATED = range(2, 9)  # EXIF orientations, mirrored ones included
_UPRIGHT = 1


class _WholeFilesOnly:
    """While any thread is in it Pillow refuses damaged files.

    Some datasets of LAVIS make Pillow fill what is missing with gray, for the whole process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._before


whole_files_only = _WholeFilesOnly()


def decode_image(path: str | os.PathLike[str]) -> Image.Image:
    """RGB pixels of a whole image file; raises `IMAGE_ERRORS`."""
    with whole_files_only, Image.open(path) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB, of several frames the first."""
    if image.mode.startswith("I"):  # 16 bit: convert() would clip nearly all of it to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def exif_orientation(image: Image.Image) -> Any:
    """What the file says about how to show it; 1 is as stored, and where nothing is readable."""
    if "exif" not in image.info:  # asking would decode a whole PNG
        return _UPRIGHT
    try:
        return image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    except IMAGE_ERRORS:  # pixels can be whole all the same
        return _UPRIGHT
