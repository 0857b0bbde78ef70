from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.datasets.sources.region_collector import RegionCollector, box_problem
from lavis_dynrefer.structures import ImageRecord, RegionRecord

IMAGE = ImageRecord(7, "/images/7.jpg", width=100, height=80)


def region(region_id, box=(10, 10, 30, 30), caption="a dog"):
    return RegionRecord(region_id, 7, box, caption)


def collect(*regions, split="val", **options):
    collector = RegionCollector("demo", split)
    for item in regions:
        collector.add(item, IMAGE, **options)
    return collector.finish()


OUTSIDE = region(2, box=(200, 0, 210, 10))


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((0, 0, 100, 80), None),
        ((99, 79, 100, 80), None),
        ((-5, -5, 1, 1), None),
        ((90, 70, 300, 300), None),
        ((10, 10, 10.5, 10.5), None),
        ((10, 10, 10, 30), "empty_box"),
        ((30, 10, 10, 30), "empty_box"),
        ((-30, 10, 0, 30), "outside_image"),
        ((10, 80, 30, 90), "outside_image"),
        ((float("nan"), 0, 1, 1), "invalid_box"),
        ((0, 0, float("inf"), 1), "invalid_box"),
    ],
)
def test_boxes_without_a_pixel_in_the_image_are_named(box, reason):
    assert box_problem(box, 100, 80) == reason


def test_usable_regions_and_their_image_are_kept():
    found = collect(region(1), region(908400553664))

    assert found.regions == [region(1), region(908400553664)]
    assert found.images == {7: IMAGE}
    assert (found.name, found.split, found.rejected) == ("demo", "val", [])


def test_captions_of_more_words_than_models_are_trained_on_are_noted():
    captions = ["a " * 31, "a " * 32, "a" + " " * 40 + "b"]

    found = collect(*(region(number, caption=text) for number, text in enumerate(captions)))

    assert found.noted == {"caption_over_31_words": 1}
    assert len(found.regions) == 3


@pytest.mark.parametrize(("split", "truth"), [("val", [1, 2]), ("train", [1])])
def test_a_rejected_region_stays_truth_except_in_training(split, truth):
    found = collect(region(1), OUTSIDE, split=split)

    assert [item.region_id for item in found.truth()] == truth
    assert found.rejection_counts() == {"outside_image": 1}


def test_a_repeated_id_is_truth_under_an_id_that_no_other_region_has():
    found = collect(region(1), region(-1), region(1, caption="a cat"), region(1))

    assert found.rejection_counts() == {"duplicate_id": 2}
    assert [(item.region_id, item.caption) for item in found.truth()] == [
        (1, "a dog"),
        (-1, "a dog"),
        (-2, "a cat"),
        (-3, "a dog"),
    ]


@pytest.mark.parametrize(
    ("image", "reason"), [(replace(IMAGE, path=""), "missing_image"), (None, "no_image_data")]
)
def test_a_region_without_an_image_is_rejected(image, reason):
    collector = RegionCollector("demo", "val")
    collector.add(region(1), IMAGE)
    collector.add(region(2), image)

    found = collector.finish()

    assert found.rejection_counts() == {reason: 1}
    assert [item.region_id for item in found.truth()] == [1, 2]


@pytest.mark.parametrize("caption", ["", "  ", "\t\n", "\u00a0"])
def test_a_caption_without_a_word_is_rejected(caption):
    found = collect(region(1), region(2, caption=caption))

    assert found.rejection_counts() == {"empty_caption": 1}
    assert [item.region_id for item in found.truth()] == [1, 2]


def test_regions_of_a_source_without_captions_need_none():
    assert len(collect(region(1, caption=None)).regions) == 1


@pytest.mark.parametrize(
    ("box", "original", "noted"),
    [
        ((0, 0, 100, 80), None, {}),
        ((1, 1, 100, 80), (0, 0, 100, 80), {}),
        ((10, 10, 12, 12), None, {}),
        ((0, 0, 100.0005, 80), None, {}),  # x + width is rounded
        ((-1, 10, 30, 30), None, {"box_partly_outside": 1}),
        ((10, -0.5, 30, 30), None, {"box_partly_outside": 1}),
        ((90, 10, 101, 30), None, {"box_partly_outside": 1}),
        ((90, 10, 100, 30), (90, 10, 300, 30), {"box_partly_outside": 1}),
        ((10, 70, 30, 81), None, {"box_partly_outside": 1}),
        ((10, 10, 11.9, 30), None, {"box_below_2_px": 1}),
        ((10, 10, 30, 10.86), None, {"box_below_2_px": 1}),
        ((1, 10, 2, 30), (-3, 10, 2, 30), {"box_partly_outside": 1, "box_below_2_px": 1}),
    ],
)
def test_odd_boxes_are_kept_and_noted(box, original, noted):
    found = collect(region(1, box=box), original=original)

    assert [item.box for item in found.regions] == [box]
    assert found.noted == noted


@pytest.mark.parametrize(
    ("odd", "noted"),
    [
        (region(1, caption="caf\u00e9"), {"non_ascii_caption": 1}),
        (region(2**31 - 1), {}),
        (region(2**31), {"id_beyond_32_bits": 1}),
        (region(-(2**31) - 1), {"id_beyond_32_bits": 1}),
        (replace(region(1), iscrowd=True), {"crowd": 1}),
    ],
)
def test_other_odd_regions_are_kept_and_noted(odd, noted):
    assert collect(odd).noted == noted


def test_what_is_rejected_is_not_noted_as_well():
    odd = region(2**40, caption="\u00e9", box=(-9, 0, 0, 1))

    assert collect(region(1), odd).noted == {}


def test_an_empty_split_says_what_was_left_out():
    with pytest.raises(DatasetError, match=r"demo, split 'val': no usable region.*outside_image':"):
        collect(OUTSIDE)


@pytest.mark.parametrize(
    ("other", "summary"),
    [
        (OUTSIDE, "1 regions in 1 images; left out {'outside_image': 1}"),
        (
            region(2, caption="caf\u00e9"),
            "2 regions in 1 images; left out nothing; noted {'non_ascii_caption': 1}",
        ),
    ],
)
def test_one_line_in_the_log_sums_up_a_split(caplog, other, summary):
    with caplog.at_level(logging.INFO):
        collect(region(1), other)

    assert caplog.messages == [f"demo, split 'val': {summary}"]
