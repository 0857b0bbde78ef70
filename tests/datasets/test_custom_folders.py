"""Folders of a tool's files as a dataset, and masks of another size."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from lavis_dynrefer.datasets.sources.custom_json import read_custom


@pytest.fixture
def put(tmp_path):
    """Writes files with a text, or images of 100 x 80 pixels."""

    def write(name, text=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            Image.new("RGB", (100, 80)).save(path)
        else:
            path.write_text(text, encoding="utf-8")

    return write


@pytest.mark.parametrize("images", ["set", "set/images", "set/images/val", "all"])
def test_images_lie_in_folders_as_their_annotations_do_or_in_one(put, tmp_path, images):
    put("set/labels/val/a.txt", "0 .5 .5 .2 .4\n")
    put("set/images/val/a.png")
    put("all/a.png")

    found = read_custom(tmp_path / "set", tmp_path / images, name="own", split="val")

    place = "all" if images == "all" else "set/images/val"
    assert found.images[1].path == str(tmp_path / place / "a.png")
    assert found.regions[0].box == pytest.approx((40, 24, 60, 56))


@pytest.mark.parametrize("name", [r"D:\\me\\set\\sub\\a.png", "../images/sub/a.png"])
def test_the_folders_that_a_file_names_count_too(put, tmp_path, name):
    shape = '{"label": "mug", "points": [[10, 20], [30, 60]]}'
    put("labels/7.json", f'{{"imagePath": "{name}", "shapes": [{shape}]}}')
    put("images/sub/a.png")

    found = read_custom(tmp_path / "labels", tmp_path / "images", name="own", split="val")

    assert found.images[1].path == str(tmp_path / "images/sub/a.png")


def test_a_folder_without_a_readable_region_says_what_is_wrong_with_them(put, tmp_path):
    put("labels/a.txt", "0 50 40 20 32\n")
    put("images/a.png")

    with pytest.raises(ValueError, match=r"a\.txt: line 1: expected fractions of the image"):
        read_custom(tmp_path / "labels", tmp_path / "images", name="own", split="val")


def test_equal_names_are_never_one_image(put, tmp_path):
    for part, box in (("train", ".5 .5 .2 .4"), ("val", ".5 .5 .4 .2")):
        put(f"{part}/labels/a.txt", f"0 {box}\n")
        put(f"{part}/images/a.png")
    put("all/a.png")

    found = read_custom(tmp_path, tmp_path, name="own", split="val")

    assert [found.images[number].path for number in (1, 2)] == [
        str(tmp_path / part / "images/a.png") for part in ("train", "val")
    ]
    with pytest.raises(ValueError, match="could both be"):
        read_custom(tmp_path, tmp_path / "all", name="own", split="val")


def test_the_box_of_a_mask_of_another_size_is_left_out(put, tmp_path):
    put("a.png")
    masks = [{"size": [80, 100], "counts": [85, 9, 7906]}, {"size": [8, 10], "counts": [9, 3, 68]}]
    rows = [
        {"id": number, "image_id": 1, "caption": "a mug", "segmentation": mask}
        for number, mask in enumerate(masks)
    ]
    images = [{"id": 1, "file_name": "a.png"}]
    put("coco.json", json.dumps({"images": images, "annotations": rows}))

    found = read_custom(tmp_path / "coco.json", tmp_path, name="own", split="val")

    assert [region.box for region in found.regions] == [(1, 5, 2, 14)]
    assert "RLE of (10, 8), image of (100, 80) pixels" in found.rejected[0].detail
