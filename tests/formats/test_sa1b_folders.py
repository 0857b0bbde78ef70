"""Folders of SA-1B's json, one file per image."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.formats import read_box_file
from lavis_dynrefer.formats.annotation_tools.tool_files import read_layout

RLE = {"size": [4, 4], "counts": "52203"}  # of 2 x 2 pixels in the middle
SAM = {"bbox": [1, 1, 2, 2], "segmentation": RLE, "predicted_iou": 0.9, "crop_box": [0, 0, 4, 4]}
TRIANGLE = {"label": "mug", "points": [[1, 2], [30, 4], [5, 60]], "shape_type": "polygon"}


@pytest.fixture
def put(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")

    return write


def sa1b_file(number, *rows):
    name = {"file_name": f"sa_{number}.jpg", "image_id": number}
    return {"image": {"width": 4, "height": 4, **name}, "annotations": list(rows)}


def test_a_folder_of_sa1b_has_the_masks_of_every_image(put, tmp_path):
    put("sa_000000/sa_1.json", sa1b_file(1, {**SAM, "id": 501}, {**SAM, "id": 502}))
    put("sa_000000/sa_2.json", sa1b_file(2))
    put("sa_000001/sa_3.json", sa1b_file(3, {**SAM, "id": 503}, "damaged"))
    put("sa_000001/sa_4.json", '{"image": {')
    put("sa_000001/list.json", {"licence": "a text beside them"})

    file = read_box_file(tmp_path)

    found = {name.rsplit("/", 1)[-1]: entry for name, entry in file.images.items()}
    assert {name: len(entry.boxes) for name, entry in found.items()} == {
        "sa_1.jpg": 2,
        "sa_2.jpg": 0,
        "sa_3.jpg": 1,
    }
    assert (file.format, found["sa_1.jpg"].boxes) == ("xywh", [(1, 1, 2, 2)] * 2)
    assert found["sa_1.jpg"].ids == [501, 502]
    assert found["sa_3.jpg"].masks == [{"size": [4, 4], "counts": "52203"}]
    notes = " ".join(file.notes)
    assert "files that cannot be read: 1, first sa_000001/sa_4.json" in notes
    assert "regions that cannot be read: 1, first sa_000001/sa_3.json: annotations[1]" in notes
    assert "files that are not of SA-1B: 1, first sa_000001/list.json" in notes


def test_ids_that_begin_anew_in_each_file_are_numbered(put, tmp_path):
    put("sa_1.json", sa1b_file(1, {**SAM, "id": 1}, {**SAM, "id": 2}))
    put("sa_2.json", sa1b_file(2, {**SAM, "id": 1}, SAM))

    rows = read_layout(tmp_path).document["annotations"]

    assert [(row["image_id"], row["id"]) for row in rows] == [(1, 1), (1, 2), (2, 3), (2, 4)]


def test_a_folder_of_two_tools_is_refused(put, tmp_path):
    put("sa_1.json", sa1b_file(1, SAM))
    put("b.json", {"version": "5.5.0", "shapes": [TRIANGLE], "imagePath": "b.jpg"})

    with pytest.raises(ValueError, match="files of labelme and SA-1B; name a folder or a file of"):
        read_box_file(tmp_path)
