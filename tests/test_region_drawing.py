"""Pictures of regions with what was said about them."""

from __future__ import annotations

import pytest
from PIL import Image

from lavis_dynrefer.drawing import LINE_HEIGHT, contact_sheet, draw_regions

WHITE = Image.new("RGB", (60, 40), "white")


def test_each_line_of_text_makes_room_for_itself():
    sheet = draw_regions(WHITE, [(5, 5, 20, 20)], ["a house\nreference: a hut"])
    assert sheet.size == (60, 40 + 2 * LINE_HEIGHT + 8)


def test_boxes_are_drawn_where_they_are():
    sheet = draw_regions(WHITE, [(30, 22, 50, 38)], [""])
    assert sheet.getpixel((30, 30)) != (255, 255, 255)
    assert sheet.getpixel((40, 30)) == (255, 255, 255)


def test_the_picture_itself_stays_as_it_is():
    before = WHITE.tobytes()
    draw_regions(WHITE, [(0, 0, 10, 10)], ["x"])
    assert WHITE.tobytes() == before


def test_a_sheet_holds_its_pictures_row_by_row():
    sheet = contact_sheet([WHITE] * 3, columns=2)
    assert sheet.size == (2 * 68 + 8, 2 * 48 + 8)


def test_an_empty_sheet_is_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([], columns=2)
