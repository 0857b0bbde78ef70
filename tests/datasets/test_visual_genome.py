"""Captions, boxes and splits of Visual Genome as the protocol has them."""

from __future__ import annotations

import json
from functools import partial

import pytest
from vg_rows import HEIGHT, WIDTH, image, kept, one_each, region, touch_images, write_and_read

from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.datasets.sources.visual_genome import (
    clean_caption,
    read_visual_genome,
)


@pytest.fixture
def read(tmp_path):
    touch_images(tmp_path)
    return partial(write_and_read, tmp_path)


# ---- captions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "caption"),
    [
        ("the clock is green in colour", "the clock is green in colour"),
        (" A cloud in the sky.\n", "a cloud in the sky"),
        ("two\tmen", "two men"),
        ("!!!", ""),
    ],
)
def test_captions_are_cleaned_as_in_dense_captioning(phrase, caption):
    assert clean_caption(phrase) == caption


def test_cleaned_captions_need_no_text_processor():
    from lavis.processors.blip_processors import BlipCaptionProcessor

    phrases = ['The "STOP" sign.', "a (red)  dog~", "caf\u00e9\u2026 #1", "\u0130stanbul", " * "]
    captions = [clean_caption(phrase) for phrase in phrases]

    assert [BlipCaptionProcessor()(caption) for caption in captions] == captions


TRICKY_CAPTIONS = {  # index in tricky/captions.json -> caption, or the reason it is left out
    0: "empty_caption",
    1: "empty_caption",
    2: "empty_caption",
    3: "empty_caption",
    4: "half eaten cafe cr\u00eape",
    5: "90 degree angle \u201cstop\u201d sign",
    6: "a mans tshirt",
    7: "5cent u e c e",
    8: "walkdont walk",
    9: "\u65e5\u672c\u8a9e",
    10: "\U0001f436 dog",
    11: "na\u00efve co\u00f6peration",
    12: "long_caption",
    13: "the word stop is on a sign",
    14: "two men",
    15: "\ufb01re hydrant",  # a ligature
    16: "wooden table",  # the space between was a no-break space
    17: "e\u0301clair",  # a combining accent
    18: "\ufeffdog",  # a byte order mark
    19: "x" * 300,
}


def test_tricky_captions_are_cleaned_or_counted(shared, read):
    path = shared / "fixtures/tricky/captions.json"
    captions = json.loads(path.read_text(encoding="utf-8"))["captions"]
    rows = {index: region(2, caption) for index, caption in enumerate(captions)}

    found = {index: read([row]) for index, row in rows.items()}

    results = {
        index: (
            [item.caption for item in part.regions[1:]] or list(part.rejection_counts()),
            part.noted,
        )
        for index, part in found.items()
    }
    assert results == {
        index: ([result], {} if result.isascii() else {"non_ascii_caption": 1})
        for index, result in TRICKY_CAPTIONS.items()
    }


def test_evaluation_keeps_empty_captions_as_truth_but_no_long_caption(read):
    found = read([region(2, "..."), region(3, "a " * 16), region(4, "a " * 15)])

    assert found.rejection_counts() == {"empty_caption": 1, "long_caption": 1}
    assert [(item.region_id, item.caption) for item in found.truth()] == [
        (1, "a dog"),
        (4, "a " * 14 + "a"),
        (2, ""),
    ]


# ---- boxes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "expected", "noted"),
    [
        ((0, 0, WIDTH, HEIGHT), (1, 1, 800, 600), {}),  # the whole image
        ((700, 10, 100, 50), (700, 10, 800, 60), {}),  # ends at the edge
        ((480, -2, 10, 35), (480, 1, 490, 33), {"box_partly_outside": 1}),
        ((795, 10, 50, 50), (795, 10, 800, 60), {"box_partly_outside": 1}),
        ((799, 10, 1, 50), (799, 10, 800, 60), {"box_below_2_px": 1}),
        ((10, 10, 0.5, 50), (10, 10, 10.5, 60), {"box_below_2_px": 1}),
        ((-3, 10, 5, 50), (1, 10, 2, 60), {"box_partly_outside": 1, "box_below_2_px": 1}),
        # Right of the image or below it, dense captioning keeps a strip of one pixel.
        ((800, 10, 20, 20), (799, 10, 800, 30), {"box_outside": 1, "box_below_2_px": 1}),
        ((10, 700, 20, 20), (10, 599, 30, 600), {"box_outside": 1, "box_below_2_px": 1}),
        (("10", "10", "20", "20"), (10, 10, 30, 30), {}),
    ],
)
def test_a_box_is_kept(read, box, expected, noted):
    found = read([region(2, box=box)])

    assert kept(found)[2] == expected
    assert found.noted == noted
    assert found.rejected == []


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((296, 388, 10, 0), "empty_box"),
        ((296, 388, -5, 10), "empty_box"),
        ((0, 10, 1, 10), "empty_box"),  # nothing is left right of x = 1
        ((179, -904, 55, 25), "outside_image"),
        ((-50, 10, 50, 20), "outside_image"),
    ],
)
def test_a_box_without_a_pixel_is_rejected_and_stays_truth_except_in_training(read, box, reason):
    rows, entries = [region(2, box=box)], [{"id": 1, "regions": [region(1), region(2, box=box)]}]

    found = read(rows)
    trained = read(entries=entries, splits={"train": [1], "val": []}, only=["train"])

    assert found.rejection_counts() == trained.rejection_counts() == {reason: 1}
    assert [item.region_id for item in found.truth()] == [1, 2]
    assert trained.truth() == list(trained.regions)


