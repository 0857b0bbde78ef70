"""Masks as run lengths, COCO's compressed ones too, and back to pixels."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavis_dynrefer.errors import InputError

# Compressed counts, one character each.
_ZERO, _BITS, _SIGN, _MORE = ord("0"), 0x1F, 0x10, 0x20
_MAX_RUN_LENGTH = 7  # characters of one number; 32 bits are enough for any image


def encode_mask(pixels: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask as {"size": [height, width], "counts": compressed text}.

    Args:
        pixels: (height, width) bool.

    >>> square = np.zeros((4, 4), dtype=bool)
    >>> square[1:3, 1:3] = True
    >>> encode_mask(square)
    {'size': [4, 4], 'counts': '52203'}
    """
    counts = compress_counts(pixel_runs(pixels).tolist())
    return {"size": list(pixels.shape), "counts": counts}


def pixel_runs(pixels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of runs down the columns of (height, width) bool; the first is outside the mask.

    >>> pixel_runs(np.array([[False, True, True], [False, True, False]])).tolist()
    [2, 3, 1]
    """
    height, width = pixels.shape
    columns = np.flatnonzero(pixels.any(axis=0))
    if not len(columns):
        return np.array([height * width], dtype=np.int64)
    first = int(columns[0])
    down = pixels[:, first : columns[-1] + 1].T.ravel()
    edges = np.flatnonzero(np.diff(down, prepend=False, append=False)) + first * height
    if edges[-1] < height * width:
        edges = np.append(edges, height * width)
    runs: NDArray[np.int64] = np.diff(edges, prepend=0)
    return runs


def decode_mask(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The pixels (height, width) of a run-length encoded mask.

    Raises:
        InputError: damaged counts.

    >>> decode_mask({"size": [2, 3], "counts": [1, 2, 3]}).astype(int).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    height, width = rle["size"]
    runs = run_lengths(rle["counts"], height * width)
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def run_lengths(counts: str | bytes | Sequence[int], pixels: int) -> NDArray[np.int64]:
    """Run lengths of a mask, checked.

    pycocotools trusts compressed counts: damaged ones make it read beyond their end, and some that
    add up to more than their image overwrite its memory. So it is not used here.

    Args:
        counts: compressed (str or bytes), or a list; the first run is outside the mask.
        pixels: height times width of the mask.

    Returns:
        (runs,) that add up to `pixels`.

    Raises:
        InputError: damaged or empty counts, a negative run, or another sum.

    >>> run_lengths("52203", 16).tolist()
    [5, 2, 2, 2, 5]
    """
    if not isinstance(counts, (str, bytes, list, tuple)):
        raise InputError(f"RLE counts: expected a text or a list, got {type(counts).__name__}")
    if len(counts) > _MAX_RUN_LENGTH * (pixels + 1):
        raise InputError(f"RLE counts: {len(counts):,} are too many for {pixels:,} pixels")
    if isinstance(counts, (str, bytes)):
        runs = _decompressed(counts)
    else:
        runs = whole_numbers(counts, "RLE counts")
    if min(runs, default=0) < 0:
        raise InputError(f"RLE counts: expected no negative run, got {min(runs)}")
    if not runs or sum(runs) != pixels:
        raise InputError(
            f"RLE counts must add up to the {pixels:,} pixels of the mask, got {sum(runs):,} in "
            f"{len(runs):,} runs; drop this region"
        )
    return np.asarray(runs, dtype=np.int64)


def compress_counts(runs: Sequence[int]) -> str:
    """Run lengths as COCO's text.

    >>> compress_counts([5, 2, 2, 2, 5])
    '52203'
    """
    text = bytearray()
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        while True:
            bits = value & _BITS
            value >>= 5
            if value == (-1 if bits & _SIGN else 0):
                text.append(_ZERO + bits)
                break
            text.append(_ZERO + (bits | _MORE))
    return text.decode("ascii")


def _decompressed(counts: str | bytes) -> list[int]:
    """Read COCO's compressed counts.

    A number is written in groups of five bits, lowest first, one character each: 48 plus the bits,
    plus 32 if more follow; the highest bit of the last group is the sign. From the fourth number
    on, the difference to the number two before is written instead.
    """
    runs: list[int] = []
    value = shift = 0
    for code in counts if isinstance(counts, bytes) else map(ord, counts):
        bits = code - _ZERO
        if not 0 <= bits <= _MORE | _BITS or shift >= 5 * _MAX_RUN_LENGTH:
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


def whole_numbers(values: Sequence[Any], what: str) -> list[int]:
    """Integers of any type as int; `what` they are is for the InputError about others."""
    try:
        return [operator.index(value) for value in values]
    except TypeError as error:
        raise InputError(f"{what}: expected whole numbers: {error}") from error
