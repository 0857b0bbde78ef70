"""Masks with errors, groups of occluded regions, and their images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lavis_dynrefer.cli import main
from lavis_dynrefer.images.mask_encoding import decode_mask, encode_mask
from lavis_dynrefer.lab.answer_grading import groups_of
from lavis_dynrefer.lab.occlusion.mask_errors import grown_mask, mask_of_kind
from lavis_dynrefer.lab.occlusion.occluded_examples import draw_occluded
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.synthetic.raw_formats import truth_rows
from lavis_dynrefer.synthetic.scene_dataset import described_objects, write_dataset
from lavis_dynrefer.synthetic.scene_layout import make_scene

BLOCK = np.zeros((12, 14), dtype=bool)
BLOCK[4:9, 5:11] = True  # 5 x 6 pixels


def test_a_mask_grows_by_two_pixels_on_every_side():
    found = decode_mask(mask_of_kind(encode_mask(BLOCK), "dilated"))
    expected = np.zeros_like(BLOCK)
    expected[2:11, 3:13] = True
    assert (found == expected).all()


def test_a_mask_shrinks_by_two_pixels_on_every_side():
    found = decode_mask(mask_of_kind(encode_mask(BLOCK), "eroded"))
    expected = np.zeros_like(BLOCK)
    expected[6:7, 7:9] = True
    assert (found == expected).all()


def test_edges_of_the_image_do_not_shrink_a_mask():
    whole = encode_mask(np.ones((6, 6), dtype=bool))
    assert grown_mask(whole, -2) == whole


def test_a_mask_of_which_nothing_would_be_left_stays():
    thin = np.zeros((9, 9), dtype=bool)
    thin[3:7, 4] = True
    assert mask_of_kind(encode_mask(thin), "eroded") == encode_mask(thin)


def test_given_masks_stay_and_none_is_none():
    rle = encode_mask(BLOCK)
    assert (mask_of_kind(rle, "given"), mask_of_kind(rle, "none")) == (rle, None)
    with pytest.raises(ValueError, match="masks: unknown 'grown'"):
        mask_of_kind(rle, "grown")


def test_groups_of_a_crowd_and_a_landmark_scene():
    rows = [
        row
        for index, world in ((2_000_001, "crowded"), (2_000_002, "landmark"))
        for row in truth_rows(make_scene(0, index, world))
    ]
    groups = groups_of(rows)
    visible = np.array([row["visible"] for row in rows])
    assert (groups["occluded"] == (visible < 0.6)).all()
    assert groups["occluded"].any()
    assert not (groups["occluded"] & groups["landmark"]).any()
    assert (groups["crowded"] ^ groups["landmark"]).all()
    assert (groups["shared_box"] == np.array([row["overlap"] >= 0.6 for row in rows])).all()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crowd") / "scenes"
    write_dataset(folder, scenes=3, seed=0, world="crowded")
    return folder


def test_kinds_of_masks_are_compared_on_the_same_regions(crowd, tmp_path, capsys):
    numbers = tmp_path / "numbers.json"
    words = ["grade", crowd, "--masks", "none", "eroded", "--output", numbers]
    assert main(list(map(str, words))) == 0
    assert "visible < 60 %" in capsys.readouterr().out
    found = json.loads(numbers.read_text(encoding="utf-8"))["masks"]
    asked = [[one["truth"]["region_id"] for one in found[kind]["answers"]] for kind in found]
    assert list(found) == ["none", "eroded"]
    assert asked[0] == asked[1] != []
    assert found["none"]["grades"]["occluded"]["full"]["count"] > 0


def test_a_world_that_the_folder_lacks_is_refused(crowd, capsys):
    assert main(["grade", str(crowd), "--world", "landmark"]) != 0
    assert "no image of val is of the world landmark" in capsys.readouterr().err


def test_a_sheet_of_occluded_regions(crowd):
    described = described_objects(crowd, "train")
    sheet = draw_occluded(RegionPredictor("tiny"), described, count=1, columns=1)
    assert 300 <= sheet.width <= 320
    assert sheet.height > 360  # the image, and three lines below it