def test_an_image_one_pixel_wide_has_one_box(read):
    rows = [region(1, box=(0, 5, 1, 10)), region(2, box=(0, 5, 0, 10)), region(3, box=(9, 5, 3, 9))]

    found = read(entries=[{"id": 1, "regions": rows}], images=[image(1, width=1)])

    assert kept(found) == {1: (0, 5, 1, 15), 3: (0, 5, 1, 14)}
    assert found.rejection_counts() == {"empty_box": 1}
    assert found.noted == {"box_below_2_px": 2, "box_outside": 1}


@pytest.mark.parametrize(
    ("region_id", "reason"),
    [
        (5851305, "outside_image"),  # y = -904
        (5455943, "outside_image"),
        (5456063, "outside_image"),
        (5503839, None),  # y = -2
    ],
)
def test_real_boxes_above_their_images(shared, read, region_id, reason):
    path = shared / "fixtures/tricky/boxes_real.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["vg_regions_real"]
    (row,) = (row for row in rows if row["region_id"] == region_id)

    found = read([{**row, "image_id": 1}])

    assert found.rejection_counts() == ({reason: 1} if reason else {})
    assert found.noted == ({} if reason else {"box_partly_outside": 1})


# ---- splits and versions ------------------------------------------------------------------------

EACH = {"train": [1], "val": [2], "test": [3]}


def test_each_image_goes_to_its_split(read):
    found = read(entries=one_each(2, 3, 1), splits=EACH, only=("train", "val", "test"))

    assert {split: list(part.images) for split, part in found.items()} == EACH
    assert found["val"].name == "vg1.2-densecap-gt"
    assert found["val"].images[2].path.endswith("images/VG_100K_2/2.jpg")


def test_an_image_in_two_splits_is_tested_on_only(read):
    splits = {"train": [1, 3], "val": [2], "test": [3]}

    found = read(entries=one_each(1, 2, 3), splits=splits, only=("train", "val", "test"))

    assert {split: list(part.images) for split, part in found.items()} == EACH
    assert found["train"].rejection_counts() == {"in_two_splits": 1}
    assert found["test"].rejected == []


def test_a_split_without_regions_is_an_error(read):
    with pytest.raises(DatasetError, match=r"split 'test': no usable region.*no_regions"):
        read(splits={"test": [3]}, only=["test"])


@pytest.mark.parametrize("coco_id", [None, float("nan"), "", "null", True])
def test_vgcoco_takes_images_with_a_coco_id(read, coco_id):
    images = [image(1, coco_id=61512), image(2, coco_id=coco_id)]

    found = read(entries=one_each(1, 2), images=images, splits={"val": [1, 2]}, version="vgcoco")

    assert list(found.images) == [1]
    assert found.name == "vgcoco-densecap-gt"
    assert found.rejected == []


def test_vgcoco_needs_image_data_with_coco_ids(read):
    row = image(1)
    del row["coco_id"]

    with pytest.raises(DatasetError, match=r"image_data\.json: no image has a 'coco_id'.*Set `im"):
        read(images=[row], version="vgcoco")


def test_vgcoco_counts_regions_of_images_without_image_data(read):
    splits = {"val": [1, 2]}

    found = read(
        entries=one_each(1, 2), images=[image(1, coco_id=7)], splits=splits, version="vgcoco"
    )

    assert found.rejection_counts() == {"no_image_data": 1}


def test_the_real_split_file_is_read(shared, tmp_path, read):
    read()
    files = [tmp_path / f"{name}.json" for name in ("region_descriptions", "image_data")]
    splits = shared / "fixtures/densecap/densecap_splits.json"

    with pytest.raises(DatasetError, match="'no_regions': 5000"):
        read_visual_genome(*files, splits, tmp_path, splits=["test"])
