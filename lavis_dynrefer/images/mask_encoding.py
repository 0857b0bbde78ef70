"""Masks as COCO's compressed run-length encoding, and back to pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavis_dynrefer.images.masks import run_lengths

_ZERO, _BITS, _SIGN, _MORE = ord("0"), 0x1F, 0x10, 0x20  # see `masks`


def encode_mask(pixels: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask as {"size": [height, width], "counts": compressed text}.

    Args:
        pixels: (height, width) bool.

    >>> square = np.zeros((4, 4), dtype=bool)
    >>> square[1:3, 1:3] = True
    >>> encode_mask(square)
    {'size': [4, 4], 'counts': '52203'}
    """
    height, width = pixels.shape
    columns = np.flatnonzero(pixels.any(axis=0))
    if not len(columns):
        return {"size": [height, width], "counts": compress_counts([height * width])}
    first = int(columns[0])
    down = pixels[:, first : columns[-1] + 1].T.ravel()
    edges = np.flatnonzero(np.diff(down, prepend=False, append=False)) + first * height
    runs = np.diff(edges, prepend=0).tolist()
    rest = height * width - int(edges[-1])
    counts = compress_counts([*runs, rest] if rest else runs)
    return {"size": [height, width], "counts": counts}


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
