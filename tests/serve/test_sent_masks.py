"""Run-lengths of strangers: the boxes of pycocotools, without its trust."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pydantic", reason="needs the extra `serve`")

from pycocotools import mask as coco_mask

from lavis_dynrefer.geometry.masks import box_from_rle
from lavis_dynrefer.serve.bodies import RunLengths
from lavis_dynrefer.serve.masks import boxes_of_sent_masks, read_counts


def compressed(pixels):
    return coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"].decode()


def test_a_mask_counted_by_hand():
    # 4 rows, 5 columns: rows 1 and 2 of columns 1 and 2
    mask = RunLengths(size=(4, 5), counts=[5, 2, 2, 2, 9])
    assert boxes_of_sent_masks([mask], (5, 4)).tolist() == [[1, 1, 3, 3]]


def test_a_run_over_the_end_of_a_column_touches_top_and_bottom():
    mask = RunLengths(size=(4, 5), counts=[7, 2, 11])  # the last of column 1, the first of 2
    assert boxes_of_sent_masks([mask], (5, 4)).tolist() == [[1, 0, 3, 4]]


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.999])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (23, 31)])
def test_boxes_are_those_of_decoded_pixels(shape, share):
    generator = np.random.default_rng(0)
    pixels = generator.random(shape) < share
    pixels[generator.integers(shape[0]), generator.integers(shape[1])] = True
    counts = compressed(pixels)
    mask = RunLengths(size=shape, counts=counts)
    (box,) = boxes_of_sent_masks([mask], shape[::-1]).tolist()
    assert tuple(box) == box_from_rle({"size": shape, "counts": counts})


@pytest.mark.parametrize("counts", [[5, 2, 2, 2, 9], [0, 20], [3, 1, 0, 1, 15], [2, 18]])
def test_compressed_counts_are_read_as_written(counts):
    packed = coco_mask.frPyObjects({"size": [4, 5], "counts": counts}, 4, 5)["counts"]
    assert read_counts(packed.decode()) == counts


def test_long_runs_are_read_as_written():
    pixels = np.zeros((900, 1100), dtype=bool)
    pixels[3:800, 7:1000] = True
    assert sum(read_counts(compressed(pixels))) == pixels.size


@pytest.mark.parametrize(
    ("size", "counts", "message"),
    [
        ((4, 5), [5, 2], "must add up to 5 x 4 = 20 pixels, got 7"),
        ((4, 5), [20], "no pixel is set"),
        ((4, 5), [5, 0, 15], "no pixel is set"),
        ((4, 5), [], "must add up"),
        ((5, 4), [20], "the mask is 4 x 5 pixels, the picture 5 x 4"),
        ((4, 5), "5\n", "character '\\\\n'"),
        ((4, 5), "5é", "character 'é'"),
        ((4, 5), "5P", "cut off"),
        ((4, 5), "oooooooooooooooooooo1", "no compressed run-lengths"),
        ((4, 5), "T1O", "must add up"),  # 36, -1
        ((4, 5), [2**70, 1], "must add up"),
    ],
)
def test_damaged_run_lengths_are_named(size, counts, message):
    # such as these crashed the process in pycocotools 2.0.11
    with pytest.raises(ValueError, match=rf"masks: row 0: .*{message}"):
        boxes_of_sent_masks([RunLengths(size=size, counts=counts)], (5, 4))


def test_polygons_are_masks_too():
    polygon = [[1, 2, 4, 2, 4, 3]]
    assert boxes_of_sent_masks([polygon], (5, 4)).tolist() == [[1, 2, 4, 3]]
