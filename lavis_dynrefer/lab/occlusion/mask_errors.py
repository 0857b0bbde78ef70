"""Masks as a segmentation model gives them: a little too large, or too small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lavis_dynrefer.errors import InputError, choice_problem

# Name -> pixels by which a mask grows. "none": the box alone.
MASK_KINDS: Mapping[str, int | None] = {"none": None, "given": 0, "dilated": 2, "eroded": -2}


def mask_of_kind(mask: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The mask of a region as an answer is asked with it; None for the box alone.

    Args:
        mask: run lengths, see `RegionRecord`.
        kind: one of `MASK_KINDS`.

    Raises:
        InputError: no such kind.
    """
    problem = choice_problem("masks", kind, MASK_KINDS)
    if problem:
        raise InputError(problem)
    growth = MASK_KINDS[kind]
    if growth is None:
        return None
    return grown_mask(mask, growth) if growth else mask


def grown_mask(mask: Mapping[str, Any], pixels: int) -> Mapping[str, Any]:
    """A mask with a rim of so many pixels more, or less if negative, corners included.

    A mask of which nothing would be left stays as it is.
    """
    from lavis_dynrefer.images.mask_encoding import decode_mask, encode_mask

    grows = pixels >= 0
    found = decode_mask(mask) == grows  # to shrink, the outside grows
    for axis in (0, 1):
        rim = [(0, 0), (0, 0)]
        rim[axis] = (abs(pixels),) * 2
        padded = np.pad(found, rim)  # beyond the edges of the image nothing grows
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * abs(pixels) + 1, axis)
        found = windows.any(axis=-1)
    found = found == grows
    return encode_mask(found) if found.any() else mask
