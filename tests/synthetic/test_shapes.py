from __future__ import annotations

import pytest

from lavis_dynrefer.synthetic.shapes import PAINTS, SHAPES, outline_of
from lavis_dynrefer.synthetic.world import CATEGORIES, COLOURS, SUPERCATEGORIES, held_out_pairs


def test_every_category_has_a_shape_and_a_group():
    grouped = [name for names in SUPERCATEGORIES.values() for name in names]
    assert set(SHAPES) == set(CATEGORIES)
    assert sorted(grouped) == sorted(CATEGORIES)


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_shape_is_centred_with_a_longest_side_of_one(category):
    xs, ys = zip(*(point for part in outline_of(category) for point in part.points))
    assert max(max(xs) - min(xs), max(ys) - min(ys)) == pytest.approx(1)
    assert (max(xs) + min(xs), max(ys) + min(ys)) == pytest.approx((0, 0))


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_shape_shows_the_colour_of_its_object(category):
    paints = {part.paint for part in outline_of(category)}
    assert "body" in paints
    assert paints <= set(PAINTS)


def test_two_categories_of_each_colour_are_held_out():
    colours = [colour for colour, _ in held_out_pairs()]
    assert {colour: colours.count(colour) for colour in COLOURS} == dict.fromkeys(COLOURS, 2)


def test_a_category_loses_at_most_one_colour():
    categories = [category for _, category in held_out_pairs()]
    assert len(categories) == len(set(categories)) == 16
