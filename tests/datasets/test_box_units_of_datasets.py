"""Boxes in other units than pixels: of nine images of 640 x 480, or of one."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.datasets.custom_source import Custom
from lavis_dynrefer.errors import InputError


@pytest.fixture
def read(tmp_path):
    """The boxes that `custom_region` makes of the same x, y, width, height in every image."""

    def _read(bbox, units=None, images=9):
        size = {"width": 640, "height": 480}
        numbers = range(images)
        listed = [{"id": n, "file_name": f"{n}.png", **size} for n in numbers]
        rows = [{"id": n, "image_id": n, "bbox": bbox, "caption": "a dog"} for n in numbers]
        for number in numbers:
            Image.new("L", (640, 480)).save(tmp_path / f"{number}.png")
        document = json.dumps({"images": listed, "annotations": rows})
        (tmp_path / "own.json").write_text(document, encoding="utf-8")
        info = {
            "root": str(tmp_path),
            "images": {"storage": "."},
            "annotations": {"train": "own.json"},
            "box_units": units,
        }
        source = Custom(OmegaConf.create({"type": "default", "build_info": info}))
        return {region.box for region in source.read_splits()["train"].regions}

    return _read


@pytest.mark.parametrize(
    ("bbox", "unit"),
    [
        ([0.1, 0.25, 0.5, 0.7], "fraction"),
        ([10, 25, 50, 70], "percent"),
        ([100, 250, 500, 700], "thousandths"),
    ],
)
def test_boxes_that_look_relative_are_asked_about_and_converted_on_request(read, bbox, unit):
    with pytest.raises(InputError, match=f"box_units: {unit}"):
        read(bbox)

    (box,) = read(bbox, unit)

    assert box == pytest.approx((64, 120, 384, 456))


def test_pixels_are_believed_where_the_user_says_so(read):
    assert read([10, 25, 50, 50], "pixels") == {(10, 25, 60, 75)}
    assert read([10, 25, 50, 50], images=1) == {(10, 25, 60, 75)}  # one such box may be chance


def test_another_unit_is_read_again_and_an_unknown_one_refused(read):
    boxes = [read([10, 25, 50, 50], unit) for unit in ("pixels", "percent", "pixels")]

    assert boxes[0] == boxes[2] != boxes[1]
    with pytest.raises(InputError, match="box_units"):
        read([10, 25, 50, 50], "inch")
