"""Our own rows, and the log that survives being cut off."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from lavis_dynrefer.formats import ImageResult, ResultLog, read_results, write_results
from lavis_dynrefer.formats.image_result import best_category
from lavis_dynrefer.structures import RegionPrediction


@pytest.fixture
def log(tmp_path, results):
    made = ResultLog(tmp_path / "results.jsonl")
    for result in results:
        made.append(result)
    return made


def test_ids_count_from_one_where_none_are_given(regions):
    assert ImageResult("a.jpg", "/a.jpg", 9, 9, regions).ids == (1, 2)


def test_as_many_ids_as_regions_are_needed(regions):
    with pytest.raises(ValueError, match="expected 2 ids, got 1"):
        ImageResult("a.jpg", "/a.jpg", 9, 9, regions, ids=(1,))


def test_rows_come_back_as_they_were(log, results):
    assert list(ResultLog(log.path)) == results
    assert read_results(log.path) == results


def test_json_comes_back_as_it_was(results, tmp_path):
    (path,) = write_results(results, tmp_path, ["json"])
    assert read_results(path) == results


def test_one_line_per_image_whatever_its_name_holds(log, results):
    assert log.path.read_bytes().count(b"\n") == len(results)


@pytest.mark.parametrize("cut", [1, 2, 50])
def test_a_torn_last_row_is_dropped(log, results, cut):
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-cut])
    reopened = ResultLog(log.path)
    assert list(reopened) == results[:-1]
    reopened.append(results[-1])
    assert log.path.read_bytes() == whole


def test_the_last_row_of_an_image_counts(log, results):
    again = dataclasses.replace(results[0], width=999)
    log.append(again)
    assert len(log) == len(results)
    assert log.get(again.image) == again
    assert again in log
    assert results[0] not in log


def test_rows_that_count_no_more_are_removed(log, results):
    log.append(results[0])
    log.compact()
    assert read_results(log.path) == [*results[1:], results[0]]
    log.append(results[1])
    assert log.get("c.png") == results[2]


def test_an_image_without_a_row_has_no_result(log):
    assert log.get("other.jpg") is None


def test_a_damaged_row_is_named(log):
    log.path.write_bytes(b"\0\0\0\n" + log.path.read_bytes())
    with pytest.raises(ValueError, match=r"results\.jsonl line 1 is damaged json"):
        ResultLog(log.path)


def test_other_rows_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"image": 1}\n')
    with pytest.raises(ValueError, match="line 1: expected a row with image and regions"):
        ResultLog(tmp_path / "rows.jsonl")


def test_no_row_holds_what_json_cannot_say(log, regions):
    broken = dataclasses.replace(regions[0], caption_score=math.nan)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append(ImageResult("d.png", "/d.png", 9, 9, (broken,)))
    assert log.get("d.png") is None
    json.loads(log.path.read_text().rstrip("\n").rsplit("\n", 1)[1])


def test_an_unknown_format_names_those_there_are(results, tmp_path):
    with pytest.raises(ValueError, match=r"expected one of \['jsonl', 'json', 'coco', .* 'yolo'"):
        write_results(results, tmp_path, ["yolo"])


def test_a_file_keeps_its_content_until_the_new_one_is_complete(results, tmp_path):
    (tmp_path / "results.json").write_text("earlier")
    broken = dataclasses.replace(results[0].regions[0], caption_score=math.inf)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(
            [results[0], dataclasses.replace(results[2], regions=(broken,))], tmp_path, ["json"]
        )
    assert (tmp_path / "results.json").read_text() == "earlier"


@pytest.mark.parametrize(
    ("logits", "share"),
    [((0.0, 0.0), 0.5), ((math.log(3), 0.0), 0.75), ((9000.0, -9000.0), 1.0), ((5.0,), None)],
)
def test_the_best_category_has_its_share_of_the_names_asked_about(logits, share):
    names = tuple(zip("abc", logits))
    region = RegionPrediction((0.0, 0.0, 9.0, 9.0), categories=names)
    assert best_category(region) == ("a", pytest.approx(share) if share else None)


def test_no_categories_are_a_region():
    assert best_category(RegionPrediction((0.0, 0.0, 9.0, 9.0))) == ("region", None)


def test_a_log_without_answers_is_read(tmp_path):
    ResultLog(tmp_path / "results.jsonl")
    assert read_results(tmp_path / "results.jsonl") == []
