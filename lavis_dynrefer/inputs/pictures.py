"""Pictures as path, PIL picture or array, as RGB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image

from lavis_dynrefer.datasets.region_dataset import PICTURE_ERRORS, decode_picture, to_rgb

Picture = Union[str, "os.PathLike[str]", Image.Image, np.ndarray]
MAX_PIXELS = 200_000_000  # a file of few bytes can claim to be any size


def open_picture(picture: Picture) -> Image.Image:
    """Any accepted picture as RGB, its pixels as stored.

    Args:
        picture: path, PIL picture of any mode, or array (h, w, 3) RGB or (h, w) gray of uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no picture, damaged or too large, or the array of another kind.
    """
    if isinstance(picture, Image.Image):
        _check_size(picture, "picture")
        return to_rgb(picture)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if not isinstance(picture, (str, os.PathLike)):
        raise ValueError(f"picture: expected a path, PIL picture or array, got {type(picture)}")
    path = Path(picture)
    if not path.is_file():
        raise FileNotFoundError(f"no picture {path}")
    try:
        with Image.open(path) as header:
            _check_size(header, path)
        return decode_picture(path)
    except PICTURE_ERRORS as error:
        raise ValueError(f"cannot read picture {path}: {error}") from error


def _from_array(pixels: np.ndarray[Any, Any]) -> Image.Image:
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_colour or pixels.ndim == 2) or 0 in pixels.shape:
        raise ValueError(
            "picture: expected an array (h, w, 3) or (h, w) of uint8, RGB in 0 to 255, "
            f"got {pixels.shape} {pixels.dtype}"
        )
    return Image.fromarray(pixels).convert("RGB")


def _check_size(picture: Image.Image, name: object) -> None:
    width, height = picture.size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} is {width} x {height} pixels; expected at least 1 and at most "
            f"{MAX_PIXELS:,} in all"
        )
