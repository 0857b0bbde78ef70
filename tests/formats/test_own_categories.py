"""Answers about a user's own COCO file carry its ids and masks, so that they are graded right."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

from lavis_dynrefer.cli.predict.predict_regions import RegionFinder
from lavis_dynrefer.formats import ImageResult, read_box_file, read_results, write_results
from lavis_dynrefer.formats.image_result import Category
from lavis_dynrefer.formats.result_parts.own_categories import OwnCategories
from lavis_dynrefer.images.boxes import xywh_to_xyxy
from lavis_dynrefer.images.mask_encoding import run_lengths
from lavis_dynrefer.structures import RegionPrediction

# Ids from 0, with gaps, and not in alphabetical order; 17 is a category without regions.
NAMES = {12: "Zebra", 0: "ant", 90: "traffic_light", 17: "bee"}
POLYGON = [[10.0, 10.0, 50.0, 10.0, 50.0, 40.0, 10.0, 40.0]]
RLE = {"size": [80, 100], "counts": [80 * 60, 40, 40, 40, 3 * 1026 + 2]}  # two half columns


@pytest.fixture
def truth(tmp_path):
    """COCO json of two images; image and annotation ids start from 0 and have gaps."""
    boxes = {7: [10, 10, 40, 30], 3: [60, 0, 2, 40], 50: [20, 30, 30, 20], 51: [5, 5, 90, 70]}
    masks = {7: {"segmentation": POLYGON}, 3: {"segmentation": RLE}, 50: {"segmentation": []}}
    categories = {7: 12, 3: 0, 50: 90, 51: 12}
    document = {
        "images": [
            {"id": number, "file_name": name, "width": 100, "height": 80}
            for number, name in ((0, "a.png"), (40, "b.png"))
        ],
        "annotations": [
            {
                "id": number,
                "image_id": 0 if number < 50 else 40,
                "category_id": categories[number],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                **masks.get(number, {}),
            }
            for number, box in boxes.items()
        ],
        "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def answer(truth, folder, named):
    """Results as `dynrefer predict` makes them; `named` gives the ranked names of an id."""
    file = read_box_file(truth)
    find = RegionFinder(file.images, file.format, categories=OwnCategories(file.categories))
    annotations = {row["id"]: row for row in json.loads(truth.read_text("utf-8"))["annotations"]}
    results = []
    for image, entry in file.images.items():
        regions = tuple(
            RegionPrediction(
                tuple(map(float, xywh_to_xyxy(box))),
                caption="an animal",
                caption_score=0.5,
                categories=named(NAMES[annotations[number]["category_id"]]),
            )
            for number, box in zip(entry.ids, entry.boxes)
        )
        results.append(find.annotated(ImageResult(image, image, 100, 80, regions)))
    write_results(results, folder, ["jsonl", "coco"])
    return results


def right(name):
    words = {"zebra": -1.0, "ant": -2.0, "traffic light": -3.0}
    return ((name.replace("_", " ").lower(), 5.0), *words.items())


def precision(truth, annotations, kind):
    coco = COCO(str(truth))
    found = coco.loadRes([dict(annotation) for annotation in annotations])  # numbers them anew
    grader = COCOeval(coco, found, kind)
    grader.evaluate()
    grader.accumulate()
    grader.summarize()
    return grader.stats[0]


def test_right_names_are_graded_as_right(truth, tmp_path):
    results = answer(truth, tmp_path, right)
    document = json.loads((tmp_path / "coco.json").read_text("utf-8"))

    assert precision(truth, document["annotations"], "bbox") == pytest.approx(1.0)
    assert [row["id"] for row in document["images"]] == [0, 40]
    assert [row["id"] for row in document["annotations"]] == [7, 3, 50, 51]
    assert document["categories"] == [
        {"id": number, "name": NAMES[number]} for number in (0, 12, 90)
    ]
    # The rows on disk are all that a later export needs.
    assert read_results(tmp_path / "results.jsonl") == results
    write_results(read_results(tmp_path / "results.jsonl"), tmp_path / "later", ["coco"])
    assert json.loads((tmp_path / "later" / "coco.json").read_text("utf-8")) == document


def test_without_names_a_region_keeps_its_own(truth, tmp_path):
    answer(truth, tmp_path, lambda name: ())
    document = json.loads((tmp_path / "coco.json").read_text("utf-8"))
    assert [row["category_id"] for row in document["annotations"]] == [12, 0, 90, 12]
    assert precision(truth, document["annotations"], "bbox") == pytest.approx(1.0)


def test_names_that_the_file_lacks_are_numbered_above_its_ids(truth, tmp_path):
    answer(truth, tmp_path, lambda name: (("wolf", 1.0), ("ant", 0.0), ("cat", 0.0)))
    document = json.loads((tmp_path / "coco.json").read_text("utf-8"))
    assert document["categories"] == [{"id": 92, "name": "wolf"}]  # 91 is the cat
    assert precision(truth, document["annotations"], "bbox") == 0


def test_equal_names_keep_the_id_of_the_region():
    own = OwnCategories({1: "mouse", 2: "mouse", 3: "cat"})
    mouse = RegionPrediction((0, 0, 9, 9), categories=(("mouse", 1.0), ("cat", 0.0)))
    assert [own.of(mouse, number).id for number in (2, 1, 3, None)] == [2, 1, 1, 1]
    assert own.notes() == []


def test_names_that_the_file_lacks_are_told():
    own = OwnCategories({1: "mouse", 7: "cat"})
    names = (("wolf", 1.0), ("bear", 0.0), ("cat", 0.0))
    assert own.of(RegionPrediction((0, 0, 9, 9), categories=names), 7) == Category(9, "wolf")
    (note,) = own.notes()
    assert "not categories of your file: 1, first wolf" in note
    assert note.endswith("numbered from 8")


def test_ids_have_one_type(tmp_path):
    (tmp_path / "boxes.csv").write_text(
        "image,id,x1,y1,x2,y2\na.png,left,1,2,3,4\nb.png,7,1,2,3,4\nc.png,,1,2,3,4\n", "utf-8"
    )
    file = read_box_file(tmp_path / "boxes.csv")
    find = RegionFinder(file.images, file.format)
    assert [find.ids(name, 1) for name in file.images] == [("left",), ("7",), ("1",)]


def test_results_for_two_files_do_not_mix_their_ids(truth, tmp_path):
    results = answer(truth, tmp_path, right)
    cow = (Category(12, "cow"),)
    other = ImageResult("c.png", "c.png", 9, 9, results[0].regions[:1], categories=cow)
    write_results([*results, other], tmp_path, ["coco"])
    document = json.loads((tmp_path / "coco.json").read_text("utf-8"))
    assert [row["name"] for row in document["categories"]] == [
        "Zebra",
        "ant",
        "cow",
        "traffic_light",
    ]
    assert [row["id"] for row in document["categories"]] == [1, 2, 3, 4]
    assert [row["category_id"] for row in document["annotations"]] == [1, 2, 4, 1, 3]


def test_masks_are_written_as_they_were_given(truth, tmp_path):
    answer(truth, tmp_path, right)
    document = json.loads((tmp_path / "coco.json").read_text("utf-8"))
    polygon, rle, no_mask, _ = document["annotations"]
    assert (polygon["segmentation"], polygon["area"]) == (POLYGON, 1200)
    assert (rle["segmentation"], rle["area"]) == ({**RLE, "counts": "Pf4X1X10Po2"}, 80)
    assert run_lengths("Pf4X1X10Po2", 8000).tolist() == RLE["counts"]
    assert no_mask["segmentation"] == [[20, 30, 50, 30, 50, 50, 20, 50]]  # outline of the box
    assert [row["iscrowd"] for row in document["annotations"]] == [0, 0, 0, 0]
    # The truth has no mask for two of its boxes: grade with the outlines there as well.
    graded = json.loads(truth.read_text("utf-8"))
    for annotation, ours in zip(graded["annotations"], document["annotations"]):
        annotation["segmentation"] = annotation.get("segmentation") or ours["segmentation"]
    truth.write_text(json.dumps(graded), encoding="utf-8")
    assert precision(truth, document["annotations"], "segm") == pytest.approx(1.0)
    coco = COCO(str(tmp_path / "coco.json"))
    assert [int(coco.annToMask(row).sum()) for row in coco.loadAnns([7, 3])] == [1200, 80]


def test_torchvision_reads_boxes_labels_and_masks(truth, tmp_path):
    answer(truth, tmp_path, right)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (100, 80)).save(tmp_path / name)
    data = CocoDetection(tmp_path, tmp_path / "coco.json")
    wrapped = wrap_dataset_for_transforms_v2(data, target_keys=["boxes", "labels", "masks"])
    target = wrapped[0][1]
    assert target["labels"].tolist() == [12, 0]
    assert target["boxes"].tolist() == [[10, 10, 50, 40], [60, 0, 62, 40]]
    assert np.asarray(target["masks"]).sum(axis=(1, 2)).tolist() == [1200, 80]
