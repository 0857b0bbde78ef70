"""Images that viewers turn: 60 x 40 pixels as stored, 40 x 60 as shown."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from lavis_dynrefer.datasets.sources.custom_json import read_custom
from lavis_dynrefer.datasets.sources.raw_files import DatasetError

ORIENTATION = 0x0112
INSIDE_BOTH, SHOWN_ONLY = [5, 5, 20, 20], [5, 30, 20, 25]


@pytest.fixture
def read(tmp_path):
    """Reads boxes of one image each; kind: suffix, orientation."""

    def _read(boxes, suffix="jpg", orientation=6, **size):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        images, rows = [], []
        for number, box in enumerate(boxes):
            name = f"{number}.{suffix}"
            options = (
                {"tiffinfo": {ORIENTATION: orientation}} if suffix == "tif" else {"exif": exif}
            )
            Image.new("RGB", (60, 40)).save(tmp_path / name, **options)
            images.append({"id": number, "file_name": name, **size})
            rows.append({"id": number, "image_id": number, "bbox": box, "caption": "a dog"})
        path = tmp_path / "own.json"
        path.write_text(json.dumps({"images": images, "annotations": rows}), encoding="utf-8")
        return read_custom(path, tmp_path, name="own", split="train")

    return _read


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_images_are_noted_and_named_with_their_stored_size(
    read, caplog, suffix, orientation
):
    found = read([INSIDE_BOTH, INSIDE_BOTH], suffix, orientation)

    assert found.noted["exif_rotated"] == 2
    assert [(image.width, image.height) for image in found.images.values()] == [(60, 40)] * 2
    assert "2 of 2 images measured have an EXIF rotation" in caplog.text
    assert f"0.{suffix}, 60 x 40 pixels as stored" in caplog.text


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_boxes_that_fit_only_what_a_viewer_shows_are_refused(read, suffix):
    with pytest.raises(DatasetError, match="1 of 3 boxes extend beyond images with an EXIF"):
        read([SHOWN_ONLY, INSIDE_BOTH, INSIDE_BOTH], suffix)


@pytest.mark.parametrize(
    ("boxes", "orientation", "noted"),
    [
        ([INSIDE_BOTH], 1, None),  # upright
        ([[30, 5, 25, 20], SHOWN_ONLY, INSIDE_BOTH], 6, 1),  # some fit only as stored
    ],
)
def test_other_boxes_are_taken_as_stored(read, boxes, orientation, noted):
    assert bool(read(boxes, orientation=orientation).noted.get("exif_rotated")) == bool(noted)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_sizes_as_a_viewer_shows_them_are_refused_with_the_cure(read, suffix):
    with pytest.raises(DatasetError, match=r"it is 40 x 60 pixels, it is 60 x 40.*save it rotated"):
        read([INSIDE_BOTH], suffix, width=40, height=60)
