"""Crowds in COCO's files: many objects of a category under one run-length encoded mask."""

from __future__ import annotations

from lavis_dynrefer.datasets.sources.rows import Row, shown, whole_number
from lavis_dynrefer.geometry.masks import box_from_rle
from lavis_dynrefer.structures import Box, ImageRecord

# Of compressed counts: characters from "0" on hold five bits of a number each, lowest first.
_ZERO, _BITS, _SIGN, _MORE = ord("0"), 0x1F, 0x10, 0x20


def is_crowd(row: Row) -> bool:
    """Whether an annotation is one; without the key it is none.

    Raises:
        ValueError: neither 0 nor 1.
    """
    value = row.get("iscrowd")
    number = int(value or 0) if value is None or isinstance(value, bool) else whole_number(value)
    if number not in (0, 1):
        raise ValueError(f"iscrowd: expected 0 or 1, got {shown(value)}")
    return bool(number)


def crowd_box(row: Row, image: ImageRecord) -> Box:
    """The extent of a crowd's mask as the released DynRefer code takes it, in pixels.

    One pixel short on the right and at the bottom; so is the `bbox` of COCO's own crowds.

    Raises:
        KeyError: no mask.
        TypeError, ValueError: a mask of another kind, of another size than the picture, or of runs
            that do not fill it.
    """
    size = [whole_number(side) for side in row["segmentation"]["size"]]
    if size != [image.height, image.width]:
        raise ValueError(
            f"the mask is for {shown(size)} pixels (height, width), the picture has "
            f"{[image.height, image.width]}"
        )
    counts = row["segmentation"]["counts"]
    runs = _run_lengths(counts) if isinstance(counts, str) else list(map(whole_number, counts))
    if min(runs, default=0) < 0:
        raise ValueError(f"run lengths must not be negative, got {shown(counts)}")
    return box_from_rle({"size": size, "counts": runs}, rule="official")


def _run_lengths(counts: str) -> list[int]:
    """Uncompressed counts; pycocotools itself reads beyond the end of damaged ones.

    >>> _run_lengths("52219")
    [5, 2, 2, 1, 9]
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - _ZERO
        if not 0 <= code <= _MORE | _BITS:
            raise ValueError(f"counts: expected a compressed mask, got {shown(counts)}")
        value |= (code & _BITS) << shift
        shift += 5
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError(f"counts end within a number: {shown(counts)}")
    return runs
