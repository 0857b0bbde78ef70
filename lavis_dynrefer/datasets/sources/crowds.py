"""Crowds in COCO's files: many objects of a category under one run-length encoded mask."""

from __future__ import annotations

from lavis_dynrefer.datasets.sources.annotation_rows import Row, shown, whole_number
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.masks import box_from_rle
from lavis_dynrefer.structures import Box, ImageRecord


def is_crowd(row: Row) -> bool:
    """Whether an annotation is one; without the key it is none.

    Raises:
        ValueError: neither 0 nor 1.
    """
    value = row.get("iscrowd")
    number = int(value or 0) if value is None or isinstance(value, bool) else whole_number(value)
    if number not in (0, 1):
        raise InputError(f"iscrowd: expected 0 or 1, got {shown(value)}")
    return bool(number)


def crowd_box(row: Row, image: ImageRecord) -> Box:
    """The extent of a crowd's mask as the released DynRefer code takes it, in pixels.

    One pixel short on the right and at the bottom; so is the `bbox` of COCO's own crowds.

    Raises:
        KeyError: no mask.
        TypeError, ValueError: a mask of another kind, of another size than the image, or of runs
            that do not fill it.
    """
    size = [whole_number(side) for side in row["segmentation"]["size"]]
    if size != [image.height, image.width]:
        raise InputError(
            f"the mask is for {shown(size)} pixels (height, width), the image has "
            f"{[image.height, image.width]}"
        )
    counts = row["segmentation"]["counts"]
    runs = counts if isinstance(counts, str) else list(map(whole_number, counts))
    return box_from_rle({"size": size, "counts": runs}, rule="official")
