"""Boxes around masks that strangers send.

Run-lengths are never handed to pycocotools: it trusts compressed ones, and some that add up to more
than their picture overwrite its memory. The box is computed from the runs themselves, which also
takes no memory for the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lavis_dynrefer.geometry.masks import box_from_polygons
from lavis_dynrefer.serve.bodies import RunLengths
from lavis_dynrefer.structures import Box


def boxes_of_sent_masks(
    masks: Sequence[RunLengths | Sequence[Sequence[float]]], image_size: Sequence[int]
) -> Tensor:
    """The tight box around every mask.

    Args:
        masks: R masks, run-lengths or polygons.
        image_size: width and height of the picture in pixels.

    Returns:
        (R, 4) float32 xyxy in pixels.

    Raises:
        ValueError: a mask without pixels, of another size than the picture, or damaged.
    """
    boxes = []
    for row, mask in enumerate(masks):
        try:
            if isinstance(mask, RunLengths):
                boxes.append(_box_of_runs(mask, image_size))
            else:
                boxes.append(box_from_polygons(mask))
        except ValueError as error:
            raise ValueError(f"masks: row {row}: {error}") from error
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def read_counts(text: str) -> list[int]:
    """Run lengths of COCO's compressed form.

    Every number is written in groups of five bits, lowest first, one character each: 48 plus the
    bits, plus 32 where more follow; the highest bit of the last group is the sign. From the fourth
    number on, what is written is the difference to the number two before.

    Raises:
        ValueError: a character that is none of those, or a number that does not end.

    >>> read_counts("52203")
    [5, 2, 2, 2, 5]
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"no compressed run-lengths: character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("compressed run-lengths are cut off")
    return counts


def _box_of_runs(mask: RunLengths, image_size: Sequence[int]) -> Box:
    width, height = image_size
    if mask.size != (height, width):
        raise ValueError(
            f"the mask is {mask.size[1]} x {mask.size[0]} pixels, the picture {width} x {height}"
        )
    counts = read_counts(mask.counts) if isinstance(mask.counts, str) else mask.counts
    if sum(counts) != width * height or min(counts, default=0) < 0:
        raise ValueError(
            f"run-lengths must add up to {width} x {height} = {width * height} pixels, "
            f"got {sum(counts)}"
        )
    ends = np.cumsum(counts, dtype=np.int64)[1::2]  # runs of pixels in and out of the mask take
    starts = ends - np.asarray(counts, dtype=np.int64)[1::2]  # turns, down each column
    starts, last = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        raise ValueError("no pixel is set")
    whole = starts // height != last // height  # a run over the end of a column has its last row
    top = 0 if whole.any() else (starts % height).min()
    bottom = height - 1 if whole.any() else (last % height).max()
    return (
        float(starts[0] // height),
        float(top),
        float(last[-1] // height) + 1,
        float(bottom) + 1,
    )
