"""Results as a table."""

from __future__ import annotations

import csv
import io

import pytest

from lavis_dynrefer.formats import ImageResult
from lavis_dynrefer.formats.csv_table import write_csv
from lavis_dynrefer.structures import RegionPrediction


def lines_of(results):
    file = io.StringIO()
    write_csv(results, file)
    file.seek(0)
    return list(csv.DictReader(file))


def test_each_region_is_a_line_with_its_answers(results):
    first, second, third = lines_of(results)
    assert (first["region"], first["x1"], first["y2"]) == ("7", "10.0", "80.0")
    assert first["caption"] == 'a "red", wet flower'
    assert first["category"] == "flower"
    assert first["attribute:color:red"] == "0.9"
    assert first["category:tree"] == "-3.0"
    assert first["tags"] == 'flower;"a;b"'
    assert first["scales:caption"] == "0.0;0.5"
    assert (second["scales:caption"], second["scales:tags"]) == ("0.0;0.5", "")
    assert (third["image"], third["image_id"]) == ("c.png", "12")


@pytest.mark.parametrize("key", ["caption", "caption_score", "category", "image_id"])
def test_missing_answers_are_empty_cells(key):
    region = RegionPrediction(box=(0.0, 0.0, 2.0, 2.0), tags=(("dot", 0.5),))
    (line,) = lines_of([ImageResult("a.jpg", "/a.jpg", 9, 9, (region,), ("left one",))])
    assert (line["region"], line["tag_scores"]) == ("left one", "0.5")
    assert line[key] == ""
