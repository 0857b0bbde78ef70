"""Image files checked before a run needs them: which cannot be used, and which are unusual."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from PIL import Image, UnidentifiedImageError

from lavis_dynrefer.cores import map_in_processes
from lavis_dynrefer.images.decoding import (
    IMAGE_ERRORS,
    ROTATED,
    SIDEWAYS,
    exif_orientation,
    open_file,
    stored_size,
)
from lavis_dynrefer.images.opening import decode_image
from lavis_dynrefer.structures import ImageRecord

UNUSABLE = {  # kind -> meaning; an image has at most one of these
    "missing_image": "no such file",
    "empty_file": "zero bytes",
    "not_an_image": "not an image, such as an error page saved under its name",
    "unreadable_file": "cannot be opened",
    "too_many_pixels": "more pixels than Pillow agrees to decode",
    "damaged": "truncated or damaged; found by decoding",
}
UNUSUAL = {  # kind -> meaning; an image may have several
    "size_differs": "not the annotated size: boxes may not fit",
    "exif_rotated": "viewers show it rotated; boxes refer to the stored pixels",
    "gray": "shades of gray",
    "bilevel": "black and white",
    "palette": "colour palette",
    "alpha": "transparency, which is dropped",
    "cmyk": "printing colours",
    "deep": "more than 8 bits per channel",
    "other_colours": "another colour mode",
    "small": "a side under 8 pixels",
    "huge": "so many pixels that Pillow warns",
}
SMALL_SIDE = 8  # pixels
_SHOWN_BYTES = 24  # of a file that is not an image
_CHUNK = 64  # images handed to a process at once
_COLOURS = {"1": "bilevel", "L": "gray", "P": "palette", "CMYK": "cmyk"}  # mode -> kind
_ORDINARY = ("RGB", "RGBX", "YCbCr")


@dataclass(frozen=True)
class ImageFinding:
    """What was found about one image."""

    image_id: int
    path: str  # empty if the dataset has no file for it
    kinds: tuple[str, ...] = ()  # keys of `UNUSABLE` or `UNUSUAL`; none for an ordinary image
    detail: str = ""  # one sentence for a person

    @property
    def is_usable(self) -> bool:
        """Whether views can be cropped from it, as far as was checked."""
        return UNUSABLE.keys().isdisjoint(self.kinds)


@dataclass(frozen=True)
class ImageReport:
    """What was found in many images."""

    checked: int
    decoded: bool  # or only their headers read
    unusable: int
    counts: Mapping[str, int]  # kind -> images, in the order of `UNUSABLE`, then `UNUSUAL`
    examples: Mapping[str, ImageFinding]  # kind -> its first image


def check_image(record: ImageRecord, *, decode: bool) -> ImageFinding:
    """Check one image file.

    Args:
        record: the image and its annotated size.
        decode: decode it as training does, which alone finds truncated files; False reads the
            header only, many times faster.
    """
    try:
        kinds, detail = _check_header(record)
        if decode:
            with _quiet():
                decode_image(record.path)
    except IMAGE_ERRORS as error:
        kind = _kind_of(error, record.path)
        kinds, detail = (kind,), _describe(kind, error, record.path)
    return ImageFinding(record.image_id, record.path, kinds, detail)


def check_images(
    records: Iterable[ImageRecord], *, decode: bool, processes: int = 1
) -> Iterator[ImageFinding]:
    """Check many image files, in order.

    Args:
        records: the images.
        decode: see `check_image`.
        processes: how many share the work; more than 1 take seconds to start.
    """
    check = partial(check_image, decode=decode)
    yield from map_in_processes(check, records, processes, chunk=_CHUNK)


def count_findings(findings: Iterable[ImageFinding], *, decoded: bool) -> ImageReport:
    """Count the kinds of findings and keep the first example of each."""
    checked = unusable = 0
    counts: Counter[str] = Counter()
    examples: dict[str, ImageFinding] = {}
    for finding in findings:
        checked += 1
        unusable += not finding.is_usable
        counts.update(finding.kinds)
        for kind in finding.kinds:
            examples.setdefault(kind, finding)
    ordered = {kind: counts[kind] for kind in (*UNUSABLE, *UNUSUAL) if kind in counts}
    return ImageReport(checked, decoded, unusable, ordered, examples)


def _check_header(record: ImageRecord) -> tuple[tuple[str, ...], str]:
    """What the header says that is unusual; raises what Pillow raises."""
    with _quiet(), open_file(record.path) as image:
        size, mode = stored_size(image), image.mode
        orientation = exif_orientation(image)
        is_transparent = "transparency" in image.info
    base = mode.rstrip("Aa")
    colours = "deep" if mode[0] in "IF" else _COLOURS.get(base, "other_colours")
    annotated = (record.width, record.height)
    is_rotated = orientation in ROTATED
    found = {
        colours: base not in _ORDINARY,
        "alpha": is_transparent or base != mode,
        "size_differs": size != annotated,
        "exif_rotated": is_rotated,
        "small": min(size) < SMALL_SIDE,
        "huge": size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or float("inf")),
    }
    kinds = tuple(kind for kind, applies in found.items() if applies)
    if not kinds:
        return (), ""
    detail = f"{size[0]} x {size[1]} pixels, mode {mode}"
    if size != annotated:
        detail += f"; annotated {annotated[0]} x {annotated[1]}"
        if orientation in SIDEWAYS and annotated == size[::-1]:
            detail += ", its size when shown rotated"
    if is_rotated:
        detail += f"; EXIF orientation {orientation}"
    return kinds, detail


def _kind_of(error: Exception, path: str) -> str:
    """Why an image could not be opened or decoded."""
    if isinstance(error, FileNotFoundError):
        return "missing_image"
    if isinstance(error, Image.DecompressionBombError):
        return "too_many_pixels"
    if isinstance(error, UnidentifiedImageError):
        return "not_an_image" if os.path.getsize(path) else "empty_file"
    # Errors of the system have a number, Pillow's have none.
    return "unreadable_file" if getattr(error, "errno", None) else "damaged"


def _describe(kind: str, error: Exception, path: str) -> str:
    if kind != "not_an_image":
        return UNUSABLE[kind] if kind in ("missing_image", "empty_file") else str(error)
    with open(path, "rb") as file:
        return f"begins with {file.read(_SHOWN_BYTES)!r}"


@contextmanager
def _quiet() -> Iterator[None]:
    """What Pillow warns about is a kind here, or does not matter to the loader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
