"""Results as a table, which no spreadsheet runs and which comes back as it was."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lavis_dynrefer.formats import ImageResult, read_box_file, write_results
from lavis_dynrefer.formats.csv_table import read_csv_boxes, write_csv
from lavis_dynrefer.structures import RegionPrediction

FORMULAS = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1", "'=1"]


def table_of(results):
    file = io.StringIO()
    write_csv(results, file)
    return file.getvalue()


def lines_of(results):
    return list(csv.DictReader(io.StringIO(table_of(results), newline="")))


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
    assert (second["x1"], third["image"], third["image_id"]) == ("-4.0", "c.png", "12")


@pytest.mark.parametrize("key", ["caption", "caption_score", "category", "image_id"])
def test_missing_answers_are_empty_cells(key):
    region = RegionPrediction(box=(0.0, 0.0, 2.0, 2.0), tags=(("dot", 0.5),))
    (line,) = lines_of([ImageResult("a.jpg", "/a.jpg", 9, 9, (region,), ("left one",))])
    assert (line["region"], line["tag_scores"]) == ("left one", "0.5")
    assert line[key] == ""


def test_a_character_of_code_0_is_replaced():
    region = RegionPrediction(
        box=(0.0, 0.0, 2.0, 2.0),
        caption="a\0b",
        tags=(("c\0d", 0.5),),
        categories=(("e\0f", -1.5),),
    )

    (line,) = lines_of([ImageResult("con\0.png", "/a.jpg", 9, 9, (region,))])

    assert line["image"] == "con\ufffd.png"
    assert (line["caption"], line["tags"]) == ("a\ufffdb", "c\ufffdd")
    assert line["category:e\ufffdf"] == "-1.5"


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula(text):
    region = RegionPrediction(
        box=(-5.0, 0.0, 2.0, 2.0),
        caption=text,
        tags=(("dog", 0.75), (text, 0.5)),
        categories=((text, -1.5), ("cat", -2.0)),
        attributes=((text, 0.5),),
    )
    table = table_of([ImageResult(text, text, 9, 9, (region,), (text,))])
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    frame = pandas.read_csv(io.StringIO(table, newline=""))
    (row,) = frame.to_dict("records")
    assert [row[column] for column in ("image", "path", "region", "caption", "category")] == [
        f"'{text}"
    ] * 5
    assert (row["x1"], row[f"category:{text}"]) == (-5, -1.5)  # numbers are numbers
    texts = [*frame.columns, *(cell for cell in row.values() if isinstance(cell, str))]
    parts = [part for cell in texts for part in cell.split(";")]
    assert not [part for part in parts if part[:1] in {*"=+-@\t\r\uff1d"}]


TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(image=TEXTS.filter(str.strip), region_id=TEXTS)
@example(image="'=a.jpg", region_id="''@")
@example(image=" a\r\nb.jpg", region_id="٣")
@example(image="=cmd|' /C calc'!A0.jpg", region_id="007")
def test_names_and_ids_are_read_back(image, region_id):
    region = RegionPrediction(box=(1.0, 2.0, 3.0, 4.0))
    table = table_of([ImageResult(image, image, 9, 9, (region,), (region_id,))])
    entries, format = read_csv_boxes(table)
    (entry,) = entries.items()
    assert (entry[0], entry[1].boxes, format) == (image, [[1, 2, 3, 4]], "xyxy")
    if not region_id.lstrip("-").isdecimal():  # a text such as "12" comes back as a number
        assert entry[1].ids == [region_id]


@pytest.mark.parametrize("number", [0, 7, -5])
def test_numbers_stay_numbers(number):
    region = RegionPrediction(box=(1.0, 2.0, 3.0, 4.0))
    table = table_of([ImageResult("a.jpg", "a.jpg", 9, 9, (region,), (number,))])
    assert read_csv_boxes(table)[0]["a.jpg"].ids == [number]


def test_apostrophes_of_other_tables_stay():
    entries, _ = read_csv_boxes("image,x1,y1,x2,y2\n'=a.jpg,1,2,3,4\n")
    assert list(entries) == ["'=a.jpg"]


def test_excel_is_told_the_encoding(results, tmp_path):
    plain, excel = write_results(results, tmp_path, ["csv", "excel-csv"])
    assert excel.read_bytes() == b"\xef\xbb\xbf" + plain.read_bytes()
    assert list(read_box_file(excel).images) == list(read_box_file(plain).images)
