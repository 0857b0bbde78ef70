from __future__ import annotations

import numpy as np
import pytest

from lavis_dynrefer.images.mask_encoding import (
    compress_counts,
    decode_mask,
    encode_mask,
    run_lengths,
)


def test_a_mask_by_hand():
    pixels = np.zeros((3, 4), dtype=bool)
    pixels[1:, 1] = pixels[:2, 2] = True
    # columns of 3: 4 outside, then 4 in a row over the end of a column, then 4 outside
    assert encode_mask(pixels) == {"size": [3, 4], "counts": compress_counts([4, 4, 4])}
    assert (decode_mask({"size": [3, 4], "counts": [4, 4, 4]}) == pixels).all()


@pytest.mark.parametrize("value", [False, True])
def test_masks_of_nothing_and_of_everything(value):
    pixels = np.full((3, 4), value)
    rle = encode_mask(pixels)
    assert run_lengths(rle["counts"], 12).tolist() == ([0, 12] if value else [12])
    assert (decode_mask(rle) == pixels).all()


@pytest.mark.parametrize("seed", range(5))
def test_pixels_come_back(seed):
    pixels = np.random.default_rng(seed).random((37, 53)) < 0.2 + 0.15 * seed
    assert (decode_mask(encode_mask(pixels)) == pixels).all()


def test_counts_are_those_of_coco():
    masks = pytest.importorskip("pycocotools.mask")
    pixels = np.zeros((360, 480), dtype=bool)
    pixels[40:300, 100:420] = np.random.default_rng(0).random((260, 320)) < 0.5
    theirs = masks.encode(np.asfortranarray(pixels.astype(np.uint8)))
    assert encode_mask(pixels)["counts"] == theirs["counts"].decode("ascii")
