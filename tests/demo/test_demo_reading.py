"""From the page's fields to questions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from lavis_dynrefer.demo.form_reading import (
    FIELDS,
    board,
    drawn_boxes,
    read_image,
    read_question,
    typed_masks,
    typed_words,
)
from lavis_dynrefer.errors import DynReferError, InputError
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.serve import ServeSettings
from lavis_dynrefer.serve.request_errors import RequestError

BOX = {"xmin": 2, "ymin": 1, "xmax": 8, "ymax": 5, "color": "rgb(255, 168, 77)"}
LIMITS = ServeSettings(max_pixels=500, max_boxes=2, max_words=3, max_body=10_000)
EMPTY = {**dict.fromkeys([field.name for field in FIELDS], ""), "views": "own", "masks_as": "own"}
POLYGON = [[2, 1, 8, 1, 8, 5]]
RLE = {"size": (10, 20), "counts": [0, 200]}


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
def test_words_are_split_at_commas_and_line_ends(text, words):
    assert typed_words("attributes", text) == words


def test_only_commas_are_refused():
    with pytest.raises(InputError, match="attributes: expected words with commas between them"):
        typed_words("attributes", " , ,")


@pytest.mark.parametrize(
    ("text", "masks"),
    [
        ("", None),
        (" \n", None),
        (json.dumps([POLYGON, None]), [POLYGON, None]),
        (json.dumps([RLE, POLYGON]), [RLE, POLYGON]),
        (f" {json.dumps(RLE)} ", [RLE]),  # one, as tools write it
        (f"{json.dumps(RLE)}, {json.dumps(RLE)}", [RLE, RLE]),
    ],
)
def test_masks_are_json(text, masks):
    assert typed_masks("masks", text) == masks


@pytest.mark.parametrize(
    "text",
    [
        "2, 1, 8",
        "\ud800",
        "[[2, 1",
        '[{"size": [10, 20]}]',
        '[], "boxes": [[0, 0, 1, 1]]',
        '"a.json"',
    ],
)
def test_what_is_no_mask_is_refused(text):
    with pytest.raises(RequestError):
        typed_masks("masks", text)


def test_masks_belong_to_the_boxes_or_stand_alone(drawing):
    typed = {**EMPTY, "masks": json.dumps([POLYGON]), "masks_as": "dim"}

    with_box = read_question(drawing, typed, LIMITS)
    alone = read_question({**drawing, "boxes": []}, typed, LIMITS)
    whole = read_question(drawing, {**typed, "masks": "[[0, 1"}, LIMITS, whole=True)

    assert (with_box.boxes, with_box.masks) == ([(2, 1, 8, 5)], [POLYGON])
    assert (alone.boxes, alone.masks, len(alone.colours)) == (None, [POLYGON], 1)
    assert (whole.boxes, whole.masks) == ([(0, 0, 20, 10)], None)
    assert with_box.questions.masks_as == "dim"
    other = read_question(drawing, {**typed, "masks": json.dumps([None])}, LIMITS)
    assert len({with_box.key, alone.key, whole.key, other.key}) == 4


def test_boxes_are_in_the_order_they_were_drawn():
    first, second = {**BOX, "xmin": 0}, {**BOX, "xmin": 3}

    boxes, _ = drawn_boxes([second, first])  # the board sends the newest first

    assert boxes == [(0, 1, 8, 5), (3, 1, 8, 5)]


def test_boxes_are_scaled_to_pixels_of_the_image():
    assert drawn_boxes([{**BOX, "scaleFactor": 0.5}])[0] == [(4, 2, 16, 10)]


@pytest.mark.parametrize(
    ("named", "colour"),
    [
        ("rgb(255, 168, 77)", "rgb(255, 168, 77)"),
        ("rgb(255,168,77);background:url(//example.com)", "rgb(255, 168, 77)"),
        ("red;background:url(//example.com)", "rgb(120, 128, 140)"),
        (7, "rgb(120, 128, 140)"),
    ],
)
def test_colour_is_three_numbers_and_nothing_else(named, colour):
    assert drawn_boxes([{**BOX, "color": named}])[1] == [colour]


@pytest.mark.parametrize(
    "entry",
    [None, 3, {}, {**BOX, "xmin": "left"}, {**BOX, "xmax": float("inf")}, {**BOX, "ymin": None}],
)
def test_invalid_box_is_named(entry):
    with pytest.raises(InputError, match="boxes: expected xmin, ymin, xmax and ymax, got"):
        drawn_boxes([entry])


def test_board_keeps_its_boxes():
    boxes = [(1.2, 2, 30, 40), (5, 6, 7, 8)]

    assert drawn_boxes(board("a.png", boxes)["boxes"])[0] == [(1, 2, 30, 40), (5, 6, 7, 8)]


def test_typed_fields_become_questions(drawing):
    typed = {
        "attributes": "wet, striped",
        "categories": "mug",
        "tags": "mug, table",
        "controls": "red",
        "views": "fixed:0,0.5",
    }

    asked = read_question(drawing, typed, LIMITS)

    assert asked.boxes == [(2, 1, 8, 5)]
    assert asked.colours == ["rgb(255, 168, 77)"]
    assert asked.questions == Questions(
        attributes=["wet", "striped"],
        categories=["mug"],
        controls=["red"],
        tags=["mug", "table"],
        views="fixed:0,0.5",
    )


@pytest.mark.parametrize("empty", [EMPTY, dict.fromkeys(EMPTY), dict.fromkeys(EMPTY, " "), {}])
def test_empty_fields_mean_the_models_own(drawing, empty):
    assert read_question(drawing, empty, LIMITS).questions == Questions()


@pytest.mark.parametrize("boxes", [[], [BOX]])
def test_whole_image_replaces_the_boxes(drawing, boxes):
    asked = read_question({**drawing, "boxes": boxes}, EMPTY, LIMITS, whole=True)

    assert asked.boxes == [(0, 0, 20, 10)]
    assert len(asked.colours) == 1


@pytest.mark.parametrize(
    ("change", "typed", "message"),
    [
        ({"boxes": []}, {}, "There is no box yet: .* or ask about the whole image"),
        ({"image": None}, {}, "There is no image yet"),
        ({"boxes": [BOX] * 3}, {}, "at most 2 regions, got 3"),
        ({"boxes": [{**BOX, "xmax": float("nan")}]}, {}, "boxes: expected xmin"),
        ({}, {"attributes": "a,b,c,d"}, "attributes: expected at most 3 words, got 4"),
        ({}, {"categories": ","}, "categories: expected words"),
        ({}, {"controls": "x" * 101}, "at most 100 characters"),
        ({}, {"views": "sideways"}, "views: expected one of"),
        ({}, {"masks_as": "glass"}, "masks_as: expected one of"),
        ({"boxes": []}, {"masks": "[null, null, null]"}, "at most 2 regions, got 3"),
        ({"boxes": "abc"}, {}, "boxes: expected a list, got 'abc'"),
        ({}, {"tags": 7}, "tags: expected a text, got 7"),
        ({"image": "a.png"}, {}, "image: expected an uploaded file"),
        ({"orientation": "x"}, {}, "image: expected an uploaded file"),
    ],
)
def test_invalid_questions_are_named(drawing, change, typed, message):
    with pytest.raises(DynReferError, match=message):
        read_question({**drawing, **change}, {**EMPTY, **typed}, LIMITS)


def test_missing_drawing_is_a_missing_image():
    with pytest.raises(InputError, match="There is no image yet"):
        read_question(None, EMPTY, LIMITS)


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
    image, _ = read_image({**drawing, "orientation": turns}, LIMITS)

    assert image.size == size
    assert image.getpixel(red) == (255, 0, 0)


def test_photo_is_read_upright(tmp_path):
    stored = Image.new("RGB", (40, 20))
    stored.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)

    image, _ = read_image({"image": {"path": tmp_path / "photo.jpg"}}, ServeSettings())

    assert image.size == (20, 40)
    assert np.asarray(image)[:15, :, 0].min() > 200
    assert np.asarray(image)[25:, :, 0].max() < 50


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_pixels": 199}, "at most 199 pixels, got 20 x 10"),
        ({"max_body": 9}, "at most 9 bytes"),
    ],
)
def test_too_large_image_is_refused(drawing, limits, message):
    with pytest.raises(DynReferError, match=message):
        read_image(drawing, ServeSettings(**limits))


def test_deleted_image_must_be_uploaded_again(tmp_path):
    with pytest.raises(InputError, match="upload it again"):
        read_image({"image": {"path": tmp_path / "gone.png"}}, LIMITS)
