"""Decode opened image files: pixels as stored, 8 bits per channel.

What a file asks of its viewer, such as to turn the image, is not done; boxes refer to stored
pixels. Only HEIC is upright when decoded: its turning is a part of the format.
"""

from __future__ import annotations

import logging
import os
import struct
from importlib.util import find_spec
from typing import IO, Any, Union

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features

from lavis_dynrefer.errors import InputError, MissingPackageError

logger = logging.getLogger(__name__)

# What Pillow raises for files that are not images, damaged, or larger than it accepts.
IMAGE_ERRORS = (  # MemoryError: a header that claims gigabytes; RuntimeError: a damaged AVIF
    *(MemoryError, OSError, OverflowError, RuntimeError, SyntaxError, ValueError),
    *(struct.error, Image.DecompressionBombError),
)

ROTATED = range(2, 9)  # EXIF orientations, mirrored ones included
SIDEWAYS = range(5, 9)  # those that swap width and height
_UPRIGHT = 1
_ORIENTATION = int(ExifTags.Base.Orientation)

# Undoes the turn that Pillow makes for an orientation; mirroring is its own inverse.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

_DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners store in 16
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_MAXIMUM = 256, 257, 258, 281
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_told: set[str] = set()  # guesses that this process has logged

_SUFFIXES = frozenset(
    f".{name}"
    for names in ("bmp gif jfif jp2 jpeg jpg pbm", "pgm png pnm ppm tga tif tiff webp")
    for name in names.split()
)
HEIF_SUFFIXES = (".heic", ".heif", ".hif")

Source = Union[str, "os.PathLike[str]", IO[bytes]]


def open_file(source: Source, **options: Any) -> Image.Image:
    """`PIL.Image.open`, also for HEIC with pillow-heif.

    Args:
        source: path or binary file.
        options: of `PIL.Image.open`.

    Raises:
        MissingPackageError: a HEIC image without pillow-heif.
    """
    try:
        return Image.open(source, **options)
    except UnidentifiedImageError:
        if not _is_heif(source) or "formats" in options:
            raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise MissingPackageError(
            "HEIC images need pillow-heif: pip install 'lavis_dynrefer[heic]', or convert them "
            "to JPEG"
        ) from error
    register_heif_opener()
    return Image.open(source)


def readable_suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of the image files that can be opened here."""
    avif = (".avif",) if features.check("avif") else ()
    heif = HEIF_SUFFIXES if find_spec("pillow_heif") else ()
    return _SUFFIXES.union(avif, heif)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of an image file as stored, from its header; raises `IMAGE_ERRORS`."""
    with open_file(path) as image:
        return stored_size(image)


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened file as stored; Pillow gives those of a turned TIFF turned."""
    if _is_turned_by_pillow(image):
        tags = image.tag_v2  # type: ignore[attr-defined]  # of TIFFs
        return int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
    return image.size


def exif_orientation(image: Image.Image) -> Any:
    """EXIF orientation; 1 (as stored) if there is none or it is unreadable.

    Of a TIFF only until it is loaded.
    """
    if image.format == "TIFF":
        return getattr(image, "tag_v2", {}).get(_ORIENTATION, _UPRIGHT)
    if "exif" not in image.info:  # getexif() would decode a whole PNG
        return _UPRIGHT
    try:
        return image.getexif().get(_ORIENTATION, _UPRIGHT)
    except IMAGE_ERRORS:  # the pixels may still be fine
        return _UPRIGHT


def load_stored(image: Image.Image) -> Image.Image:
    """Load the pixels of an opened file as stored, in its own mode.

    Pillow turns TIFFs by their orientation, and leaves all other files as they are.
    """
    orientation = exif_orientation(image) if image.format == "TIFF" else _UPRIGHT
    image.load()
    return image.transpose(_STORED[orientation]) if orientation in _STORED else image


def to_rgb(image: Image.Image, name: str = "an image") -> Image.Image:
    """Convert an image of any mode to RGB, the first of several frames; no copy if it is RGB.

    Args:
        image: gray images of more than 8 bits are scaled by their range: what the file says, else
            the smallest of 8, 10, 12, 14 and 16 bits that holds their values; 0 to 1 for
            floating point. Each kind of guess is logged once.
        name: of the image, for the log.

    Raises:
        InputError: deep gray values that are negative, not finite or of more than 16 bits.
    """
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode == "F" or image.mode.startswith("I"):  # convert() would clip to black or white
        return _from_deep(image, name)
    return image.convert("RGB")


def _is_turned_by_pillow(image: Image.Image) -> bool:
    return image.format == "TIFF" and exif_orientation(image) in _STORED


def _from_deep(image: Image.Image, name: str) -> Image.Image:
    said = _depth_in_file(image)
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" and 0 <= low <= high <= 1:
        _tell_range(name, "floating point from 0 to 1")
        gray = np.rint(values * 255)
    else:
        top = said or next((2**bits - 1 for bits in _DEPTHS if high < 2**bits), None)
        if top is None or not 0 <= low <= high <= top:
            raise InputError(
                f"its gray values are {low:g} to {high:g}; expected 0 to 65,535, or 0 to 1 in "
                "floating point; scale them and save the image with 8 bits"
            )
        if said is None and top < 2**16 - 1:
            _tell_range(name, f"{(top + 1).bit_length() - 1}-bit values")
        gray = values.astype(np.float64) * 256 // (top + 1)
    return Image.fromarray(gray.astype(np.uint8)).convert("RGB")


def _depth_in_file(image: Image.Image) -> int | None:
    """The largest possible value, if the file says so."""
    if image.format == "PPM":  # Pillow scales what it reads to 16 bits
        return 2**16 - 1
    if image.format != "TIFF" or image.mode == "F":
        return None
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, (16,))[0]
    if bits < 16:
        return int(2**bits - 1)
    maximum = tags.get(_TIFF_MAXIMUM, 0)
    maximum = maximum[0] if isinstance(maximum, tuple) else maximum
    return int(maximum) if 255 < maximum < 2**16 - 1 else None


def _tell_range(name: str, found: str) -> None:
    """Log a guess once: a dataset may be full of such images, and be read in every epoch."""
    if found not in _told:
        _told.add(found)
        logger.warning(
            "%s has deep gray values, taken as %s; further images like it are not named",
            name,
            found,
        )


def _is_heif(source: Source) -> bool:
    if not isinstance(source, (str, os.PathLike)):
        source.seek(0)
        start = source.read(12)
        source.seek(0)
    else:
        with open(source, "rb") as file:
            start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS
