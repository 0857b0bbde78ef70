"""Images of regions with what was said about them."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from PIL import Image

from lavis_dynrefer.pages.region_drawing import (
    LINE_HEIGHT,
    MIN_WIDTH,
    REJECTED_COLOUR,
    contact_sheet,
    draw_regions,
    number_places,
    titled,
    visible_box,
)

WHITE = Image.new("RGB", (200, 40), "white")
RED = tuple(int(REJECTED_COLOUR[place : place + 2], 16) for place in (1, 3, 5))


def test_sheet_grows_with_the_lines_of_text():
    sheet = draw_regions(WHITE, [(5, 5, 20, 20)], ["a house\nreference: a hut"])
    assert sheet.size == (200, 40 + 2 * LINE_HEIGHT + 8)


def test_a_long_line_is_wrapped():
    sheet = draw_regions(WHITE, [(5, 5, 20, 20)], ["a house " * 10])
    assert sheet.height >= 40 + 3 * LINE_HEIGHT + 8


def test_a_word_too_long_for_its_line_is_broken():
    sheet = draw_regions(WHITE, [(5, 5, 20, 20)], ["W" * 100])
    assert sheet.height >= 40 + 3 * LINE_HEIGHT + 8


def test_narrow_image_gets_room_for_text():
    sheet = draw_regions(Image.new("RGB", (1, 40)), [(0, 0, 1, 40)], ["a house"])
    assert sheet.width == MIN_WIDTH


def test_remark_is_above_the_other_lines():
    without = draw_regions(WHITE, [(5, 5, 20, 20)], ["a house"])
    remarked = draw_regions(WHITE, [(5, 5, 20, 20)], ["a house"], remark="no image")
    assert remarked.height == without.height + LINE_HEIGHT
    first_line = remarked.crop((0, 44, 200, 44 + LINE_HEIGHT))
    colours = {colour for _, colour in first_line.getcolors(1 << 16)}
    assert RED in colours
    assert (0xE6, 0x19, 0x4B) not in colours  # of the first box and its text


def test_boxes_are_drawn_where_they_are():
    sheet = draw_regions(WHITE, [(30, 22, 50, 38)], [""])
    assert sheet.getpixel((30, 30)) != (255, 255, 255)
    assert sheet.getpixel((40, 30)) == (255, 255, 255)


def test_rejected_boxes_are_red():
    sheet = draw_regions(WHITE, [(30, 10, 190, 38)], [""], rejected=True)
    assert sheet.getpixel((100, 38)) == RED


def test_image_is_not_changed():
    before = WHITE.tobytes()
    draw_regions(WHITE, [(0, 0, 10, 10)], ["x"])
    assert WHITE.tobytes() == before


@pytest.mark.parametrize(
    ("box", "seen"),
    [
        ((10, 20, 30, 40), (10, 20, 30, 40)),
        ((-5, -5, 300, 90), (0, 0, 100, 80)),
        ((30, 40, 10, 20), (10, 20, 30, 40)),  # corners in the wrong order
        ((30, -904, 50, -800), (30, 0, 50, 4)),  # above
        ((500, 10, 600, 20), (96, 10, 100, 20)),  # to the right
        ((50, 30, 50, 60), (50, 30, 54, 60)),  # without a width
    ],
)
def test_visible_box_is_inside_the_image(box, seen):
    assert visible_box(box, (100, 80)) == seen


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_box_that_is_not_finite_is_not_drawn(value):
    assert visible_box((value, 0, 10, 10), (100, 80)) is None
    draw_regions(WHITE, [(value, 0, 10, 10)], ["nowhere"])


def test_very_long_word_makes_a_few_lines():
    drawn = draw_regions(WHITE, [(0, 0, 10, 10)], ["x" * 1_000_000])
    assert drawn.height < WHITE.height + 100 * LINE_HEIGHT


def test_visible_box_of_a_one_pixel_image():
    assert visible_box((0, 0, 1, 1), (1, 1)) == (0, 0, 1, 1)


def test_contact_sheet_is_filled_row_by_row():
    sheet = contact_sheet([WHITE] * 3, columns=2)
    assert sheet.size == (2 * 208 + 8, 2 * 48 + 8)


def test_row_height_is_that_of_its_highest_image():
    high = Image.new("RGB", (200, 100))
    assert contact_sheet([high, WHITE, WHITE], columns=2).height == 100 + 40 + 3 * 8


def test_title_is_above_the_image():
    black = Image.new("RGB", (200, 40))
    sheet = titled(black, "train")
    assert sheet.size == (200, 40 + 2 * LINE_HEIGHT)
    assert sheet.crop((0, 2 * LINE_HEIGHT, 200, sheet.height)).tobytes() == black.tobytes()


def test_empty_contact_sheet_is_rejected():
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([], columns=2)


def test_numbers_are_inside_and_do_not_overlap():
    boxes = [(0, 0, 99, 79), (0, 0, 20, 20), (80, 60, 100, 80), (40, 40, 60, 60), (41, 40, 60, 61)]

    places = number_places([*boxes, None], (100, 80), height=4.5)

    assert places.pop() is None
    assert all(x1 >= 0 and y1 >= 0 and x2 <= 100 and y2 <= 80 for x1, y1, x2, y2 in places)
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]


def overlap(one, other):
    return all(
        min(one[axis + 2], other[axis + 2]) > max(one[axis], other[axis]) + 0.01 for axis in (0, 1)
    )
