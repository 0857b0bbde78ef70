"""The box around a mask, which COCO stores as polygons or as a run-length encoding (RLE).

Two rules are offered. `exact` is the tight box in pixel-edge coordinates. `official` is what the
released DynRefer computes: RLE boxes are one pixel short on the right and at the bottom, and sides
of a polygon box of at most one pixel are stretched to the left or to the top.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.box_checks import MAX_PIXELS
from lavis_dynrefer.structures import Box

RULES = ("exact", "official")

# Of compressed counts, one character.
_ZERO, _BITS, _SIGN, _MORE = ord("0"), 0x1F, 0x10, 0x20
_LONGEST_RUN = 7  # characters of one number; those of an image have 32 bits


def box_from_polygons(polygons: Sequence[Sequence[float]], rule: str = "exact") -> Box:
    """Box around all parts of a polygon mask.

    Args:
        polygons: parts, each a flat list x1, y1, x2, y2, ... in pixels.
        rule: "exact", or "official" for sides of at least one pixel.

    Returns:
        xyxy in pixels; may have no area under the exact rule.

    Raises:
        ValueError: no vertex, an odd number of coordinates, or an unknown rule.

    >>> box_from_polygons([[10, 20, 30, 20, 30, 45], [5, 22, 8, 22, 8, 30]])
    (5.0, 20.0, 30.0, 45.0)
    """
    _check_rule(rule)
    if not polygons or any(len(part) == 0 or len(part) % 2 for part in polygons):
        raise InputError(
            "a polygon mask needs parts with x and y for every vertex, got parts of "
            f"{[len(part) for part in polygons]} numbers; reject this region"
        )
    x1, x2 = _extent([float(x) for part in polygons for x in part[0::2]], rule)
    y1, y2 = _extent([float(y) for part in polygons for y in part[1::2]], rule)
    return x1, y1, x2, y2


def box_from_rle(rle: Mapping[str, Any], rule: str = "exact") -> Box:
    """Box around the set pixels of a run-length encoded mask, without decoding them.

    Args:
        rle: {"size": [height, width], "counts": ...}, counts compressed (str or bytes) or a list.
        rule: "exact": right and bottom are the far edges of the last pixels; "official": they are
            the indices of the last pixels, so one less and possibly no area.

    Returns:
        xyxy in pixels.

    Raises:
        ValueError: no pixel is set, the size is none that an image has, counts are damaged or do
            not add up to it, or an unknown rule.

    >>> box_from_rle({"size": [4, 5], "counts": [5, 2, 2, 2, 9]})  # rows 1-2 of columns 1-2
    (1.0, 1.0, 3.0, 3.0)
    """
    _check_rule(rule)
    if not {"size", "counts"} <= set(rle):
        raise InputError(f"RLE mask: expected size and counts, got {list(rle)!r:.60}")
    height, width = _mask_size(rle["size"])
    runs = run_lengths(rle["counts"], height * width)
    # Runs outside and inside the mask take turns, down each column.
    ends = runs.cumsum()[1::2]
    starts = ends - runs[1::2]
    starts, last = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        raise InputError(
            f"a mask of {height} x {width} has no pixel set; no box fits it, reject this region"
        )
    crosses = starts // height != last // height  # from the foot of a column to the head of one
    top = 0 if crosses.any() else int((starts % height).min())
    bottom = height - 1 if crosses.any() else int((last % height).max())
    edge = 1.0 if rule == "exact" else 0.0
    left, right = int(starts[0] // height), int(last[-1] // height)
    return float(left), float(top), right + edge, bottom + edge


def run_lengths(counts: str | bytes | Sequence[int], pixels: int) -> NDArray[np.int64]:
    """Run lengths of a mask, checked.

    pycocotools believes compressed counts: damaged ones make it read beyond their end, and some
    that add up to more than their image overwrite its memory. So none is handed to it.

    Args:
        counts: compressed (str or bytes), or a list; the first run is outside the mask.
        pixels: height times width of the mask.

    Returns:
        (runs,) that add up to the pixels.

    Raises:
        ValueError: damaged or empty counts, a negative run, or another sum.

    >>> run_lengths("52203", 16).tolist()
    [5, 2, 2, 2, 5]
    """
    if not isinstance(counts, (str, bytes, list, tuple)):
        raise InputError(f"RLE counts: expected a text or a list, got {type(counts).__name__}")
    if len(counts) > _LONGEST_RUN * (pixels + 1):
        raise InputError(f"RLE counts: {len(counts):,} are too many for {pixels:,} pixels")
    if isinstance(counts, (str, bytes)):
        runs = _decompressed(counts)
    else:
        runs = _whole(counts, "RLE counts")
    if min(runs, default=0) < 0:
        raise InputError(f"RLE counts: expected no negative run, got {min(runs)}")
    if not runs or sum(runs) != pixels:
        raise InputError(
            f"RLE counts must add up to the {pixels:,} pixels of the mask, got {sum(runs):,} in "
            f"{len(runs):,} runs; reject this region"
        )
    return np.asarray(runs, dtype=np.int64)


def _decompressed(counts: str | bytes) -> list[int]:
    """COCO's compressed form, read.

    A number is written in groups of five bits, lowest first, one character each: 48 plus the bits,
    plus 32 where more follow; the highest bit of the last group is the sign. From the fourth number
    on, what is written is the difference to the number two before.
    """
    runs: list[int] = []
    value = shift = 0
    for code in counts if isinstance(counts, bytes) else map(ord, counts):
        bits = code - _ZERO
        if not 0 <= bits <= _MORE | _BITS or shift >= 5 * _LONGEST_RUN:
            raise InputError(f"RLE counts are damaged at the character {chr(code)!r}")
        value |= (bits & _BITS) << shift
        shift += 5
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise InputError(f"RLE counts end within a number: {counts[-20:]!r}")
    return runs


def _mask_size(size: Any) -> tuple[int, int]:
    """Height and width."""
    sides = _whole(size, "RLE size") if isinstance(size, (list, tuple)) else []
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"RLE size: expected [height, width] in pixels, got {size!r:.60}")
    height, width = sides
    if height * width > MAX_PIXELS:
        raise InputError(
            f"RLE size: expected at most {MAX_PIXELS:,} pixels, got {width} x {height}"
        )
    return height, width


def _whole(values: Sequence[Any], what: str) -> list[int]:
    try:
        return [operator.index(value) for value in values]
    except TypeError as error:
        raise InputError(f"{what}: expected whole numbers: {error}") from error


def _extent(values: Sequence[float], rule: str) -> tuple[float, float]:
    low, high = min(values), max(values)
    if rule == "official" and low >= high - 1:
        return (high - 1, high) if high > 0 else (high, high + 1)
    return low, high


def _check_rule(rule: str) -> None:
    if rule not in RULES:
        raise InputError(f"box rule must be one of {RULES}, got {rule!r}")
