from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from lavis_dynrefer.datasets.sources.collector import RegionCollector, box_problem
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.structures import ImageRecord, RegionRecord

IMAGE = ImageRecord(7, "/images/7.jpg", width=100, height=80)


def region(region_id, box=(10, 10, 30, 30), caption="a dog"):
    return RegionRecord(region_id, 7, box, caption)


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
    collector = RegionCollector("demo", "val")
    collector.add(region(1), IMAGE)
    collector.add(region(2), IMAGE)

    found = collector.finish()

    assert found.regions == [region(1), region(2)]
    assert found.images == {7: IMAGE}
    assert (found.name, found.split, found.rejected) == ("demo", "val", [])


def test_a_rejected_region_stays_truth_outside_of_training():
    collector = RegionCollector("demo", "val")
    collector.add(region(1), IMAGE)
    collector.add(region(2, box=(200, 0, 210, 10)), IMAGE)

    found = collector.finish()

    assert [item.region_id for item in found.truth()] == [1, 2]
    assert found.rejection_counts() == {"outside_image": 1}


def test_a_rejected_region_is_gone_in_training():
    collector = RegionCollector("demo", "train")
    collector.add(region(1), IMAGE)
    collector.add(region(2, box=(200, 0, 210, 10)), IMAGE)

    found = collector.finish()

    assert found.truth() == [region(1)]
    assert found.rejection_counts() == {"outside_image": 1}


def test_a_repeated_id_is_truth_that_no_prediction_can_answer():
    collector = RegionCollector("demo", "val")
    collector.add(region(1), IMAGE)
    collector.add(region(1, caption="a cat"), IMAGE)

    found = collector.finish()

    assert found.rejection_counts() == {"duplicate_id": 1}
    assert [(item.region_id, item.caption) for item in found.truth()] == [
        (1, "a dog"),
        (-1, "a cat"),
    ]


def test_ids_beyond_32_bits_are_ids():
    collector = RegionCollector("demo", "val")
    collector.add(region(908400553664), IMAGE)

    assert collector.finish().regions[0].region_id == 908400553664


def test_a_region_of_a_missing_file_is_rejected():
    collector = RegionCollector("demo", "val")
    collector.add(region(1), IMAGE)
    collector.add(region(2), ImageRecord(8, "", 100, 80))

    assert collector.finish().rejection_counts() == {"missing_image": 1}


@pytest.mark.parametrize("caption", ["", "  ", "\t\n", "\u00a0"])
def test_a_caption_without_a_word_is_rejected(caption):
    collector = RegionCollector("demo", "val")
    collector.add(region(1), IMAGE)
    collector.add(region(2, caption=caption), IMAGE)

    found = collector.finish()

    assert found.rejection_counts() == {"empty_caption": 1}
    assert [item.region_id for item in found.truth()] == [1, 2]


def test_regions_of_a_source_without_captions_need_none():
    collector = RegionCollector("demo", "val")
    collector.add(region(1, caption=None), IMAGE)

    assert len(collector.finish().regions) == 1


def test_a_repeated_id_is_given_no_id_that_another_region_has():
    collector = RegionCollector("demo", "val")
    for number in (1, -1, 1, 1):
        collector.add(region(number), IMAGE)

    found = collector.finish()

    assert [item.region_id for item in found.truth()] == [1, -1, -2, -3]


@pytest.mark.parametrize(
    ("box", "given", "noted"),
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
def test_odd_boxes_are_kept_and_noted(box, given, noted):
    collector = RegionCollector("demo", "val")
    collector.add(region(1, box=box), IMAGE, given=given)

    found = collector.finish()

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
def test_other_oddities_are_kept_and_noted(odd, noted):
    collector = RegionCollector("demo", "val")
    collector.add(odd, IMAGE)

    assert collector.finish().noted == noted


def test_what_is_rejected_is_not_noted_as_well():
    collector = RegionCollector("demo", "val")
    collector.add(region(1), IMAGE)
    collector.add(region(2**40, caption="\u00e9", box=(-9, 0, 0, 1)), IMAGE)

    assert collector.finish().noted == {}


def test_a_reader_notes_what_it_finds_odd():
    collector = RegionCollector("demo", "val")
    collector.add(region(1), IMAGE)
    collector.note("v1.0_keys")
    collector.note("v1.0_keys", 4)

    assert collector.finish().noted == {"v1.0_keys": 5}


def test_an_empty_split_says_what_was_left_out():
    collector = RegionCollector("demo", "val")
    collector.add(region(2, box=(1, 1, 1, 1)), IMAGE)

    with pytest.raises(DatasetError, match=r"demo, split 'val': no usable region.*empty_box': 1"):
        collector.finish()


def test_one_line_in_the_log_sums_a_split_up(caplog):
    collector = RegionCollector("demo", "val")
    collector.add(region(1), IMAGE)
    collector.add(region(2, box=(1, 1, 1, 1)), IMAGE)

    with caplog.at_level(logging.INFO):
        collector.finish()

    assert caplog.messages == [
        "demo, split 'val': 1 regions in 1 images; left out {'empty_box': 1}"
    ]


def test_the_log_names_what_was_noted(caplog):
    collector = RegionCollector("demo", "val")
    collector.add(region(1, caption="caf\u00e9"), IMAGE)

    with caplog.at_level(logging.INFO):
        collector.finish()

    assert caplog.messages == [
        "demo, split 'val': 1 regions in 1 images; left out nothing; noted {'non_ascii_caption': 1}"
    ]
