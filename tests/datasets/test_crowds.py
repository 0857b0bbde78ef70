from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lavis_dynrefer.datasets.sources.crowds import crowd_box, is_crowd
from lavis_dynrefer.structures import ImageRecord

IMAGE = ImageRecord(1, "1.jpg", width=5, height=4)
RUNS = [5, 2, 2, 2, 9]  # columns first: rows 1-2 of columns 1-2 are set


def crowd(counts, size=(4, 5)):
    return {"iscrowd": 1, "segmentation": {"size": list(size), "counts": counts}}


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({}, False),
        ({"iscrowd": None}, False),
        ({"iscrowd": 0}, False),
        ({"iscrowd": "0"}, False),
        ({"iscrowd": False}, False),
        ({"iscrowd": 1}, True),
        ({"iscrowd": "1"}, True),
        ({"iscrowd": True}, True),
    ],
)
def test_crowds_are_told_from_objects(row, answer):
    assert is_crowd(row) is answer


@pytest.mark.parametrize("value", [2, -1, "yes", [1], {}, 0.5])
def test_neither_crowd_nor_object_is_named(value):
    with pytest.raises(ValueError, match=r"expected (0 or 1|a whole number)"):
        is_crowd({"iscrowd": value})


def test_the_box_ends_at_the_index_of_the_last_pixel():
    assert crowd_box(crowd(RUNS), IMAGE) == (1, 1, 2, 2)


def test_compressed_counts_are_read_like_uncompressed_ones():
    pixels = np.zeros((4, 5), np.uint8, order="F")
    pixels[1:3, 1:3] = 1
    counts = coco_mask.encode(pixels)["counts"].decode()

    assert crowd_box(crowd(counts), IMAGE) == (1, 1, 2, 2)


@pytest.mark.parametrize("seed", range(5))
def test_compressed_counts_of_any_mask_are_read(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 80, 2).tolist()
    pixels = np.asfortranarray(rng.random((height, width)) < 0.01 + 0.2 * seed, dtype=np.uint8)
    pixels[0, 0] = 1  # never empty
    counts = coco_mask.encode(pixels)["counts"].decode()
    columns, rows = pixels.any(axis=0).nonzero()[0], pixels.any(axis=1).nonzero()[0]

    box = crowd_box(crowd(counts, (height, width)), ImageRecord(1, "", width, height))

    assert box == (columns[0], rows[0], columns[-1], rows[-1])


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 5]},
        {"counts": RUNS},
        {"size": [5, 4], "counts": RUNS},  # width and height swapped
        {"size": [10**9, 10**9], "counts": "05"},  # pycocotools itself dies of it
        {"size": [4, 5, 1], "counts": RUNS},
        {"size": 20, "counts": RUNS},
        {"size": [4, 5], "counts": []},
        {"size": [4, 5], "counts": [20]},  # no pixel
        {"size": [4, 5], "counts": [5, 2]},  # too short
        {"size": [4, 5], "counts": [5, 200]},
        {"size": [4, 5], "counts": [-5, 25]},
        {"size": [4, 5], "counts": [2**32 + 5, 15 - 2**32]},
        {"size": [4, 5], "counts": [5.5, 14.5]},
        {"size": [4, 5], "counts": None},
        {"size": [4, 5], "counts": 20},
        {"size": [4, 5], "counts": ""},
        {"size": [4, 5], "counts": "0"},  # too short
        {"size": [4, 5], "counts": "no mask"},
        {"size": [4, 5], "counts": "5o"},  # ends within a number
        [[1, 1, 3, 1, 3, 3]],
        None,
    ],
)
def test_a_mask_without_sense_is_an_error_before_it_is_decoded(segmentation):
    with pytest.raises((KeyError, TypeError, ValueError)):
        crowd_box({"iscrowd": 1, "segmentation": segmentation}, IMAGE)


def test_the_boxes_of_real_crowds_are_those_of_the_file(shared):
    path = shared / "fixtures/tricky/boxes_real.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["coco_crowd_real"]
    sizes = [row["segmentation"]["size"] for row in rows]

    found = [
        crowd_box(row, ImageRecord(row["image_id"], "", width, height))
        for row, (height, width) in zip(rows, sizes)
    ]

    assert len(rows) == 5
    assert found == [(x, y, x + w, y + h) for x, y, w, h in (row["bbox"] for row in rows)]
