"""`dynrefer predict`, run as a user does, with the embedded model on drawn scenes."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.cli import main
from lavis_dynrefer.formats import read_results
from lavis_dynrefer.synthetic import make_scene, render

FEW = ["--tasks", "caption,categories", "--categories", "flower,tree,boat"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of three images, and image -> boxes."""
    folder = tmp_path_factory.mktemp("scenes")
    boxes = {}
    for number in range(3):
        scene = make_scene(0, 2_000_001 + number)
        render(scene).save(folder / f"scene {number}.png")
        boxes[f"scene {number}.png"] = [list(item.box) for item in scene.objects[:2]]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return folder, boxes


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):
    """An output folder with every format, made once; tests that write copy it."""
    folder, _ = scenes
    output = tmp_path_factory.mktemp("finished") / "answers"
    formats = "json,jsonl,coco,csv,label-studio,fiftyone"
    arguments = [
        "--boxes",
        folder / "boxes.json",
        "--output",
        output,
        "--format",
        formats,
        "--draw",
    ]
    assert predict(folder, *arguments) == 0
    return output


def predict(*arguments) -> int:
    return main(["predict", *map(str, arguments)])


def rows_of(output):
    return {result.image: result for result in read_results(output / "results.jsonl")}


def test_every_image_has_an_answer_for_every_box(finished, scenes):
    rows = rows_of(finished)
    assert {name: [list(r.box) for r in row.regions] for name, row in rows.items()} == scenes[1]
    assert all(region.caption for row in rows.values() for region in row.regions)


def test_the_answers_are_those_of_the_api(finished, scenes):
    folder, boxes = scenes
    predictor = RegionPredictor("tiny")
    for_api = {name: predictor.predict(folder / name, rows) for name, rows in boxes.items()}
    from_command = rows_of(finished)
    captions = {name: [region.caption for region in rows] for name, rows in for_api.items()}
    assert captions == {
        name: [region.caption for region in row.regions] for name, row in from_command.items()
    }
    one, other = for_api["scene 1.png"][0], from_command["scene 1.png"].regions[0]
    assert dict(one.categories) == pytest.approx(dict(other.categories), abs=1e-4)
    assert one.scales == other.scales


def test_all_formats_tell_the_same(finished):
    rows = list(rows_of(finished).values())
    assert read_results(finished / "results.json") == rows
    with (finished / "results.csv").open(encoding="utf-8", newline="") as file:
        captions = [line["caption"] for line in csv.DictReader(file)]
    assert captions == [region.caption for row in rows for region in row.regions]
    coco = COCO(str(finished / "coco.json"))
    captions = [annotation["caption"] for annotation in coco.loadAnns(coco.getAnnIds())]
    assert captions == [region.caption for row in rows for region in row.regions]
    tasks = json.loads((finished / "label_studio" / "tasks.json").read_text())
    assert len(tasks) == len(rows)
    paths = json.loads((finished / "fiftyone" / "data.json").read_text())
    assert list(paths.values()) == [row.path for row in rows]


def test_annotated_images_are_larger_than_the_images_for_their_texts(finished):
    drawings = sorted((finished / "annotated").iterdir())
    assert [path.name for path in drawings] == [f"scene {number}.png.jpg" for number in range(3)]
    with Image.open(drawings[0]) as drawing:
        assert drawing.width == 640
        assert drawing.height > 480


def test_one_box_is_shown_as_a_table(scenes, capsys):
    image = scenes[0] / "scene 0.png"
    assert predict(image, "--box", "98,50,237,180", *FEW) == 0
    out = capsys.readouterr().out
    assert "98 50" in out
    assert "flower" in out


@pytest.mark.parametrize("format", ["jsonl", "json", "coco", "csv"])
def test_one_format_goes_to_the_standard_output(scenes, capsys, tmp_path, format):
    image = scenes[0] / "scene 0.png"
    assert predict(image, "--whole-image", *FEW, "--format", format) == 0
    (tmp_path / "out").write_text(capsys.readouterr().out, encoding="utf-8")
    if format in ("jsonl", "json"):
        (result,) = read_results(tmp_path / "out")
        assert result.regions[0].box == (0, 0, 480, 360)
    elif format == "csv":
        with (tmp_path / "out").open(encoding="utf-8", newline="") as file:
            assert next(csv.DictReader(file))["width"] == "480"
    else:
        assert json.loads((tmp_path / "out").read_text())["annotations"][0]["bbox"][2:] == [
            480,
            360,
        ]


