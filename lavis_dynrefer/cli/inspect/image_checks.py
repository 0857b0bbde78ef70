"""Looks at image files before a run does: which cannot be used, and which are unusual."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image, UnidentifiedImageError

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.opening import (
    IMAGE_ERRORS,
    ROTATED,
    decode_image,
    exif_orientation,
)
from lavis_dynrefer.structures import ImageRecord

UNUSABLE = {  # kind -> what it means; an image has at most one of these
    "missing_image": "no such file",
    "empty_file": "zero bytes",
    "not_an_image": "no image, such as an error page saved under its name",
    "unreadable_file": "cannot be opened",
    "too_many_pixels": "more pixels than Pillow agrees to decode",
    "damaged": "cut short or damaged, found by decoding",
}
UNUSUAL = {  # kind -> what it means; an image may have several
    "size_differs": "not the size the annotations say: boxes may not fit",
    "exif_rotated": "asks to be shown rotated; boxes are taken on the pixels as stored",
    "gray": "shades of gray",
    "bilevel": "black and white",
    "palette": "palette of colours",
    "alpha": "transparent parts, which lose their transparency",
    "cmyk": "printing colours",
    "deep": "more than 8 bits per channel",
    "other_colours": "another way to store colours",
    "small": "a side under 8 pixels",
    "huge": "so many pixels that Pillow warns",
}
SMALL_SIDE = 8  # pixels
EXAMPLES = 5  # of each kind in a report
_SIDEWAYS = range(5, 9)
_SHOWN_BYTES = 24  # of a file that is no image
_CHUNK = 64  # images a process is handed at once
_MODES = {
    "RGB": (),
    "RGBX": (),
    "YCbCr": (),
    "1": ("bilevel",),
    "L": ("gray",),
    "LA": ("gray", "alpha"),
    "La": ("gray", "alpha"),
    "P": ("palette",),
    "PA": ("palette", "alpha"),
    "RGBA": ("alpha",),
    "RGBa": ("alpha",),
    "CMYK": ("cmyk",),
}


@dataclass(frozen=True)
class ImageFinding:
    """What is to say about one image.

    Args:
        image_id: its id.
        path: its file; empty where the dataset found none.
        kinds: keys of `UNUSABLE` or `UNUSUAL`; none for an image like any other.
        detail: one sentence for a person; empty without a kind.
    """

    image_id: int
    path: str
    kinds: tuple[str, ...] = ()
    detail: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether views can be cut from it, as far as was looked."""
        return UNUSABLE.keys().isdisjoint(self.kinds)


@dataclass(frozen=True)
class ImageReport:
    """What was found in many images.

    Args:
        checked: number of images looked at.
        decoded: whether they were decoded, or only their headers read.
        unusable: number of images that cannot be used.
        counts: kind -> number of images, in the order of `UNUSABLE`, then `UNUSUAL`.
        examples: kind -> the first images of it.
    """

    checked: int
    decoded: bool
    unusable: int
    counts: Mapping[str, int]
    examples: Mapping[str, Sequence[ImageFinding]] = field(default_factory=dict)


def check_image(record: ImageRecord, decode: bool) -> ImageFinding:
    """Look at one image file.

    Args:
        record: the image and the size its annotations say.
        decode: decode it as training does, which alone finds a file that was cut short; False
            reads the header only, many times faster.
    """
    try:
        kinds, detail = _look(record)
        if decode:
            with _quiet():
                decode_image(record.path)
    except IMAGE_ERRORS as error:
        kind = _kind_of(error, record.path)
        return _finding(record, (kind,), _describe(kind, error, record.path))
    return _finding(record, kinds, detail)


