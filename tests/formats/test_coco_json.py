"""Results as COCO json, read with pycocotools."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lavis_dynrefer.formats import ImageResult, write_results
from lavis_dynrefer.structures import RegionPrediction


@pytest.fixture
def coco_of(tmp_path):
    """Write results as COCO json and parse it."""

    def write(results):
        (path,) = write_results(results, tmp_path, ["coco"])
        return json.loads(path.read_text(encoding="utf-8"))

    return write


def test_an_annotation_has_cocos_keys(results, coco_of):
    document = coco_of(results)
    first = document["annotations"][0]
    assert first["bbox"] == [10.0, 20.0, 40.0, 60.0]
    assert first["area"] == 2400.0
    assert document["categories"] == [{"id": 1, "name": "flower"}, {"id": 2, "name": "tree"}]
    assert first["category_id"] == 1
    assert first["score"] == pytest.approx(1 / (1 + math.exp(-5)))  # of two names, 5 apart
    assert first["attributes"] == {"color:red": 0.9, "wet": 0.2, "dry": 0.1}


def test_ids_of_the_users_own_dataset_are_kept(results, coco_of):
    document = coco_of(results)
    assert [row["id"] for row in document["annotations"]] == [7, 3, 9]
    assert [row["id"] for row in document["images"]] == [13, 14, 12]  # only one has its own


@pytest.mark.parametrize(
    ("ids", "written"), [((5, 5), [1, 2]), ((0, 1), [2, 1]), (("a", "b"), [1, 2])]
)
def test_ids_that_coco_cannot_have_are_replaced(regions, coco_of, ids, written):
    document = coco_of([ImageResult("a.jpg", "/a.jpg", 99, 99, regions, ids)])
    assert [row["id"] for row in document["annotations"]] == written
    assert [row["region_id"] for row in document["annotations"]] == list(ids)


def test_without_categories_there_is_one(coco_of):
    region = RegionPrediction(box=(0.0, 0.0, 2.0, 2.0), caption="a dot", caption_score=0.125)
    document = coco_of([ImageResult("a.jpg", "/a.jpg", 9, 9, (region,))])
    assert document["categories"] == [{"id": 1, "name": "region"}]
    assert document["annotations"][0]["score"] == 0.125


def test_pycocotools_reads_the_file(results, tmp_path):
    (path,) = write_results(results, tmp_path, ["coco"])
    coco = COCO(str(path))
    assert coco.getImgIds() == [13, 14, 12]
    assert coco.getAnnIds(imgIds=[13]) == [7, 3]
    assert coco.loadAnns(9)[0]["caption"] == "a tree"
    assert coco.loadImgs(14)[0]["file_name"] == "empty.png"


def test_pycocotools_evaluates_the_annotations_as_results(results, tmp_path):
    (path,) = write_results(results, tmp_path, ["coco"])
    truth = COCO(str(path))
    annotations = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    grader = COCOeval(truth, truth.loadRes(annotations), "bbox")
    grader.evaluate()
    grader.accumulate()
    grader.summarize()
    assert grader.stats[0] == pytest.approx(1.0)
    assert np.isfinite(grader.stats[:2]).all()