def test_boxes_in_other_forms_are_the_same_regions(scenes, capsys):
    image = scenes[0] / "scene 0.png"
    predict(image, "--box", "96,36,192,180", *FEW, "--format", "jsonl")
    expected = capsys.readouterr().out
    predict(image, "--box", "96,36,96,144", "--box-format", "xywh", *FEW, "--format", "jsonl")
    assert capsys.readouterr().out == expected
    predict(image, "--box", ".2,.1,.4,.5", "--normalised", *FEW, "--format", "jsonl")
    assert capsys.readouterr().out == expected


def test_the_smallest_box_has_to_be_said_to_be_in_pixels(scenes, capsys):
    arguments = [scenes[0] / "scene 0.png", "--box", "0,0,1,1", "--tasks", "tags"]
    assert predict(*arguments) == 3
    assert "--no-normalised if they are pixels" in capsys.readouterr().err
    assert predict(*arguments, "--no-normalised") == 0


def test_what_libraries_print_is_not_among_the_results(scenes, capsys, monkeypatch):
    whole = RegionPredictor._answer

    def talk(self, *arguments):
        print("loading ...")
        return whole(self, *arguments)

    monkeypatch.setattr(RegionPredictor, "_answer", talk)
    predict(scenes[0] / "scene 0.png", "--whole-image", *FEW, "--format", "json")
    out, err = capsys.readouterr()
    assert json.loads(out)
    assert "loading ..." in err


