"""Regions that a file gives or a detector proposes."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from PIL import Image
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from lavis_dynrefer.cli.predict.predict_command import add_arguments
from lavis_dynrefer.cli.predict.predict_regions import check_region_options, region_finder


def test_proposed_regions_are_answered_once(image, predict, tmp_path):
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    arguments = ["--proposals", "rpn", "--proposal-weights", tmp_path / "detector.pth"]
    few = ["--proposal-count", "3", "--tasks", "tags", "--output", tmp_path / "out"]

    assert predict(image, *arguments, *few) == 0
    before = (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8")
    assert len(json.loads(before)["regions"]) == 3

    assert predict(image, *arguments, *few) == 0
    assert (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8") == before


def test_detector_and_model_share_the_device(image, predict, tmp_path, monkeypatch):
    devices = []

    def proposer(weights, *, count, device):
        devices.append(device)
        return lambda image: torch.zeros(0, 4)

    monkeypatch.setattr("lavis_dynrefer.detectors.region_proposals.RegionProposer", proposer)
    arguments = ["--proposals", "rpn", "--proposal-weights", tmp_path / "detector.pth"]

    assert predict(image, *arguments, "--device", "cpu", "--tasks", "tags") == 0
    assert devices == [torch.device("cpu")]


@pytest.mark.parametrize("options", [[], ["--explain"]])
def test_errors_of_torch_in_a_detector_end_the_run(image, predict, tmp_path, monkeypatch, options):
    def fail(self, image):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    proposer = "lavis_dynrefer.detectors.region_proposals.RegionProposer"
    monkeypatch.setattr(f"{proposer}.__init__", lambda self, *arguments, **options: None)
    monkeypatch.setattr(f"{proposer}.__call__", fail)
    arguments = ["--proposals", "rpn", "--proposal-weights", tmp_path / "detector.pth"]

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        predict(image, *arguments, "--tasks", "tags", "--output", tmp_path / "out", *options)


@pytest.fixture
def find(tmp_path):
    """Regions of a.png, 480 x 360, as the command finds them: content of a file, options -> boxes.

    Returns the corners and the notes.
    """
    Image.new("RGB", (480, 360)).save(tmp_path / "a.png")

    def found(content, *options):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "boxes").write_text(text, encoding="utf-8")
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        given = ["--boxes", str(tmp_path / "boxes"), *options]
        arguments = parser.parse_args([str(tmp_path / "a.png"), *given])
        check_region_options(arguments)
        finder, images, notes = region_finder(arguments, {"a.png": tmp_path / "a.png"})
        with Image.open(images["a.png"]) as image:
            return finder("a.png", image).boxes.tolist(), notes

    return found


def coco(*boxes, **image):
    rows = [{"id": n, "image_id": 1, "bbox": list(box)} for n, box in enumerate(boxes)]
    return {"images": [{"id": 1, "file_name": "a.png", **image}], "annotations": rows}


PERCENT = [[12.5, 25, 25, 50], [50, 25, 25, 50]]
PIXELS = [[60, 90, 180, 270], [240, 90, 360, 270]]


@pytest.mark.parametrize(
    ("boxes", "options"),
    [
        (PERCENT, ["--box-units", "percent"]),
        ([[10 * n for n in box] for box in PERCENT], ["--box-units", "thousandths"]),
        ([[n / 100 for n in box] for box in PERCENT], ["--box-units", "fraction"]),
        ([[n / 100 for n in box] for box in PERCENT], ["--normalised"]),
    ],
)
def test_boxes_may_be_relative(find, boxes, options):
    assert find(coco(*boxes, width=960, height=720), *options) == (PIXELS, [])


def test_boxes_that_may_be_percent_are_asked_about(find):
    message = "no box coordinate exceeds 100, but a.png is 480 x 360 .* --box-units pixels"
    with pytest.raises(ValueError, match=message):
        find(coco(*PERCENT))
    for options in (["--box-units", "pixels"], ["--no-normalised"]):
        assert find(coco(*PERCENT), *options)[0][0] == [12.5, 25, 37.5, 75]
    assert find(coco(PERCENT[0]))[0] == [[12.5, 25, 37.5, 75]]  # one box says too little


TABLE = "image,width,height,x1,y1,x2,y2\na.png,{},{},60,90,180,270\n"
OWN = {"image": "a.png", "path": "/a.png", "width": 960, "height": 720, "image_id": None}
SHAPES = {"imagePath": "a.png", "imageWidth": 360, "imageHeight": 480}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            coco([60, 90, 120, 180], width=960, height=720),
            "960 x 720 pixels, it is 480 x 360",
        ),
        (coco([60, 90, 120, 180], width=360, height=480), "turned by its EXIF .* save it rotated"),
        (TABLE.format(960, 720), "960 x 720 pixels, it is 480 x 360; scale the boxes"),
        ([{**OWN, "regions": [{"id": 1, "box": [60, 90, 180, 270]}]}], "960 x 720"),
        ({**SHAPES, "shapes": [{"points": [[60, 90], [180, 270]]}]}, "EXIF"),
    ],
)
def test_boxes_of_an_image_of_another_size_are_refused(find, content, message):
    with pytest.raises(ValueError, match=message):
        find(content)


def test_a_size_that_fits_is_no_problem(find):
    assert find(TABLE.format(480, 360)) == ([[60, 90, 180, 270]], [])


@pytest.mark.parametrize(
    ("boxes", "options", "message"),
    [
        (PIXELS, ["--box-units", "percent"], r"in percent they lie in \[0, 100\], got up to 360"),
        (PERCENT, ["--box-units", "percent", "--normalised"], "give one of the two"),
    ],
)
def test_units_that_do_not_fit_are_refused(find, boxes, options, message):
    with pytest.raises(ValueError, match=message):
        find(coco(*boxes), *options)


def test_what_of_a_file_is_not_used_is_told(find):
    _, notes = find(coco([60, 90, 120, 180], [1, 2, 3]))
    assert "annotations that cannot be read: 1, first annotations[1]: expected a box" in notes[0]


def test_a_near_name_is_shown(find):
    with pytest.raises(ValueError, match=r"first image is 'a\.png', the file names 'a\.jpg'"):
        find({"b.png": [PIXELS[0]], "a.jpg": [PIXELS[0]]})


def test_corners_in_a_coco_file_are_asked_about(find):
    corners = [[60, 90, 180, 270], [20, 30, 120, 130], [240, 190, 460, 350]]  # one leaves the image
    message = "1 of 3 boxes extend beyond their images; read as corners, they fit. Pass --box-"
    for content in (coco(*corners), {"file_name": "a.png", "objects": {"bbox": corners}}):
        with pytest.raises(ValueError, match=message):
            find(content)

    assert find(coco(*corners), "--box-format", "xyxy") == (corners, [])
    assert find(coco(*corners), "--box-format", "xywh")[0][0] == [60, 90, 240, 360]


def test_images_without_a_box_are_counted(find):
    boxes, notes = find(coco())
    assert (boxes, len(notes)) == ([], 1)
    assert "images without a box in " in notes[0]
    assert notes[0].endswith(": 1, first a.png")


def test_sizes_in_a_list_of_corners_are_asked_about(find):
    boxes = [[60, 90, 120, 180], [240, 90, 120, 180]]  # the first one could be corners
    message = "read as two corners, 1 of 2 boxes have .* pass --box-format xywh"
    with pytest.raises(ValueError, match=message):
        find({"a.png": boxes})

    assert find({"a.png": boxes}, "--box-format", "xywh") == (PIXELS, [])
