"""Results in a single file, and on consoles that do not know every character."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lavis_dynrefer.formats import read_results

FEW = ["--whole-image", "--tasks", "categories", "--categories", "flower,tree"]


@pytest.mark.parametrize(
    ("name", "format", "read"),
    [
        ("a.json", None, lambda text: json.loads(text)[0]["regions"]),
        ("new/a.JSON", "coco", lambda text: json.loads(text)["annotations"]),
        ("a.jsonl", None, lambda text: json.loads(text)["regions"]),
        ("a.csv", "excel-csv", lambda text: list(csv.DictReader(io.StringIO(text[1:])))),
    ],
)
def test_a_file_name_is_a_file(image, predict, tmp_path, capsys, name, format, read):
    arguments = [image, *FEW, "--output", tmp_path / name, *(["--format", format] * bool(format))]

    assert predict(*arguments) == 0

    assert f"in {(tmp_path / name).parent}: {name.split('/')[-1]}\n" in capsys.readouterr().out
    assert len(read((tmp_path / name).read_text(encoding="utf-8"))) == 1
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_file_is_replaced_only_when_asked(image, predict, tmp_path, capsys):
    (tmp_path / "a.json").write_text("mine", encoding="utf-8")
    arguments = [image, *FEW, "--output", tmp_path / "a.json"]
    assert predict(*arguments) == 2
    assert "a.json exists; name another file, or replace it: --no-resume" in capsys.readouterr().err
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "mine"
    assert predict(*arguments, "--no-resume") == 0
    assert len(read_results(tmp_path / "a.json")) == 1


def test_a_folder_of_that_name_stays_one(image, predict, tmp_path):
    (tmp_path / "a.json").mkdir()
    assert predict(image, *FEW, "--output", tmp_path / "a.json") == 0
    assert read_results(tmp_path / "a.json" / "results.jsonl")


def test_any_console_can_show_the_answers(image, predict, tmp_path, monkeypatch):
    shutil.copy(image, tmp_path / "花.png")
    for format in ([], ["--format", "jsonl"]):
        console = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(console, encoding="ascii"))
        assert predict(tmp_path / "花.png", *FEW, *format) == 0
        sys.stdout.flush()
        shown = console.getvalue()
        if format:
            assert json.loads(shown.decode("utf-8"))["image"] == "花.png"
        else:
            assert rb"\u82b1.png" in shown


def test_answers_about_a_coco_file_are_graded_by_its_ids(scenes, predict, tmp_path):
    folder = scenes[0]
    names = ["--tasks", "categories", "--categories", "flower,tree,boat"]
    assert (
        predict(folder, "--boxes", folder / "boxes.json", *names, "--output", tmp_path / "a") == 0
    )
    ids = {"boat": 3, "tree": 5, "unused": 90, "flower": 41}
    document = {
        "images": [
            {"id": number, "file_name": row.image, "width": row.width, "height": row.height}
            for number, row in enumerate(read_results(tmp_path / "a" / "results.jsonl"))
        ],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    for number, row in enumerate(read_results(tmp_path / "a" / "results.jsonl")):
        for region in row.regions:
            x1, y1, x2, y2 = region.box
            document["annotations"].append(
                {
                    "id": 10 + len(document["annotations"]),
                    "image_id": number,
                    "category_id": ids[region.categories[0][0]],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    (tmp_path / "truth.json").write_text(json.dumps(document), encoding="utf-8")
    # The rows of the first run are of a file without categories: the ids are added to them.
    again = ["--boxes", tmp_path / "truth.json", *names, "--format", "coco"]

    for output in ("b", "a"):  # a new folder, and the one of the first run
        assert predict(folder, *again, "--output", tmp_path / output, "--device", "cpu") == 0
        truth = COCO(str(tmp_path / "truth.json"))
        found = json.loads((tmp_path / output / "coco.json").read_text(encoding="utf-8"))
        grader = COCOeval(truth, truth.loadRes(found["annotations"]), "bbox")
        grader.evaluate()
        grader.accumulate()
        grader.summarize()
        assert grader.stats[0] == pytest.approx(1.0)
