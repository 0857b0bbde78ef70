"""Results as a table."""

from __future__ import annotations

import csv
import io

import pytest

from lavis_dynrefer.formats import ImageResult, from_csv, to_csv
from lavis_dynrefer.structures import RegionPrediction


def table_of(results) -> io.StringIO:
    file = io.StringIO()
    to_csv(results, file)
    file.seek(0)
    return file


def test_one_line_per_region_with_its_answers(results):
    first = next(csv.DictReader(table_of(results)))
    assert (first["region"], first["x1"], first["y2"]) == ("7", "10.0", "80.0")
    assert first["caption"] == 'a "red", wet flower'
    assert first["category"] == "flower"
    assert first["attribute:color:red"] == "0.9"
    assert first["category:tree"] == "-3.0"
    assert first["tags"] == 'flower;"a;b"'
    assert first["scales:caption"] == "0.0;0.5"


def test_results_come_back_but_for_images_without_regions(results):
    assert from_csv(table_of(results)) == [results[0], results[2]]


def test_what_was_not_asked_stays_empty():
    region = RegionPrediction(box=(0.0, 0.0, 2.0, 2.0), tags=(("dot", 0.5),))
    results = [ImageResult("a.jpg", "/a.jpg", 9, 9, (region,), ("left one",))]
    assert from_csv(table_of(results)) == results


def test_another_table_is_refused():
    with pytest.raises(ValueError, match="expected a table of dynrefer predict; it has no"):
        from_csv(io.StringIO("image,x1,y1,x2,y2\n"))


def test_a_line_cut_short_is_named(results):
    text = table_of(results).getvalue()
    with pytest.raises(ValueError, match="line 4: expected"):
        from_csv(io.StringIO(text[: text.rindex(",")]))


def test_a_box_that_is_no_number_is_named(results):
    text = table_of(results).getvalue().replace("-4.0", "left", 1)
    with pytest.raises(ValueError, match="line 3: could not convert"):
        from_csv(io.StringIO(text))
