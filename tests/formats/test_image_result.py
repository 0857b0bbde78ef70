"""The answers about one image, and writing them in any format."""

from __future__ import annotations

import dataclasses
import math

import pytest

from lavis_dynrefer.formats import FORMATS, ImageResult, write_results
from lavis_dynrefer.formats.image_result import top_category
from lavis_dynrefer.structures import RegionPrediction


def test_ids_count_from_one_by_default(regions):
    assert ImageResult("a.jpg", "/a.jpg", 9, 9, regions).ids == (1, 2)


def test_the_number_of_ids_must_match(regions):
    with pytest.raises(ValueError, match="expected 2 ids, got 1"):
        ImageResult("a.jpg", "/a.jpg", 9, 9, regions, ids=(1,))


@pytest.mark.parametrize(
    ("logits", "share"),
    [((0.0, 0.0), 0.5), ((math.log(3), 0.0), 0.75), ((9000.0, -9000.0), 1.0), ((5.0,), None)],
)
def test_the_best_category_has_its_softmax_share(logits, share):
    names = tuple(zip("abc", logits))
    region = RegionPrediction((0.0, 0.0, 9.0, 9.0), categories=names)
    assert top_category(region) == ("a", pytest.approx(share) if share else None)


def test_without_categories_the_label_is_region():
    assert top_category(RegionPrediction((0.0, 0.0, 9.0, 9.0))) == ("region", None)


def test_an_unknown_format_is_refused(results, tmp_path):
    with pytest.raises(ValueError, match="format: unknown 'yolo'; expected one of"):
        write_results(results, tmp_path, ["yolo"])


def test_a_file_is_replaced_only_when_complete(results, tmp_path):
    (tmp_path / "results.json").write_text("earlier", encoding="utf-8")
    broken = dataclasses.replace(results[0].regions[0], caption_score=math.inf)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(
            [results[0], dataclasses.replace(results[2], regions=(broken,))], tmp_path, ["json"]
        )
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == "earlier"


class CountedReads(list):
    """A list that counts how often it is read."""

    reads = 0

    def __iter__(self):
        self.reads += 1
        return super().__iter__()


@pytest.mark.parametrize("format", list(FORMATS))
def test_results_are_read_at_most_twice(results, tmp_path, format):
    counted = CountedReads(results)
    paths = write_results(counted, tmp_path, [format])
    assert counted.reads <= 2
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [*FORMATS[format].files]
