"""Masks of a file of boxes, as masks."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.cli import main

BOXES = [[98.0, 50.0, 139.0, 130.0], [10.0, 200.0, 100.0, 90.0]]  # xywh
POLYGON = [98.0, 50.0, 237.0, 50.0, 98.0, 180.0]
FEW = ["--tasks", "categories"]
CELLS = ["--masks-as", "cells"]


@pytest.fixture
def coco(tmp_path, image):
    """Writes a COCO file with masks of the two boxes."""

    def write(*masks):
        rows = [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": mask}
            for number, (box, mask) in enumerate(zip(BOXES, masks), 1)
        ]
        document = {
            "images": [{"id": 1, "file_name": image.name, "width": 480, "height": 360}],
            "annotations": rows,
            "categories": [{"id": 1, "name": "thing"}],
        }
        (tmp_path / "coco.json").write_text(json.dumps(document), encoding="utf-8")
        return tmp_path / "coco.json"

    return write


@pytest.fixture(scope="module")
def predictor():
    return RegionPredictor("tiny", device="cpu")


def rows(folder):
    row = json.loads((folder / "results.jsonl").read_text(encoding="utf-8"))
    return [
        {one["name"]: one["score"] for one in region["categories"]} for region in row["regions"]
    ]


@pytest.mark.parametrize(
    "options", [[], CELLS, ["--masks-as", "box"], ["--masks-as", "dim"], [*CELLS, "--explain"]]
)
def test_masks_of_the_file_are_used(image, coco, predict, predictor, tmp_path, options):
    file, out = coco([POLYGON], []), tmp_path / "out"

    assert predict(image, "--boxes", file, *FEW, "--output", out, *options) == 0

    use = options[1] if options else None
    corners = [[x, y, x + width, y + height] for x, y, width, height in BOXES]
    asked = {"tasks": ["categories"], "masks_as": use}
    expected = predictor.predict(image, corners, masks=[[POLYGON], None], **asked)
    plain = predictor.predict(image, corners, tasks=["categories"])
    assert rows(out) == [pytest.approx(dict(one.categories), abs=1e-4) for one in expected]
    assert (dict(expected[0].categories) != dict(plain[0].categories)) == (use != "box")


def test_a_page_made_later_shows_the_mask(image, coco, predict, tmp_path):
    arguments = [image, "--boxes", coco([POLYGON], []), *FEW, *CELLS, "--output", tmp_path / "out"]
    predict(*arguments)

    assert predict(*arguments, "--explain") == 0

    (page,) = (tmp_path / "out" / "explain").iterdir()
    assert page.read_text(encoding="utf-8").count('class="beside-mask"') == 2  # of a region


def test_another_mask_is_another_question(image, coco, predict, tmp_path):
    arguments = ["--boxes", coco([POLYGON], []), *FEW, *CELLS, "--output", tmp_path / "out"]
    predict(image, *arguments)
    before = rows(tmp_path / "out")
    coco([[98.0, 50.0, 160.0, 50.0, 98.0, 120.0]], [])

    predict(image, *arguments)

    assert rows(tmp_path / "out")[0] != before[0]
    assert rows(tmp_path / "out")[1] == pytest.approx(before[1], abs=1e-5)


def test_a_mask_outside_of_its_box_fails_its_image(image, coco, predict, tmp_path):
    arguments = ["--boxes", coco([[0.0, 0.0, 9.0, 0.0, 9.0, 9.0]], []), *FEW]

    assert predict(image, *arguments, "--output", tmp_path / "out") == 3

    failures = json.loads((tmp_path / "out" / "failures.json").read_text(encoding="utf-8"))
    assert "masks: row 0: no part of the mask lies in the box" in failures[image.name]


def test_an_unknown_use_is_named(image, coco, predict, capsys):
    assert predict(image, "--boxes", coco([POLYGON], []), "--masks-as", "blur") == 2
    assert (
        "masks_as: expected one of ['box', 'cells', 'dim'], got 'blur'" in capsys.readouterr().err
    )


def test_many_images_with_the_masks_of_their_file(image, coco, predictor, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    file, out = coco([POLYGON], []), tmp_path / "out"
    images = tmp_path / "images"
    images.mkdir()
    (images / image.name).write_bytes(image.read_bytes())

    call = ["predict-many", str(images), "--boxes", str(file), "--output", str(out), *FEW]
    assert main([*call, "--workers", "0", "--device", "cpu"]) == 0

    corners = [[x, y, x + width, y + height] for x, y, width, height in BOXES]
    expected = predictor.predict(image, corners, masks=[[POLYGON], None], tasks=["categories"])
    (part,) = out.glob("part-*.parquet")
    (answer,) = pq.read_table(part).to_pylist()
    found = [
        {one["name"]: one["score"] for one in region["categories"]} for region in answer["regions"]
    ]
    assert found == [pytest.approx(dict(one.categories), abs=1e-4) for one in expected]
