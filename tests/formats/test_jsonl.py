"""Our own rows, and the log that survives being interrupted."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from lavis_dynrefer.formats import ImageResult, ResultLog, read_results, write_results


@pytest.fixture
def log(tmp_path, results):
    made = ResultLog(tmp_path / "results.jsonl")
    for result in results:
        made.append(result)
    return made


def test_rows_are_read_back(log, results):
    assert list(ResultLog(log.path)) == results
    assert read_results(log.path) == results


def test_json_is_read_back(results, tmp_path):
    (path,) = write_results(results, tmp_path, ["json"])
    assert read_results(path) == results


def test_any_image_name_makes_one_line(log, results):
    assert log.path.read_bytes().count(b"\n") == len(results)


@pytest.mark.parametrize("cut", [2, 50])
def test_an_incomplete_last_row_is_dropped(log, results, cut):
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-cut])
    reopened = ResultLog(log.path)
    assert list(reopened) == results[:-1]
    reopened.append(results[-1])
    assert log.path.read_bytes() == whole


def test_a_whole_last_row_without_its_line_end_is_kept(log, results):
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-1] + b"")
    assert list(ResultLog(log.path)) == results
    assert log.path.read_bytes() == whole


def test_last_row_of_an_image_wins(log, results):
    again = dataclasses.replace(results[0], width=999)
    log.append(again)
    assert len(log) == len(results)
    assert log.get(again.image) == again
    assert again in log
    assert results[0] not in log


def test_compact_removes_replaced_rows(log, results):
    log.append(results[0])
    log.compact()
    assert read_results(log.path) == [*results[1:], results[0]]
    log.append(results[1])
    assert log.get("c.png") == results[2]


def test_compact_sorts_after_the_images_that_are_not_named(log, results):
    order = ["c.png", "absent.png", results[0].image]
    log.compact(order)
    assert read_results(log.path) == [results[1], results[2], results[0]]
    written = log.path.stat()
    log.compact(order)
    assert log.path.stat().st_ino == written.st_ino  # in order: not written anew


def test_old_key_picture_is_read(log, results):
    log.path.write_text(
        log.path.read_text(encoding="utf-8").replace('{"image": ', '{"picture": '), encoding="utf-8"
    )
    assert list(ResultLog(log.path)) == read_results(log.path) == results
    assert ResultLog(log.path).get("c.png") == results[2]


def test_an_unknown_image_has_no_result(log):
    assert log.get("other.jpg") is None


def test_error_names_the_damaged_row(log):
    log.path.write_bytes(b"\0\0\0\n" + log.path.read_bytes())
    with pytest.raises(ValueError, match=r"results\.jsonl: line 1: damaged json"):
        ResultLog(log.path)


def test_other_rows_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"image": 1}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 1: expected a row .* with image and regions"):
        ResultLog(tmp_path / "rows.jsonl")


def test_nan_is_refused(log, regions):
    broken = dataclasses.replace(regions[0], caption_score=math.nan)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append(ImageResult("d.png", "/d.png", 9, 9, (broken,)))
    assert log.get("d.png") is None
    json.loads(log.path.read_text(encoding="utf-8").rstrip("\n").rsplit("\n", 1)[1])


def test_an_empty_log_is_read(tmp_path):
    ResultLog(tmp_path / "results.jsonl")
    assert read_results(tmp_path / "results.jsonl") == []


def test_rows_of_an_older_version_are_written_anew(tmp_path, results):
    log = ResultLog(tmp_path / "results.jsonl")
    log.append(results[0])
    new = log.path.read_bytes()
    row = json.loads(new)
    for region in row["regions"]:
        region["tags"] = [[tag["name"], tag["score"]] for tag in region["tags"]]
    log.path.write_text(json.dumps(row) + "\n", encoding="utf-8")

    reopened = ResultLog(log.path)
    reopened.append(results[1])
    reopened.compact()

    assert log.path.read_bytes().startswith(new)
    assert list(reopened) == results[:2]
