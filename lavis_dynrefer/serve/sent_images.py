"""Decode untrusted images from clients: base64 or a file."""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lavis_dynrefer.errors import shorten
from lavis_dynrefer.images.decoding import (
    IMAGE_ERRORS,
    exif_orientation,
    load_stored,
    open_file,
    to_rgb,
)
from lavis_dynrefer.images.masks import box_from_array
from lavis_dynrefer.images.opening import whole_files_only
from lavis_dynrefer.serve.request_errors import RequestError
from lavis_dynrefer.structures import Box

# Not all that Pillow opens: its EPS reader, for one, runs another program.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_ADDRESS = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_DATA_URL = re.compile(r"\s*data:[^,]*;base64\s*,", re.IGNORECASE)


@dataclass(frozen=True)
class SentImage:
    """A decoded image.

    Args:
        image: RGB, pixels as stored.
        alpha_box: tight box of the pixels that are not fully transparent, xyxy in pixels; all
            zeros if there are none, None if there is no alpha channel.
        orientation: of its EXIF data, 1 for upright.
        mask: (height, width) bool, those pixels; None without an alpha channel.
    """

    image: Image.Image
    alpha_box: Box | None
    orientation: int
    mask: NDArray[np.bool_] | None = None


def decode_base64(text: str, *, name: str = "image") -> bytes:
    """The bytes of an image written as base64 or as a data URL.

    Args:
        text: from a request.
        name: of the image in errors.

    Raises:
        RequestError: another kind of URL, or damaged base64.
    """
    prefix = _DATA_URL.match(text)
    address = None if prefix else _ADDRESS.match(text)
    if address:
        expected = f"{name}: expected base64 or a data URL (data:image/png;base64,...), got "
        if address[1].lower() == "data":
            head = shorten(text.strip().partition(",")[0], 40, printable=True)
            raise RequestError("invalid_request", f"{expected}{head!r} without ;base64,")
        raise RequestError(
            "invalid_request",
            f"{expected}an address of {address[1][:20]}:; this server fetches nothing, send the "
            "image itself",
        )
    written = text[prefix.end() :] if prefix else text
    try:
        return base64.b64decode("".join(written.split()), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters beyond ASCII
        raise RequestError("invalid_request", f"{name}: damaged base64: {error}") from error


def open_sent_image(data: bytes, *, max_pixels: int, name: str = "image") -> SentImage:
    """Decode an image.

    Args:
        data: a file in one of `IMAGE_FORMATS`.
        max_pixels: maximal width times height; checked before anything is decoded.
        name: of the image in errors.

    Raises:
        RequestError: not an image, or a damaged or too large one.
    """
    try:
        with whole_files_only, open_file(io.BytesIO(data), formats=IMAGE_FORMATS) as opened:
            width, height = opened.size
            if width * height > max_pixels:
                raise RequestError(
                    "too_large",
                    f"{name}: expected at most {max_pixels:,} pixels, got {width} x {height}; "
                    "make it smaller (and its boxes too)",
                )
            orientation = exif_orientation(opened)  # gone once a TIFF is loaded
            image = load_stored(opened)
            mask, rgb = _mask(image), to_rgb(image)
            rgb.info.pop("exif", None)  # else `open_image` would warn about the rotation
            return SentImage(rgb, _box(mask), orientation, mask)
    except UnidentifiedImageError as error:
        raise RequestError(
            "unsupported_media_type",
            f"{name}: expected an image as {', '.join(IMAGE_FORMATS)}, got {_kind_of(data)}",
        ) from error
    except Image.DecompressionBombError as error:
        raise RequestError(
            "too_large", f"{name}: expected at most {max_pixels:,} pixels; {error}"
        ) from error
    except IMAGE_ERRORS as error:
        raise RequestError("unprocessable", f"{name}: damaged image: {error}") from error


def _mask(image: Image.Image) -> NDArray[np.bool_] | None:
    if "A" not in image.getbands():
        return None
    return np.asarray(image.getchannel("A")) != 0


def _box(mask: NDArray[np.bool_] | None) -> Box | None:
    if mask is None:
        return None
    return box_from_array(mask) if mask.any() else (0.0, 0.0, 0.0, 0.0)


def _kind_of(data: bytes) -> str:
    start = data[:200].lstrip().lower()
    if not data:
        return "nothing"
    if start.startswith((b"<!doctype html", b"<html")):
        return "an html page"
    if start.startswith((b"<svg", b"<?xml")):
        return "xml or svg"
    return f"{len(data):,} bytes of something else"