def check_images(
    records: Iterable[ImageRecord],
    *,
    decode: bool,
    processes: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> ImageReport:
    """Look at many image files.

    Args:
        records: the images.
        decode: as in `check_image`.
        processes: how many share the work. Above 1 they are started afresh, which takes seconds;
            the calling program then needs the usual `if __name__ == "__main__":`.
        on_progress: called with the number of images looked at since the last call.

    Raises:
        ValueError: fewer than one process.
    """
    if processes < 1:
        raise InputError(f"processes: expected at least 1, got {processes}")
    chunks = list(_chunks(records))
    found: list[list[ImageFinding]] = [[] for _ in chunks]
    for number, findings in _checked(chunks, decode, processes):
        found[number] = [finding for finding in findings if finding.kinds]
        if on_progress is not None:
            on_progress(len(findings))
    return _report([item for part in found for item in part], sum(map(len, chunks)), decode)


def _checked(
    chunks: Sequence[Sequence[ImageRecord]], decode: bool, processes: int
) -> Iterator[tuple[int, list[ImageFinding]]]:
    """Number of a chunk and its findings, in the order they are ready."""
    if processes == 1:
        yield from ((number, _check_chunk(chunk, decode)) for number, chunk in enumerate(chunks))
        return
    # A forked copy of a process that has torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context)
    try:
        numbers: dict[Future[list[ImageFinding]], int] = {
            pool.submit(_check_chunk, chunk, decode): number for number, chunk in enumerate(chunks)
        }
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _check_chunk(records: Sequence[ImageRecord], decode: bool) -> list[ImageFinding]:
    return [check_image(record, decode) for record in records]


def _chunks(records: Iterable[ImageRecord]) -> Iterator[list[ImageRecord]]:
    chunk: list[ImageRecord] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _report(findings: Sequence[ImageFinding], checked: int, decode: bool) -> ImageReport:
    counts = Counter(kind for finding in findings for kind in finding.kinds)
    order = [kind for kind in (*UNUSABLE, *UNUSUAL) if kind in counts]
    return ImageReport(
        checked=checked,
        decoded=decode,
        unusable=sum(not finding.is_usable for finding in findings),
        counts={kind: counts[kind] for kind in order},
        examples={
            kind: [finding for finding in findings if kind in finding.kinds][:EXAMPLES]
            for kind in order
        },
    )


def _finding(record: ImageRecord, kinds: tuple[str, ...], detail: str) -> ImageFinding:
    return ImageFinding(record.image_id, record.path, kinds, detail)


def _look(record: ImageRecord) -> tuple[tuple[str, ...], str]:
    """What the header says that is unusual; raises what Pillow raises."""
    with _quiet(), Image.open(record.path) as image:
        size, mode = image.size, image.mode
        orientation = exif_orientation(image)
        is_transparent = "transparency" in image.info
    kinds = list(_mode_kinds(mode))
    if is_transparent and "alpha" not in kinds:
        kinds.append("alpha")
    annotated = (record.width, record.height)
    is_rotated = orientation in ROTATED
    for kind, applies in {
        "size_differs": size != annotated,
        "exif_rotated": is_rotated,
        "small": min(size) < SMALL_SIDE,
        "huge": size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or float("inf")),
    }.items():
        if applies:
            kinds.append(kind)
    detail = f"{size[0]} x {size[1]} pixels, mode {mode}"
    if size != annotated:
        detail += f"; annotated {annotated[0]} x {annotated[1]}"
        if orientation in _SIDEWAYS and annotated == size[::-1]:
            detail += ", its size when shown rotated"
    if is_rotated:
        detail += f"; EXIF orientation {orientation}"
    return tuple(kinds), detail if kinds else ""


def _mode_kinds(mode: str) -> tuple[str, ...]:
    if mode.startswith("I"):  # "I;16" and its byte orders
        return ("deep",)
    return _MODES.get(mode, ("other_colours",))


def _kind_of(error: Exception, path: str) -> str:
    """Why an image could not be opened or decoded."""
    if isinstance(error, FileNotFoundError):
        return "missing_image"
    if isinstance(error, Image.DecompressionBombError):
        return "too_many_pixels"
    if isinstance(error, UnidentifiedImageError):
        return "not_an_image" if os.path.getsize(path) else "empty_file"
    # The system's own errors have a number, Pillow's have not.
    return "unreadable_file" if getattr(error, "errno", None) else "damaged"


def _describe(kind: str, error: Exception, path: str) -> str:
    if kind != "not_an_image":
        return UNUSABLE[kind] if kind in ("missing_image", "empty_file") else str(error)
    with open(path, "rb") as file:
        return f"begins with {file.read(_SHOWN_BYTES)!r}"


@contextmanager
def _quiet() -> Iterator[None]:
    """What Pillow warns of is a kind here, or nothing that matters to the loader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
