"""Pictures as path, PIL picture or array, as RGB."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image

from lavis_dynrefer.datasets.picture_files import (
    PICTURE_ERRORS,
    ROTATED,
    decode_picture,
    exif_orientation,
    to_rgb,
    whole_files_only,
)
from lavis_dynrefer.geometry.checks import MAX_PIXELS

logger = logging.getLogger(__name__)

Picture = Union[str, "os.PathLike[str]", Image.Image, "np.ndarray[Any, Any]"]


def open_picture(picture: Picture) -> Image.Image:
    """Any accepted picture as RGB, its pixels as stored.

    Args:
        picture: path, PIL picture of any mode, or array (h, w, 3) RGB or (h, w) gray of uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no picture, damaged or too large, or the array of another kind.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if not isinstance(picture, (str, os.PathLike, Image.Image)):
        raise ValueError(f"picture: expected a path, PIL picture or array, got {type(picture)}")
    name = "picture" if isinstance(picture, Image.Image) else f"picture {os.fspath(picture):.300}"
    try:
        return _decoded(picture)
    except FileNotFoundError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: expected at most {MAX_PIXELS:,} pixels; {error}") from error
    except PICTURE_ERRORS as error:
        raise ValueError(f"cannot read {name}: {error}") from error


def _decoded(picture: str | os.PathLike[str] | Image.Image) -> Image.Image:
    if isinstance(picture, Image.Image):
        _check_size(picture)
        if exif_orientation(picture) in ROTATED:
            _warn("a picture", picture.size)
        with whole_files_only:  # its file may not have been read yet
            image = to_rgb(picture)
        image.info.pop("exif", None)  # boxes count in these pixels from here on: said once
        return image
    if not Path(picture).is_file():
        raise FileNotFoundError(f"no picture {picture}")
    with Image.open(picture) as header:
        _check_size(header)
        if exif_orientation(header) in ROTATED:
            _warn_once(os.fspath(picture), header.size)
    image = decode_picture(picture)
    image.info.pop("exif", None)
    return image


def _warn(name: str, size: tuple[int, int]) -> None:
    logger.warning(
        "%s asks to be shown rotated (EXIF); boxes count in its pixels as stored, %d x %d. "
        "Save it rotated if yours were drawn on what a viewer shows.",
        name,
        *size,
    )


_warn_once = lru_cache(maxsize=1024)(_warn)  # a run opens a picture again to draw it


def _from_array(pixels: np.ndarray[Any, Any]) -> Image.Image:
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_colour or pixels.ndim == 2) or 0 in pixels.shape:
        raise ValueError(
            "picture: expected an array (h, w, 3) or (h, w) of uint8, RGB in 0 to 255, "
            f"got {pixels.shape} {pixels.dtype}"
        )
    return Image.fromarray(pixels).convert("RGB")


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ValueError(
            f"it is {width} x {height} pixels; expected at least 1 and at most {MAX_PIXELS:,} in "
            "all, make it smaller (and its boxes too)"
        )
