"""Open images as RGB; truncated files raise an error."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from lavis_dynrefer.errors import InputError, MissingFileError, MissingPackageError
from lavis_dynrefer.images.decoding import (
    IMAGE_ERRORS,
    ROTATED,
    Source,
    exif_orientation,
    load_stored,
    open_file,
    stored_size,
    to_rgb,
)

logger = logging.getLogger(__name__)

ImageInput = Union[str, "os.PathLike[str]", Image.Image, "np.ndarray[Any, Any]"]

# Of an image or a mask: a small file can claim any size. Pillow's own limit is 178,956,970.
MAX_PIXELS = 178_000_000

# Pillow lets another program, or the system, draw these.
_DRAWN_ELSEWHERE = ("EPS", "WMF")


def open_image(image: ImageInput) -> Image.Image:
    """Open an image as RGB, pixels as stored: an EXIF rotation is not applied but logged.

    Args:
        image: path, PIL image of any mode, or uint8 array (h, w, 3) RGB or (h, w) gray. A PIL
            image is taken as it is, and Pillow turns TIFFs; `to_rgb` says how deep gray values
            are scaled.

    Returns:
        An RGB image; an RGB PIL image is returned as is, without a copy.

    Raises:
        MissingFileError: there is no such file.
        MissingPackageError: a HEIC image without pillow-heif.
        InputError: the file is not an image, damaged or too large, or the array has another shape
            or type.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if not isinstance(image, (str, os.PathLike, Image.Image)):
        raise InputError(f"image: expected a path, PIL image or array, got {type(image)}")
    if isinstance(image, Image.Image):
        with _explaining("image"):
            return _from_pil(image)
    name = os.fspath(image)
    with _explaining(f"image {name:.300}"):
        if not Path(image).is_file():
            raise MissingFileError(f"no image {image}")
        return _open(image, name)


def open_image_bytes(data: bytes, name: str = "image") -> Image.Image:
    """Open the bytes of an image file, from a table or an address, as `open_image` opens a file.

    Args:
        data: the whole file.
        name: of the image, for errors and the log.

    Raises:
        MissingPackageError: a HEIC image without pillow-heif.
        InputError: not an image, a damaged or a too large one, or an EPS or WMF file.
    """
    with _explaining(name):
        try:
            return _open(io.BytesIO(data), name, foreign=True)
        except UnidentifiedImageError as error:  # its text has an address in memory
            raise InputError(f"{len(data):,} bytes that are no known image file") from error


def _open(source: Source, name: str, *, foreign: bool = False) -> Image.Image:
    with whole_files_only, open_file(source) as opened:
        if foreign and opened.format in _DRAWN_ELSEWHERE:
            raise InputError(f"{opened.format} files are not read; convert it to PNG")
        rgb = _from_file(opened, name)
    rgb.info.pop("exif", None)  # already warned; this is our own copy
    return rgb


@contextmanager
def _explaining(name: str) -> Iterator[None]:
    """Turn what Pillow raises into errors that name the image."""
    try:
        yield
    except MissingFileError:
        raise
    except MissingPackageError as error:
        raise MissingPackageError(f"cannot read {name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: expected at most {MAX_PIXELS:,} pixels; {error}") from error
    except IMAGE_ERRORS as error:
        raise InputError(f"cannot read {name}: {error}") from error


def decode_image(path: str | os.PathLike[str]) -> Image.Image:
    """RGB pixels of an image file as stored, without limits; raises `IMAGE_ERRORS`."""
    with whole_files_only, open_file(path) as image:
        return to_rgb(load_stored(image), os.fspath(path))


class _WholeFilesOnly:
    """Makes Pillow reject truncated files while any thread is in this context.

    Some datasets of LAVIS make Pillow fill missing pixels with gray, for the whole process.
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


def _from_file(image: Image.Image, name: str) -> Image.Image:
    size = stored_size(image)
    _check_size(size)
    if exif_orientation(image) in ROTATED:
        _warn_once(
            "%s has an EXIF rotation, which is ignored: boxes refer to the stored pixels, %d x %d. "
            "Save it rotated if your boxes were drawn in a viewer.",
            *(name, *size),
        )
    return to_rgb(load_stored(image), name)


def _from_pil(image: Image.Image) -> Image.Image:
    _check_size(image.size)
    if exif_orientation(image) in ROTATED:
        done = "applies to a TIFF" if image.format == "TIFF" else "does not apply"
        _warn_once(
            f"an image has an EXIF rotation, which Pillow {done}: boxes refer to its pixels as "
            "they are, %d x %d.",
            *image.size,
        )
    with whole_files_only:  # it may not have been read yet
        return to_rgb(image)


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise InputError(
            f"it is {width} x {height} pixels; expected at least 1 and at most {MAX_PIXELS:,} in "
            "all; scale it down, and its boxes with it"
        )


@lru_cache(maxsize=1024)  # an image is opened more than once, for example to draw it
def _warn_once(message: str, *values: object) -> None:
    logger.warning(message, *values)


def _from_array(pixels: np.ndarray[Any, Any]) -> Image.Image:
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_colour or pixels.ndim == 2) or 0 in pixels.shape:
        raise InputError(
            "image: expected an array (h, w, 3) or (h, w) of uint8, RGB in 0 to 255, "
            f"got {pixels.shape} {pixels.dtype}"
        )
    return to_rgb(Image.fromarray(pixels))
