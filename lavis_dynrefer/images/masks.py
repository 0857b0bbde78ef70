"""Boxes of masks: COCO's polygons and run-length encodings (RLE), and arrays.

There are two rules. `exact` is the tight box in pixel-edge coordinates. `official` is what the
released DynRefer computes: RLE boxes are one pixel short on the right and at the bottom, and sides
of a polygon box of at most one pixel are stretched to the left or to the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.mask_encoding import run_lengths, whole_numbers
from lavis_dynrefer.images.opening import MAX_PIXELS
from lavis_dynrefer.images.tensors import as_arrays
from lavis_dynrefer.structures import Box

_RULES = ("exact", "official")


def boxes_of_masks(masks: Sequence[Any], image_size: Sequence[int]) -> Tensor:
    """The tight box around each mask.

    Args:
        masks: R masks, each COCO's RLE {"size": [height, width], "counts": ...}, a list of
            polygons [[x1, y1, x2, y2, ...], ...], or an array (height, width) whose non-zero
            pixels are the region.
        image_size: width and height of the image in pixels.

    Returns:
        (R, 4) float32 xyxy in pixels.

    Raises:
        InputError: a mask is empty, damaged, not as large as the image, or in another format.
    """
    boxes = []
    for row, mask in enumerate(masks):
        try:
            boxes.append(_box_of(mask, image_size))
        except (OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"masks: row {row}: {error}") from error
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def box_from_array(pixels: NDArray[Any]) -> Box:
    """Tight xyxy box around the non-zero pixels of an array (height, width).

    Raises:
        InputError: all pixels are zero.

    >>> box_from_array(np.eye(3, 5))
    (0.0, 0.0, 3.0, 3.0)
    """
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        raise InputError("the mask is empty")
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def box_from_polygons(polygons: Sequence[Sequence[float]], rule: str = "exact") -> Box:
    """Box around all parts of a polygon mask.

    Args:
        polygons: parts, each a flat list x1, y1, x2, y2, ... in pixels.
        rule: "exact", or "official" for sides of at least one pixel.

    Returns:
        xyxy in pixels; may have no area under the exact rule.

    Raises:
        InputError: no vertex, an odd number of coordinates, or an unknown rule.

    >>> box_from_polygons([[10, 20, 30, 20, 30, 45], [5, 22, 8, 22, 8, 30]])
    (5.0, 20.0, 30.0, 45.0)
    """
    _check_rule(rule)
    if not polygons or any(len(part) == 0 or len(part) % 2 for part in polygons):
        raise InputError(
            "a polygon mask needs parts with x and y for every vertex, got parts of "
            f"{[len(part) for part in polygons]} numbers; drop this region"
        )
    if not np.isfinite(np.concatenate([np.asarray(part, dtype=float) for part in polygons])).all():
        raise InputError("a polygon mask needs finite numbers; drop this region")
    x1, x2 = _extent([float(x) for part in polygons for x in part[0::2]], rule)
    y1, y2 = _extent([float(y) for part in polygons for y in part[1::2]], rule)
    return x1, y1, x2, y2


def box_from_pixel_polygons(polygons: Sequence[Sequence[float]]) -> Box:
    """`box_from_polygons` of what a user gives.

    Raises:
        InputError: also polygons in fractions, and pixels of 0 and 1 that are written as lists.
    """
    box = box_from_polygons(polygons)
    if min(box) >= 0 and max(box) <= 1:
        raise InputError(
            "expected polygons in pixels, got no number outside of 0 to 1; multiply fractions by "
            "the sides of the image, and give a mask's pixels as an array or as RLE"
        )
    return box


def box_from_rle(rle: Mapping[str, Any], rule: str = "exact") -> Box:
    """Box around the set pixels of a run-length encoded mask, without decoding them.

    Args:
        rle: {"size": [height, width], "counts": ...}, counts compressed (str or bytes) or a list.
        rule: "exact": right and bottom are the far edges of the last pixels; "official": they are
            the indices of the last pixels, so one less and possibly no area.

    Returns:
        xyxy in pixels.

    Raises:
        InputError: an empty mask, an invalid size, counts that are damaged or do not add up to
            the size, or an unknown rule.

    >>> box_from_rle({"size": [4, 5], "counts": [5, 2, 2, 2, 9]})  # rows 1-2 of columns 1-2
    (1.0, 1.0, 3.0, 3.0)
    """
    _check_rule(rule)
    height, width = _rle_size(rle)
    runs = run_lengths(rle["counts"], height * width)
    # Runs outside and inside the mask alternate, down each column.
    ends = runs.cumsum()[1::2]
    starts = ends - runs[1::2]
    starts, last = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        raise InputError(f"the mask of {height} x {width} is empty; drop this region")
    crosses = starts // height != last // height  # from the foot of a column to the next one
    top = 0 if crosses.any() else int((starts % height).min())
    bottom = height - 1 if crosses.any() else int((last % height).max())
    edge = 1.0 if rule == "exact" else 0.0
    left, right = int(starts[0] // height), int(last[-1] // height)
    return float(left), float(top), right + edge, bottom + edge


def check_mask(
    mask: Any, image_size: Sequence[int]
) -> Mapping[str, Any] | Sequence[Sequence[float]] | NDArray[Any]:
    """Tell which of the three forms a mask has, and check its size.

    Args:
        mask: as for `boxes_of_masks`.
        image_size: width and height of the image in pixels.

    Returns:
        An RLE, polygons, or an array (height, width).

    Raises:
        InputError: another form, not as large as the image, or an array of probabilities.
    """
    if isinstance(mask, Mapping):
        _check_size(_rle_size(mask), image_size)
        return mask
    mask = as_arrays(mask)
    if isinstance(mask, (list, tuple)):
        if not all(isinstance(part, (list, tuple, np.ndarray)) for part in mask):
            raise InputError("expected a list of polygons; one polygon is a list of one")
        kinds = {part.dtype.str[1:] for part in mask if isinstance(part, np.ndarray)}
        if not kinds & {"b1", "u1"}:  # bool and uint8 are the rows of an array
            return mask
    pixels = np.asarray(mask)
    if pixels.ndim == 3 and 1 in (pixels.shape[0], pixels.shape[2]):
        pixels = pixels.squeeze(0 if pixels.shape[0] == 1 else 2)
    if pixels.ndim != 2:
        raise InputError(
            "expected RLE, polygons or an array (height, width), got "
            f"{type(mask).__name__} of shape {pixels.shape}"
        )
    _check_size(pixels.shape, image_size)
    _check_values(pixels)
    return pixels


def _box_of(mask: Any, image_size: Sequence[int]) -> Box:
    found = check_mask(mask, image_size)
    if isinstance(found, Mapping):
        return box_from_rle(found)
    if isinstance(found, np.ndarray):
        return box_from_array(found)
    return box_from_pixel_polygons(found)


def _check_values(pixels: NDArray[Any]) -> None:
    """Refuse probabilities and logits: most of their pixels are not zero."""
    if pixels.dtype.kind not in "fc":
        return
    highest = pixels.max(initial=0)
    if not ((pixels == 0) | (pixels == highest)).all():
        raise InputError(
            f"expected one value besides 0 in an array of {pixels.dtype}, got values from "
            f"{pixels.min():.3g} to {highest:.3g}; compare probabilities with 0.5, logits with 0"
        )


def _check_size(size: Sequence[int], image_size: Sequence[int]) -> None:
    width, height = image_size
    if [*size] != [height, width]:
        raise InputError(f"the mask is {size[1]} x {size[0]} pixels, the image {width} x {height}")


def _rle_size(rle: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width."""
    if not {"size", "counts"} <= set(rle):
        raise InputError(f"RLE mask: expected size and counts, got {list(rle)!r:.60}")
    size = rle["size"]
    sides = whole_numbers(size, "RLE size") if isinstance(size, (list, tuple)) else []
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"RLE size: expected [height, width] in pixels, got {size!r:.60}")
    height, width = sides
    if height * width > MAX_PIXELS:
        raise InputError(
            f"RLE size: expected at most {MAX_PIXELS:,} pixels, got {width} x {height}"
        )
    return height, width


def _extent(values: Sequence[float], rule: str) -> tuple[float, float]:
    low, high = min(values), max(values)
    if rule == "official" and low >= high - 1:
        return (high - 1, high) if high > 0 else (high, high + 1)
    return low, high


def _check_rule(rule: str) -> None:
    if rule not in _RULES:
        raise InputError(f"box rule must be one of {_RULES}, got {rule!r}")