def test_words_and_views_are_arguments(scenes, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("wet\nnasse Straße\n", encoding="utf-8")
    code = predict(
        *(scenes[0] / "scene 0.png", "--box", "98,50,237,180", "--format", "jsonl"),
        *("--tasks", "attributes,categories", "--attributes", f"@{tmp_path / 'words.txt'}"),
        *("--categories", "花, rüschen ", "--controls", "red", "--views", "fixed:0,0.5"),
    )
    assert code == 0
    (region,) = json.loads(capsys.readouterr().out)["regions"]
    assert {name for name, _ in region["attributes"]} == {"wet", "nasse Straße"}
    assert {name for name, _ in region["categories"]} == {"花", "rüschen"}
    assert region["scales"] == {"attributes": [0.0, 0.5], "categories": [0.0, 0.5]}
    assert region["caption"] is None


def test_tags_are_arguments(scenes, tmp_path, capsys):
    (tmp_path / "tags.txt").write_text("flower\nboat\nhouse\n")
    code = predict(
        *(scenes[0] / "scene 0.png", "--whole-image", "--format", "jsonl"),
        *("--tasks", "tags", "--tags", f"@{tmp_path / 'tags.txt'}"),
    )
    assert code == 0
    (region,) = json.loads(capsys.readouterr().out)["regions"]
    assert {name for name, _ in region["tags"]} <= {"flower", "boat", "house"}


def test_ids_of_a_coco_file_come_back(scenes, tmp_path):
    folder, boxes = scenes
    x1, y1, x2, y2 = boxes["scene 1.png"][0]
    document = {
        "images": [{"id": 77, "file_name": "val/scene 1.png"}],
        "annotations": [{"id": 55, "image_id": 77, "bbox": [x1, y1, x2 - x1, y2 - y1]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(document))
    code = predict(
        *(folder / "scene 1.png", "--boxes", tmp_path / "coco.json", *FEW),
        *("--output", tmp_path / "out", "--format", "coco"),
    )
    assert code == 0
    coco = COCO(str(tmp_path / "out" / "coco.json"))
    assert (coco.getImgIds(), coco.getAnnIds()) == ([77], [55])
    assert coco.loadAnns(55)[0]["bbox"] == [x1, y1, x2 - x1, y2 - y1]


def test_nothing_is_answered_twice(finished, scenes, tmp_path, capsys):
    output = shutil.copytree(finished, tmp_path / "answers")
    before = (output / "results.jsonl").read_bytes()
    # A model that cannot be loaded shows that none is.
    arguments = [scenes[0], "--boxes", scenes[0] / "boxes.json", "--output", output]
    assert predict(*arguments, "--device", "nowhere") == 0
    assert (output / "results.jsonl").read_bytes() == before
    assert "images: 3, regions: 6" in capsys.readouterr().out


def test_a_run_cut_off_in_a_row_goes_on(finished, scenes, tmp_path):
    output = shutil.copytree(finished, tmp_path / "answers")
    whole = (output / "results.jsonl").read_bytes()
    (output / "results.jsonl").write_bytes(whole[: len(whole) // 2])
    assert predict(scenes[0], "--boxes", scenes[0] / "boxes.json", "--output", output) == 0
    assert rows_of(output).keys() == scenes[1].keys()
    assert (output / "results.jsonl").read_bytes().startswith(whole[: whole.index(b"\n")])


def test_ctrl_c_leaves_what_was_answered(scenes, tmp_path, monkeypatch, capsys):
    folder, boxes = scenes
    arguments = [folder, "--boxes", folder / "boxes.json", *FEW, "--output", tmp_path / "out"]
    whole = RegionPredictor.predict_iter

    def cut_off(self, pairs, **questions):
        for number, answers in enumerate(whole(self, pairs, **questions)):
            if number == 1:
                raise KeyboardInterrupt
            yield answers

    with monkeypatch.context() as patch:
        patch.setattr(RegionPredictor, "predict_iter", cut_off)
        assert predict(*arguments) == 130
    assert "stopped with 1 of 3 images answered" in capsys.readouterr().err
    assert list(rows_of(tmp_path / "out")) == ["scene 0.png"]
    assert predict(*arguments) == 0
    assert rows_of(tmp_path / "out").keys() == boxes.keys()


def test_other_boxes_are_answered_anew(finished, scenes, tmp_path):
    output = shutil.copytree(finished, tmp_path / "answers")
    named = [{"id": 9 - row, "box": box} for row, box in enumerate(scenes[1]["scene 2.png"])]
    boxes = {**scenes[1], "scene 1.png": [scenes[1]["scene 1.png"][0], [0, 0, 99, 99]]}
    boxes["scene 2.png"] = named
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    before = rows_of(output)
    assert predict(scenes[0], "--boxes", tmp_path / "boxes.json", "--output", output) == 0
    after = rows_of(output)
    assert after["scene 1.png"].regions[1].box == (0, 0, 99, 99)
    assert after["scene 2.png"].ids == (9, 8)
    assert after["scene 0.png"] == before["scene 0.png"]
    assert (output / "results.jsonl").read_bytes().count(b"\n") == 3


def test_other_questions_need_another_folder(finished, scenes, tmp_path, capsys):
    output = shutil.copytree(finished, tmp_path / "answers")
    arguments = [scenes[0], "--boxes", scenes[0] / "boxes.json", "--output", output, *FEW]
    assert predict(*arguments) == 2
    assert (
        "different: categories was None, is ['flower', 'tree', 'boat']" in capsys.readouterr().err
    )
    assert predict(*arguments, "--no-resume") == 0
    region = rows_of(output)["scene 0.png"].regions[0]
    assert {name for name, _ in region.categories} == {"flower", "tree", "boat"}
    assert not (output / "coco.json").exists()  # made of other answers


def test_a_folder_without_answers_takes_other_questions(scenes, tmp_path):
    image, output = scenes[0] / "scene 0.png", ["--output", tmp_path / "out"]
    assert predict(image, "--whole-image", *FEW, *output, "--device", "nowhere") == 2
    assert predict(image, "--whole-image", "--tasks", "tags", *output) == 0


def test_another_image_of_the_same_name_is_refused(finished, scenes, tmp_path, capsys):
    output = shutil.copytree(finished, tmp_path / "answers")
    (tmp_path / "other").mkdir()
    shutil.copy(scenes[0] / "scene 0.png", tmp_path / "other")
    arguments = [tmp_path / "other", "--boxes", scenes[0] / "boxes.json", "--output", output]
    assert predict(*arguments) == 2
    assert "is called 'scene 0.png' like" in capsys.readouterr().err


def test_bad_images_are_listed_and_the_others_answered(scenes, tmp_path, capsys):
    folder = shutil.copytree(scenes[0], tmp_path / "images")
    (folder / "a page.jpg").write_text("<html>404</html>")
    (folder / "cut.png").write_bytes((folder / "scene 0.png").read_bytes()[:2000])
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    Image.new("RGB", (20, 20)).save(folder / "small.png")
    huge = b"P6 50000 50000 255\n"
    (folder / "huge.ppm").write_bytes(huge)
    output = tmp_path / "out"
    arguments = [folder, "--box", "30,30,90,90", *FEW, "--output", output]
    assert predict(*arguments) == 3
    assert rows_of(output).keys() == scenes[1].keys()
    failures = json.loads((output / "failures.json").read_text())
    assert failures.keys() == {"a page.jpg", "cut.png", "gone.png", "small.png", "huge.ppm"}
    assert "no part inside the 20 x 20 image" in failures["small.png"]
    assert "pass --box-format xywh for x, y, width" in failures["small.png"]
    assert "2500000000 pixels" in failures["huge.ppm"]
    err = capsys.readouterr().err
    assert "without an answer or a drawing: 5" in err
    assert "a page.jpg: cannot read image" in err
    for name in failures:
        (folder / name).unlink()
    assert predict(*arguments) == 0
    assert not (output / "failures.json").exists()


def test_a_model_that_fails_at_one_image_answers_the_others(scenes, tmp_path, monkeypatch):
    folder, boxes = scenes
    whole = RegionPredictor._answer

    def out_of_memory(self, samples, *arguments):
        if any((sample["image_boxes"] == 77).any() for sample in samples):
            raise RuntimeError("out of memory")
        return whole(self, samples, *arguments)

    monkeypatch.setattr(RegionPredictor, "_answer", out_of_memory)
    (tmp_path / "boxes.json").write_text(json.dumps({**boxes, "scene 1.png": [[77, 7, 90, 90]]}))
    arguments = [folder, "--boxes", tmp_path / "boxes.json", *FEW, "--output", tmp_path / "out"]
    assert predict(*arguments) == 3
    assert rows_of(tmp_path / "out").keys() == {"scene 0.png", "scene 2.png"}
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert failures == {"scene 1.png": "RuntimeError: out of memory"}


def test_answers_that_are_no_numbers_are_none(scenes, tmp_path):
    state = RegionPredictor("tiny").model.state_dict()
    state["qformer.query_tokens"].fill_(math.nan)
    torch.save(state, tmp_path / "broken.pth")
    arguments = ["--whole-image", "--tasks", "categories", "--output", tmp_path / "out"]
    broken = ["--checkpoint", tmp_path / "broken.pth"]
    assert predict(scenes[0] / "scene 0.png", *arguments, *broken) == 3
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert "answers that are no numbers" in failures["scene 0.png"]


def test_nothing_is_written_beside_the_output_folder(scenes, tmp_path):
    (tmp_path / "in" / "..x").mkdir(parents=True)
    names = [
        "-rf .png",
        "ü 花 %2e%2e%2f.png",
        "[red]\x1b[31m\n.png",
        "..x/..png",
        "n" * 251 + ".png",
    ]
    for name in [*names, b"\xff\xfe.png"]:
        shutil.copy(
            scenes[0] / "scene 0.png", os.path.join(os.fsencode(tmp_path / "in"), os.fsencode(name))
        )
    everything = "json,coco,csv,label-studio,fiftyone"
    arguments = ["--box", "9,9,99,99", *FEW, "--draw", "--format", everything, "--recursive"]
    assert predict(tmp_path / "in", *arguments, "--output", tmp_path / "out") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert len(rows_of(tmp_path / "out")) == 6
    assert len(list((tmp_path / "out" / "annotated").iterdir())) == 6


def test_a_file_of_boxes_need_not_be_of_all_images(scenes, tmp_path, capsys):
    folder, boxes = scenes
    some = {"scene 1.png": boxes["scene 1.png"][:1], "other.png": [[1, 2, 3, 4]]}
    (tmp_path / "boxes.json").write_text(json.dumps(some))
    assert predict(folder, "--boxes", tmp_path / "boxes.json", *FEW) == 0
    err = capsys.readouterr().err
    assert "images without an entry in" in err
    assert "for other images: 1" in err


def test_no_boxes_is_no_region(scenes, tmp_path):
    (tmp_path / "none.json").write_text("[]")
    arguments = ["--boxes", tmp_path / "none.json", "--output", tmp_path / "out", *FEW]
    assert predict(scenes[0] / "scene 0.png", *arguments, "--format", "coco,csv", "--draw") == 0
    assert rows_of(tmp_path / "out")["scene 0.png"].regions == ()
