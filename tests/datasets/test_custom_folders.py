"""Folders of a tool's files as a dataset."""

from __future__ import annotations

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


@pytest.mark.parametrize("images", ["train", "train/images", "all"])
def test_images_lie_in_folders_as_their_annotations_do_or_in_one(put, tmp_path, images):
    put("train/labels/a.txt", "0 .5 .5 .2 .4\n")
    put("train/images/a.png")
    put("all/a.png")

    found = read_custom(tmp_path / "train", tmp_path / images, name="own", split="val")

    place = "train/images" if images == "train" else images
    assert found.images[1].path == str(tmp_path / place / "a.png")
    assert found.regions[0].box == pytest.approx((40, 24, 60, 56))


def test_a_folder_without_a_readable_region_says_what_is_wrong_with_them(put, tmp_path):
    put("labels/a.txt", "0 50 40 20 32\n")
    put("images/a.png")

    with pytest.raises(ValueError, match=r"a\.txt: line 1: expected fractions of the image"):
        read_custom(tmp_path / "labels", tmp_path / "images", name="own", split="val")
