"""Images as path, PIL image or array, as RGB."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.images.box_checks import MAX_PIXELS
from lavis_dynrefer.images.decoding import (
    IMAGE_ERRORS,
    ROTATED,
    decode_image,
    exif_orientation,
    to_rgb,
    whole_files_only,
)

logger = logging.getLogger(__name__)

ImageInput = Union[str, "os.PathLike[str]", Image.Image, "np.ndarray[Any, Any]"]


def open_image(image: ImageInput) -> Image.Image:
    """Any accepted image as RGB, its pixels as stored.

    Args:
        image: path, PIL image of any mode, or array (h, w, 3) RGB or (h, w) gray of uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, damaged or too large, or the array of another kind.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if not isinstance(image, (str, os.PathLike, Image.Image)):
        raise InputError(f"image: expected a path, PIL image or array, got {type(image)}")
    name = "image" if isinstance(image, Image.Image) else f"image {os.fspath(image):.300}"
    try:
        return _decoded(image)
    except FileNotFoundError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: expected at most {MAX_PIXELS:,} pixels; {error}") from error
    except IMAGE_ERRORS as error:
        raise InputError(f"cannot read {name}: {error}") from error


def _decoded(image: str | os.PathLike[str] | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        _check_size(image)
        if exif_orientation(image) in ROTATED:
            _warn("an image", image.size)
        with whole_files_only:  # its file may not have been read yet
            image = to_rgb(image)
        image.info.pop("exif", None)  # boxes count in these pixels from here on: said once
        return image
    if not Path(image).is_file():
        raise MissingFileError(f"no image {image}")
    with Image.open(image) as header:
        _check_size(header)
        if exif_orientation(header) in ROTATED:
            _warn_once(os.fspath(image), header.size)
    decoded = decode_image(image)
    decoded.info.pop("exif", None)
    return decoded


def _warn(name: str, size: tuple[int, int]) -> None:
    logger.warning(
        "%s asks to be shown rotated (EXIF); boxes count in its pixels as stored, %d x %d. "
        "Save it rotated if yours were drawn on what a viewer shows.",
        name,
        *size,
    )


_warn_once = lru_cache(maxsize=1024)(_warn)  # a run opens an image again to draw it


def _from_array(pixels: np.ndarray[Any, Any]) -> Image.Image:
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_colour or pixels.ndim == 2) or 0 in pixels.shape:
        raise InputError(
            "image: expected an array (h, w, 3) or (h, w) of uint8, RGB in 0 to 255, "
            f"got {pixels.shape} {pixels.dtype}"
        )
    return Image.fromarray(pixels).convert("RGB")


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise InputError(
            f"it is {width} x {height} pixels; expected at least 1 and at most {MAX_PIXELS:,} in "
            "all, make it smaller (and its boxes too)"
        )
