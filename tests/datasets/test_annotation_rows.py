from __future__ import annotations

import pytest

from lavis_dynrefer.datasets.sources.annotation_rows import (
    finite_number,
    rows_by_id,
    shown,
    side_length,
    text_of,
    whole_number,
    with_ids,
    xyxy,
)
from lavis_dynrefer.datasets.sources.collector import RegionCollector
from lavis_dynrefer.datasets.sources.raw_files import DatasetError, RawFile

SOURCE = RawFile("annotations", "a.json", "example.org")
NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5),
        (0, 0),
        (-3, -3),
        ("12", 12),
        ("-7", -7),
        (5.0, 5),
        (908400553664, 908400553664),
        (2**63 - 1, 2**63 - 1),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_ids_have_one_meaning(value, number):
    assert whole_number(value) == number
    assert type(whole_number(value)) is int


NO_IDS = [None, True, False, 1.5, NAN, INFINITY, "", "one", "1.0", " 1", "1_0", "\u0661", [1], {}]


@pytest.mark.parametrize("value", [*NO_IDS, 2**63, -(2**63), 1e300, "9" * 19, "9" * 5000, 2.0**53])
def test_what_is_no_id_is_named(value):
    with pytest.raises(ValueError, match="expected a whole number"):
        whole_number(value)


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5.0), (-2.5, -2.5), ("12", 12.0), ("-1.5e2", -150.0), (".5", 0.5), (2**60, 2.0**60)],
)
def test_coordinates_are_floats(value, number):
    assert finite_number(value) == number
    assert type(finite_number(value)) is float


@pytest.mark.parametrize(
    "value", [None, True, NAN, INFINITY, -INFINITY, 10**400, "nan", "inf", "1_0", "", "x", [1.0]]
)
def test_what_is_no_coordinate_is_named(value):
    with pytest.raises(ValueError, match="expected a finite number"):
        finite_number(value)


@pytest.mark.parametrize("value", [0, -1, 2**31, None, "wide", 10.5, INFINITY])
def test_an_image_has_no_such_side(value):
    with pytest.raises(ValueError, match="expected a"):
        side_length(value)


@pytest.mark.parametrize("value", [640, "640", 640.0])
def test_a_side_is_a_whole_number_of_pixels(value):
    assert side_length(value) == 640


@pytest.mark.parametrize("value", ["", "a dog", "\u65e5\u672c\u8a9e", "\U0001f436"])
def test_texts_are_taken_as_they_are(value):
    assert text_of(value) is value


@pytest.mark.parametrize("value", [None, 5, ["a"], b"a", "half a dog \ud83d"])
def test_what_cannot_be_written_is_no_text(value):
    with pytest.raises(ValueError, match=r"expected a text|surrogates not allowed"):
        text_of(value)


@pytest.mark.parametrize(
    "bbox",
    [
        None,
        "1234",
        5,
        {},
        {1: 0, 2: 0, 3: 0, 4: 0},
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, 3, None],
        [1, 2, 3, NAN],
        [INFINITY, 2, 3, 4],
        [1, 2, 3, [4]],
        [1, 2, 3, True],
    ],
)
def test_what_is_no_box_is_named(bbox):
    with pytest.raises(ValueError, match="expected a"):
        xyxy(bbox)


def test_a_box_of_corner_and_size_becomes_corners():
    assert xyxy([10, 20.5, "4", 3]) == (10.0, 20.5, 14.0, 23.5)


@pytest.mark.parametrize(
    "value", [["x" * 10**6], {str(n): n for n in range(1000)}, [[[[[[[["deep"]]]]]]]], 10**300]
)
def test_what_is_shown_stays_short(value):
    assert len(shown(value)) < 200


def test_rows_without_an_id_count_in_every_split_as_any_may_miss_them():
    collectors = [RegionCollector("demo", split) for split in ("train", "val")]

    rows = [{"id": 1}, {"id": None}, {}, 5, None, "id", {"id": "2"}]
    found = list(with_ids(rows, "image", SOURCE, collectors))

    assert found == [(1, {"id": 1}), (2, {"id": "2"})]
    assert [item._counts for item in collectors] == 2 * [{"unreadable_entry": 5}]


def test_the_first_key_that_is_there_has_the_id():
    rows = [{"id": 1, "image_id": 2}, {"id": 3}]

    found = dict(with_ids(rows, "image", SOURCE, [], ["image_id", "id"]))

    assert list(found) == [2, 3]


def test_rows_of_another_kind_altogether_are_a_file_of_another_kind():
    message = r"annotations: no image has an id.*\{'name': 'a'\}: image_id or id: .*Set `annot"

    with pytest.raises(DatasetError, match=message):
        list(with_ids([{"name": "a"}, {}], "image", SOURCE, [], ["image_id", "id"]))


def test_no_rows_at_all_are_no_error():
    assert list(with_ids([], "image", SOURCE, [])) == []


def test_the_first_row_of_an_id_counts():
    collector = RegionCollector("demo", "val")

    found = rows_by_id(
        [{"id": 1, "a": 1}, {"id": "1", "a": 2}, {"id": 1, "a": 1}], "image", SOURCE, [collector]
    )

    assert found == {1: {"id": 1, "a": 1}}
    assert collector._counts == {"duplicate_entry": 2}
