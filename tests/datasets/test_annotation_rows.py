from __future__ import annotations

import pytest

from lavis_dynrefer.datasets.sources.annotation_rows import rows_by_id, rows_with_ids
from lavis_dynrefer.datasets.sources.raw_files import DatasetError, RawFile
from lavis_dynrefer.datasets.sources.region_collector import RegionCollector
from lavis_dynrefer.formats.reading.strict_values import (
    finite_number,
    shown,
    side_length,
    text_of,
    whole_number,
    xyxy,
)

SOURCE = RawFile("annotations", "a.json", "example.org")
NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("read", "value", "number"),
    [
        (whole_number, 5, 5),
        (whole_number, 0, 0),
        (whole_number, "12", 12),
        (whole_number, "-7", -7),
        (whole_number, 5.0, 5),
        (whole_number, 908400553664, 908400553664),
        (whole_number, 2**63 - 1, 2**63 - 1),
        (whole_number, "9223372036854775807", 2**63 - 1),
        (side_length, "640", 640),
        (side_length, 640.0, 640),
        (finite_number, 5, 5.0),
        (finite_number, -2.5, -2.5),
        (finite_number, "12", 12.0),
        (finite_number, "-1.5e2", -150.0),
        (finite_number, ".5", 0.5),
        (finite_number, 2**60, 2.0**60),
    ],
)
def test_numbers_in_any_notation_are_read(read, value, number):
    assert read(value) == number
    assert type(read(value)) is type(number)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 1.5, NAN, INFINITY, "", "one", "1.0", " 1", "1_0", "\u0661", [1], {}),
        *(2**63, -(2**63), 1e300, "9" * 19, "9" * 5000, 2.0**53),
    ],
)
def test_invalid_ids_are_refused(value):
    with pytest.raises(ValueError, match="expected an integer"):
        whole_number(value)


@pytest.mark.parametrize(
    "value", [None, True, NAN, INFINITY, -INFINITY, 10**400, "nan", "inf", "1_0", "", "x", [1.0]]
)
def test_invalid_coordinates_are_refused(value):
    with pytest.raises(ValueError, match="expected a finite number"):
        finite_number(value)


@pytest.mark.parametrize("value", [0, -1, 2**31, None, "wide", 10.5, INFINITY])
def test_invalid_sides_of_images_are_refused(value):
    with pytest.raises(ValueError, match=r"expected an? "):
        side_length(value)


@pytest.mark.parametrize("value", ["", "a dog", "\u65e5\u672c\u8a9e", "\U0001f436"])
def test_strings_are_taken_as_they_are(value):
    assert text_of(value) is value


@pytest.mark.parametrize("value", [None, 5, ["a"], b"a", "half a dog \ud83d"])
def test_strings_that_cannot_be_written_are_refused(value):
    with pytest.raises(ValueError, match=r"expected a string|surrogates not allowed"):
        text_of(value)


@pytest.mark.parametrize(
    "bbox",
    [
        *(None, "1234", 5, {}, {1: 0, 2: 0, 3: 0, 4: 0}, [1, 2, 3], [1, 2, 3, 4, 5]),
        *([1, 2, 3, None], [1, 2, 3, NAN], [INFINITY, 2, 3, 4], [1, 2, 3, [4]], [1, 2, 3, True]),
    ],
)
def test_invalid_boxes_are_refused(bbox):
    with pytest.raises(ValueError, match="expected a"):
        xyxy(bbox)


def test_a_box_of_corner_and_size_becomes_corners():
    assert xyxy([10, 20.5, "4", 3]) == (10.0, 20.5, 14.0, 23.5)


@pytest.mark.parametrize(
    "value", [["x" * 10**6], {str(n): n for n in range(1000)}, [[[[[[[["deep"]]]]]]]], 10**300]
)
def test_shown_values_are_short(value):
    assert len(shown(value)) < 200


def collectors():
    found = [RegionCollector("demo", split) for split in ("train", "val")]
    return found, lambda: [dict(item._counts) for item in found]


def test_rows_without_an_id_are_counted_in_every_split():
    every, counts = collectors()
    rows = [{"id": 1}, {"id": None}, {}, 5, None, "id", {"id": "2"}]

    found = list(rows_with_ids(rows, "image", SOURCE, every))

    assert found == [(1, {"id": 1}), (2, {"id": "2"})]
    assert counts() == 2 * [{"unreadable_entry": 5}]


def test_the_first_key_present_has_the_id():
    rows = [{"id": 1, "image_id": 2}, {"id": 3}]

    assert list(dict(rows_with_ids(rows, "image", SOURCE, [], ["image_id", "id"]))) == [2, 3]


def test_a_file_whose_rows_have_no_id_is_refused():
    message = r"annotations: no image has an id.*\{'name': 'a'\}: image_id or id: .*Set `annot"

    with pytest.raises(DatasetError, match=message):
        list(rows_with_ids([{"name": "a"}, {}], "image", SOURCE, [], ["image_id", "id"]))


def test_an_empty_list_of_rows_is_not_an_error():
    assert list(rows_with_ids([], "image", SOURCE, [])) == []


def test_the_first_row_of_an_id_counts():
    every, counts = collectors()
    rows = [{"id": 1, "a": 1}, {"id": "1", "a": 2}, {"id": 1, "a": 1}]

    assert rows_by_id(rows, "image", SOURCE, every) == {1: {"id": 1, "a": 1}}
    assert counts() == 2 * [{"duplicate_entry": 2}]
