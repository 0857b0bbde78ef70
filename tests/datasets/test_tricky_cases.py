"""Odd boxes and captions of Visual Genome: kept, or left out for which reason."""

from __future__ import annotations

import json
from functools import partial

import pytest
from vg_rows import HEIGHT, WIDTH, image, kept, region, touch_images, write_and_read

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def read(tmp_path):
    touch_images(tmp_path)
    return partial(write_and_read, tmp_path)


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
def test_a_box_without_a_pixel_is_rejected_and_stays_truth(read, box, reason):
    found = read([region(2, box=box)])

    assert found.rejection_counts() == {reason: 1}
    assert [item.region_id for item in found.truth()] == [1, 2]


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, None, True, "wide", [5], {}, 10**400])
@pytest.mark.parametrize("key", ["x", "y", "width", "height"])
def test_a_box_that_is_no_box_is_no_record(read, key, value):
    found = read([region(2, **{key: value})])

    assert found.rejection_counts() == {"unreadable_record": 1}
    assert "of image 1: ValueError" in found.rejected[0].detail


def test_an_image_one_pixel_wide_has_one_box(read):
    rows = [region(1, box=(0, 5, 1, 10)), region(2, box=(0, 5, 0, 10)), region(3, box=(9, 5, 3, 9))]

    found = read(entries=[{"id": 1, "regions": rows}], images=[image(1, width=1)])

    assert kept(found) == {1: (0, 5, 1, 15), 3: (0, 5, 1, 14)}
    assert found.rejection_counts() == {"empty_box": 1}
    assert found.noted == {"box_below_2_px": 2, "box_outside": 1}


@pytest.mark.parametrize(
    ("region_id", "fate"),
    [
        (5851305, "outside_image"),  # y = -904
        (5455943, "outside_image"),
        (5456063, "outside_image"),
        (5503839, None),  # y = -2
    ],
)
def test_real_boxes_above_their_images(shared, read, region_id, fate):
    path = shared / "fixtures/tricky/boxes_real.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["vg_regions_real"]
    (row,) = (row for row in rows if row["region_id"] == region_id)

    found = read([{**row, "image_id": 1}])

    assert found.rejection_counts() == ({fate: 1} if fate else {})
    assert found.noted == ({} if fate else {"box_partly_outside": 1})


# ---- captions -----------------------------------------------------------------------------------

TRICKY_CAPTIONS = {  # index in tricky/captions.json -> caption, or the reason it is left out for
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
    16: "wooden table",  # the blank between was a no-break space
    17: "e\u0301clair",  # an accent of its own
    18: "\ufeffdog",  # a byte order mark
    19: "x" * 300,
}
NON_ASCII = [4, 5, 9, 10, 11, 15, 17, 18]


@pytest.fixture(scope="module")
def tricky_captions(shared):
    path = shared / "fixtures/tricky/captions.json"
    return json.loads(path.read_text(encoding="utf-8"))["captions"]


def test_every_tricky_caption_has_its_fate(tricky_captions):
    assert list(TRICKY_CAPTIONS) == list(range(len(tricky_captions)))


@pytest.mark.parametrize("index", TRICKY_CAPTIONS)
def test_a_tricky_caption(tricky_captions, read, index):
    found = read([region(2, tricky_captions[index])])

    fates = [item.caption for item in found.regions[1:]] or list(found.rejection_counts())
    assert fates == [TRICKY_CAPTIONS[index]]
    assert found.noted == ({"non_ascii_caption": 1} if index in NON_ASCII else {})


@pytest.mark.parametrize("index", range(4))
def test_an_empty_caption_stays_truth(tricky_captions, read, index):
    found = read([region(2, tricky_captions[index])])

    assert [(item.region_id, item.caption) for item in found.truth()] == [(1, "a dog"), (2, "")]


@pytest.mark.parametrize("typo", ["the bckground", "a whitre shirt"])
def test_typing_errors_are_kept(read, typo):
    assert read([region(2, typo)]).regions[1].caption == typo


@pytest.mark.parametrize("phrase", [None, 5, ["a dog"], {}, True, "half a dog \ud83d"])
def test_a_caption_that_is_no_text_is_no_record(read, phrase):
    assert read([region(2, phrase)]).rejection_counts() == {"unreadable_record": 1}
