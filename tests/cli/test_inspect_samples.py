"""Images with regions, chosen at random."""

from __future__ import annotations

from dataclasses import replace

import pytest
from page_elements import EVIL
from PIL import Image

from lavis_dynrefer.cli.inspect.inspect_samples import (
    REGIONS_PER_IMAGE,
    choose_rejected,
    choose_samples,
    draw_sheet,
)
from lavis_dynrefer.structures import ImageRecord, RegionRecord, Rejection


def test_dropped_regions_need_a_box_to_be_shown(region_set, rng):
    (sample,) = choose_rejected(region_set, 12, rng())
    assert [note.title for note in sample.notes] == ["outside image", "empty box"]


def test_small_regions_are_drawn_over_large_ones(region_set, rng):
    first = choose_samples(region_set, 12, rng())[0]
    assert [note.title for note in first.notes] == [EVIL, "a small dog"]


def test_a_missing_image_is_gray_in_its_annotated_size(region_set, rng):
    missing = choose_samples(region_set, 12, rng())[1]
    assert missing.image.size == (40, 30)
    assert "No such file" in missing.problem


def test_an_image_of_another_size_is_a_problem(region_set, rng):
    larger = {**region_set.images, 1: replace(region_set.images[1], width=2400, height=1200)}
    sample = choose_samples(replace(region_set, images=larger), 1, rng(1))[0]
    assert sample.size == (1200, 600)
    assert sample.problem == "the file has 1200 x 600 pixels, the annotations say 2400 x 1200"


def test_of_many_regions_some_are_shown(region_set, rng):
    many = [replace(region_set.regions[0], region_id=number) for number in range(30)]
    sample = choose_samples(replace(region_set, regions=many), 1, rng())[0]
    assert len(sample.notes) == REGIONS_PER_IMAGE
    assert sample.regions == 30


@pytest.fixture
def crowded(region_set):
    """Twenty images with a region each; none of the files exists."""
    images = {number: ImageRecord(number, "nowhere.jpg", 40, 30) for number in range(20)}
    regions = [RegionRecord(number, number, (1, 1, 9, 9), "a dog") for number in range(20)]
    return replace(region_set, images=images, regions=regions, rejected=[])


def test_the_seed_decides_which_images_are_shown(crowded, rng):
    def chosen(seed):
        return [item.record.image_id for item in choose_samples(crowded, 5, rng(seed))]

    assert chosen(1) == chosen(1) != chosen(2)
    assert len(set(chosen(1))) == 5


def test_rare_reasons_are_shown_beside_frequent_ones(crowded, rng):
    rejected = [
        Rejection("rare" if number == 19 else "frequent", "why", number, region)
        for number, region in enumerate(crowded.regions)
    ]
    samples = choose_rejected(replace(crowded, rejected=rejected), 2, rng())
    assert {sample.notes[0].title for sample in samples} == {"rare", "frequent"}


def test_the_sheet_has_a_part_for_each_split(region_set, rng):
    samples = choose_samples(region_set, 12, rng())
    one = draw_sheet([("val", samples)])
    assert isinstance(one, Image.Image)
    assert draw_sheet([("val", samples), ("val: dropped", samples)]).height > 1.8 * one.height
    assert draw_sheet([("val", [])]) is None
