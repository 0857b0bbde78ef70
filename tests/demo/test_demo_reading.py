"""From the page's fields to the model's questions."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lavis_dynrefer.demo.form_reading import (
    Fields,
    board,
    drawn_boxes,
    read_image,
    read_work,
    typed_words,
)
from lavis_dynrefer.serve import ServeSettings
from lavis_dynrefer.serve.errors import RequestError
from lavis_dynrefer.serve.work import WorkReader

BOX = {"xmin": 2, "ymin": 1, "xmax": 8, "ymax": 5, "color": "rgb(255, 168, 77)"}


@pytest.fixture
def reader():
    settings = ServeSettings(max_pixels=500, max_boxes=2, max_words=3, max_body=10_000)
    return WorkReader(settings, num_views=2)


@pytest.fixture
def drawing(tmp_path):
    """A 20 x 10 image, red in its upper left corner and black elsewhere."""
    image = Image.new("RGB", (20, 10))
    image.paste("red", (0, 0, 4, 4))
    image.save(tmp_path / "image.png")
    return {"image": {"path": str(tmp_path / "image.png")}, "boxes": [BOX], "orientation": 0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", None),
        ("  \n", None),
        ("wet", ["wet"]),
        (" striped , wet,striped,, ", ["striped", "wet"]),
        ("tennis racket\nmug", ["tennis racket", "mug"]),
        ("@/etc/passwd", ["@/etc/passwd"]),  # no file is read
    ],
)
def test_words_are_split_at_commas_and_lines(text, words):
    assert typed_words("attributes", text) == words


def test_commas_alone_are_no_words():
    with pytest.raises(RequestError, match="attributes: expected words with commas between them"):
        typed_words("attributes", " , ,")


def test_boxes_come_in_the_order_they_were_drawn():
    first, second = {**BOX, "xmin": 0}, {**BOX, "xmin": 3}

    boxes = drawn_boxes([second, first])  # the board puts the newest first

    assert [one.box for one in boxes] == [(0, 1, 8, 5), (3, 1, 8, 5)]


def test_screen_pixels_become_pixels_of_the_image():
    (box,) = drawn_boxes([{**BOX, "scaleFactor": 0.5}])

    assert box.box == (4, 2, 16, 10)


@pytest.mark.parametrize(
    ("named", "colour"),
    [
        ("rgb(255, 168, 77)", "rgb(255, 168, 77)"),
        ("rgb(255,168,77);background:url(//example.com)", "rgb(255, 168, 77)"),
        ("red;background:url(//example.com)", "rgb(120, 128, 140)"),
        (7, "rgb(120, 128, 140)"),
    ],
)
def test_a_colour_is_three_numbers_and_nothing_else(named, colour):
    (box,) = drawn_boxes([{**BOX, "color": named}])

    assert box.colour == colour


@pytest.mark.parametrize(
    "entry",
    [None, 3, {}, {**BOX, "xmin": "left"}, {**BOX, "xmax": float("inf")}, {**BOX, "ymin": None}],
)
def test_an_entry_that_is_no_box_is_named(entry):
    with pytest.raises(RequestError, match="boxes: expected xmin, ymin, xmax and ymax, got"):
        drawn_boxes([entry])


def test_a_board_gives_its_boxes_back():
    boxes = [(1.2, 2, 30, 40), (5, 6, 7, 8)]

    assert [one.box for one in drawn_boxes(board("a.png", boxes)["boxes"])] == [
        (1, 2, 30, 40),
        (5, 6, 7, 8),
    ]


def test_typed_fields_become_questions(drawing, reader):
    fields = Fields("wet, striped", "mug", "mug, table", "red", "fixed:0,0.5")

    work, colours = read_work(drawing, fields, reader)

    assert work.boxes.tolist() == [[2, 1, 8, 5]]
    assert work.asked.arguments() == {
        "tasks": ("caption", "tags", "attributes", "categories"),
        "attributes": ("wet", "striped"),
        "categories": ("mug",),
        "controls": ("red",),
        "tags": ("mug", "table"),
        "views": "fixed:0,0.5",
    }
    assert colours == ["rgb(255, 168, 77)"]


def test_empty_fields_leave_everything_to_the_model(drawing, reader):
    asked = read_work(drawing, Fields(), reader)[0].asked

    assert (asked.attributes, asked.categories, asked.controls, asked.views) == (
        None,
        None,
        (),
        None,
    )


def test_the_whole_image_needs_no_box(drawing, reader):
    work, colours = read_work({**drawing, "boxes": []}, Fields(), reader, whole=True)

    assert work.boxes.tolist() == [[0, 0, 20, 10]]
    assert len(colours) == 1


def test_the_whole_image_is_asked_about_in_place_of_boxes(drawing, reader):
    assert read_work(drawing, Fields(), reader, whole=True)[0].boxes.tolist() == [[0, 0, 20, 10]]


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        ({"boxes": []}, {}, "There is no box yet: .* or ask about the whole image"),
        ({"image": None}, {}, "There is no image yet"),
        ({"boxes": [BOX] * 3}, {}, "at most 2 regions, got 3"),
        ({"boxes": [{**BOX, "xmax": 1}]}, {}, "boxes: .*"),
        ({"boxes": [{**BOX, "xmin": 100, "xmax": 120}]}, {}, "boxes: .*"),
        ({}, {"attributes": "a,b,c,d"}, "attributes: expected at most 3 words, got 4"),
        ({}, {"attributes": "color:"}, "expected a word"),
        ({}, {"categories": ","}, "categories: expected words"),
        ({}, {"tags": ","}, "tags: expected words"),
        ({}, {"controls": ","}, "control words: expected words"),
        ({}, {"controls": "x" * 101}, "at most 100 characters"),
        ({}, {"views": "sideways"}, "view policy: expected one of"),
        ({}, {"views": "fixed:0,2"}, "expected scales as in fixed:0,0.5"),
    ],
)
def test_what_cannot_be_asked_is_said(drawing, reader, change, fields, message):
    with pytest.raises(RequestError, match=message):
        read_work({**drawing, **change}, Fields(**fields), reader)


def test_no_drawing_at_all_is_no_image(reader):
    with pytest.raises(RequestError, match="There is no image yet"):
        read_work(None, Fields(), reader)


@pytest.mark.parametrize(
    ("turns", "size", "red"),
    [
        (0, (20, 10), (0, 0)),
        (1, (10, 20), (9, 0)),
        (2, (20, 10), (19, 9)),
        (3, (10, 20), (0, 19)),
        (-1, (10, 20), (0, 19)),
    ],
)
def test_quarter_turns_are_clockwise(drawing, turns, size, red):
    image = read_image({**drawing, "orientation": turns}, 10_000, 500)

    assert image.size == size
    assert image.getpixel(red) == (255, 0, 0)


def test_a_photo_is_read_upright_as_its_camera_says(tmp_path):
    stored = Image.new("RGB", (40, 20))
    stored.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)

    image = read_image({"image": {"path": tmp_path / "photo.jpg"}}, 10_000, 1000)

    assert image.size == (20, 40)
    assert np.asarray(image)[:15, :, 0].min() > 200
    assert np.asarray(image)[25:, :, 0].max() < 50


def encoded(size, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded((30, 30)), "at most 500 pixels, got 30 x 30"),
        (b"<!doctype html><p>hello", "got a page of html"),
        (b"", "got nothing"),
        (encoded((20, 10), "JPEG")[:-20], "damaged image"),
        (b"x" * 10_001, "at most 10,000 bytes, got 10,001"),
    ],
    ids=["pixels", "html", "empty", "cut off", "bytes"],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, message):
    (tmp_path / "file.png").write_bytes(content)

    with pytest.raises(RequestError, match=message):
        read_image({"image": {"path": tmp_path / "file.png"}}, 10_000, 500)


def test_an_image_that_is_gone_is_to_be_sent_again(tmp_path):
    with pytest.raises(RequestError, match="upload it again"):
        read_image({"image": {"path": tmp_path / "gone.png"}}, 10_000, 500)
